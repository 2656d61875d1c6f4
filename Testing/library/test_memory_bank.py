from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from SAM2IterativeLib.foundation import memory_bank
from SAM2IterativeLib.foundation.memory_bank import (
    FARTHEST_POINTER,
    MOST_CONDITIONING,
    MOST_ENTRIES,
    TEMPORAL_SLOTS,
    Entry,
    MemoryBank,
    Query,
    Source,
    ranked_support,
)
from SAM2IterativeLib.settings import MemorySettings

BOTH = frozenset({1, 2})
MODES = ("G0", "G1", "G1+G2")


def unit(*values: float) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(values or (1.0, 0.0), dtype=torch.float32), dim=0)


def entry(source: Source, slice_index: int, **changes: object) -> Entry:
    plain = Entry(1, source, "", slice_index, slice_index / 20, frozenset({1}), unit(), 0.9, True, {"slice": slice_index})
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def query(slice_index: int = 10, direction: int = 1, **changes: object) -> Query:
    plain = Query(1, slice_index, 40, direction, slice_index / 20, frozenset({1}), unit())
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def bank(entries: Sequence[Entry], **settings: object) -> MemoryBank:
    return MemoryBank(MemorySettings(**settings), entries)  # type: ignore[arg-type]


def slices(entries: Sequence[Entry]) -> list[int]:
    return [e.slice_index for e in entries]


def random_entries(seed: int, classes: int = 3, count: int = 60) -> list[Entry]:
    """Entries of all kinds in no order, at most one key or recent entry per class and slice."""
    random = np.random.default_rng(seed)
    taken: set[tuple[int, int]] = set()
    entries = []
    for _ in range(count):
        c, z = int(random.integers(1, classes + 1)), int(random.integers(40))
        source = ("support", "key", "recent")[int(random.integers(3))]
        if source != "support" and (c, z) in taken:
            continue
        taken.add((c, z))
        shown = frozenset(int(v) for v in np.flatnonzero(random.random(classes) < 0.5) + 1)
        content = {"class": c, "source": source, "slice": z, "serial": len(entries)}
        entries.append(
            Entry(
                c,
                source,  # type: ignore[arg-type]
                "labelled" if source == "support" else "",
                z,
                z / 39,
                shown,
                unit(*random.normal(size=4)),
                float(random.random()),
                bool(random.random() < 0.7),
                content,
            )
        )
    return entries


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(5))
def test_a_query_never_gets_an_entry_of_another_class(mode: str, seed: int) -> None:
    filled = bank(random_entries(seed), mode=mode)
    for c in (1, 2, 3):
        for direction in (1, -1):
            asked = query(20, direction, class_index=c, descriptor=unit(1, 0, 0, 0))
            conditioning, recent = filled.chosen(asked)
            assert {e.class_index for e in (*conditioning, *recent)} <= {c}
            memories = filled.memories(asked)
            assert {content["class"] for content in (*memories.conditioning.values(), *memories.recent.values())} <= {c}


@pytest.mark.parametrize("mode", ["G1", "G1+G2"])
@pytest.mark.parametrize("seed", range(4))
def test_permuting_class_ids_permutes_what_is_chosen(mode: str, seed: int) -> None:
    names = {1: 3, 2: 1, 3: 2}
    entries = random_entries(seed)
    renamed = [dataclasses.replace(e, class_index=names[e.class_index], classes=frozenset(names[c] for c in e.classes)) for e in entries]
    for c in names:
        asked = query(20, class_index=c, classes=frozenset({1, 2}), descriptor=unit(1, 0, 0, 0))
        other = dataclasses.replace(asked, class_index=names[c], classes=frozenset({names[1], names[2]}))
        before, after = bank(entries, mode=mode).chosen(asked), bank(renamed, mode=mode).chosen(other)
        assert [[e.content["serial"] for e in part] for part in before] == [[e.content["serial"] for e in part] for part in after]


@pytest.mark.parametrize("asked_for", [{}, {"support": 4, "key": 4, "recent": 6}, {"support": 4, "key": 0, "recent": 6}, {"key": 4}])
@pytest.mark.parametrize("seed", range(4))
def test_at_most_seven_entries_four_of_them_conditioning(seed: int, asked_for: dict[str, int]) -> None:
    filled = bank(random_entries(seed, classes=1, count=90), mode="G1+G2", **asked_for)
    for z in range(0, 40, 3):
        for direction in (1, -1):
            memories = filled.memories(query(z, direction, descriptor=unit(1, 0, 0, 0)))
            assert len(memories.conditioning) <= MOST_CONDITIONING
            assert len(memories.conditioning) + len(memories.recent) <= MOST_ENTRIES


def test_support_gives_way_to_key_frames_where_both_do_not_fit() -> None:
    entries = [entry("support", z) for z in range(6)] + [entry("key", z) for z in (2, 4, 14, 16)]
    conditioning, _ = bank(entries, support=4, key=3).chosen(query())
    assert [e.source for e in conditioning] == ["support", "key", "key", "key"]


def test_one_place_for_a_key_frame_goes_to_the_nearest() -> None:
    entries = [entry("key", z) for z in (2, 22)]
    assert [slices(bank(entries, support=0, key=1).chosen(query(z))[0]) for z in (5, 20)] == [[2], [22]]


def test_the_stock_bank_takes_every_key_frame_and_what_its_pointers_reach_whatever_the_quality() -> None:
    entries = [entry("key", z) for z in (0, 5, 15, 39)] + [entry("support", 3)]
    entries += [entry("recent", z, quality=0.0, present=z % 2 == 0) for z in range(10, 30)]
    conditioning, recent = bank(entries, mode="G0").chosen(query(30))
    assert slices(conditioning) == [0, 5, 15, 39]
    assert slices(recent) == list(range(29, 30 - FARTHEST_POINTER - 1, -1))


@pytest.mark.parametrize("direction", [1, -1])
def test_the_stock_numbers_are_the_slices_own_mirrored_when_walking_down(direction: int) -> None:
    filled = bank([entry("key", 12), entry("recent", 20 - direction)], mode="G0")
    asked = query(20, direction)
    number, memories = filled.query_number(asked), filled.memories(asked)
    assert number == (20 if direction > 0 else 19)
    assert {(z - number) * direction for z in memories.conditioning} == {12 - 20}
    assert [number - z for z in memories.recent] == [1]
    assert memories.slices == 40


def test_support_is_ranked_by_likeness_then_position() -> None:
    settings = MemorySettings(mode="G1", support=2)
    like, unlike = entry("support", 30, descriptor=unit(1, 0)), entry("support", 10, descriptor=unit(0, 1))
    near, far = entry("support", 11), entry("support", 18)
    assert ranked_support(query(), [unlike, like], settings)[0] is like
    assert ranked_support(query(), [far, near], settings)[0] is near
    assert len(ranked_support(query(), [like, unlike, near, far], settings)) == 2


def test_support_rank_is_the_formula_of_method_f() -> None:
    asked = query(10, descriptor=unit(1, 0), position=0.5)
    # cos 0.6, distance 0 against cos 1, distance 0.9: 0.6 > 0.55; at distance 0.7: 0.6 < 0.65
    oblique, far = entry("support", 0, descriptor=unit(3, 4), position=0.5), entry("support", 1, position=1.4)
    settings = MemorySettings(mode="G1", support=1)
    assert ranked_support(asked, [far, oblique], settings) == [oblique]
    assert ranked_support(asked, [oblique, dataclasses.replace(far, position=1.2)], settings)[0].slice_index == 1


def test_g2_puts_the_same_set_of_classes_first_and_g1_does_not_look() -> None:
    same = entry("support", 30, classes=BOTH, descriptor=unit(0, 1))
    other = entry("support", 10)
    asked = query(classes=BOTH)
    assert slices(ranked_support(asked, [other, same], MemorySettings(mode="G1+G2"))) == [30, 10]
    assert slices(ranked_support(asked, [other, same], MemorySettings(mode="G1"))) == [10, 30]


def test_unknown_classes_match_no_entry_not_even_an_empty_slice() -> None:
    empty = entry("support", 30, classes=frozenset(), present=False)
    shown = entry("support", 10)
    assert slices(ranked_support(query(classes=None), [empty, shown], MemorySettings())) == [10, 30]
    assert slices(ranked_support(query(classes=frozenset()), [shown, empty], MemorySettings())) == [30, 10]


def test_key_frames_nearest_before_and_after_come_first() -> None:
    keys = [entry("key", z) for z in (2, 7, 8, 9, 25)]
    assert slices(bank(keys, key=2).chosen(query())[0]) == [9, 25]
    assert slices(bank(keys, key=3).chosen(query())[0]) == [9, 25, 8]
    assert slices(bank([entry("key", 3), entry("key", 5)], key=2).chosen(query())[0]) == [5, 3]


def test_a_key_frame_does_not_attend_to_itself() -> None:
    assert bank([entry("key", 10)]).chosen(query(10)) == ([], [])


def test_recent_entries_are_those_behind_the_walk() -> None:
    entries = [entry("recent", z) for z in (7, 8, 9, 11, 12, 13)]
    assert slices(bank(entries).chosen(query(10, 1))[1]) == [9, 8, 7]
    assert slices(bank(entries).chosen(query(10, -1))[1]) == [11, 12, 13]


def test_recent_entries_walk_back_past_failures() -> None:
    entries = [entry("recent", z, quality=0.5 if z in (8, 9) else 0.51) for z in range(3, 10)]
    assert slices(bank(entries).chosen(query())[1]) == [7, 6, 5]


def test_one_absent_entry_is_kept_where_the_organ_has_ended() -> None:
    entries = [entry("recent", z, present=z < 7) for z in range(2, 10)]
    assert slices(bank(entries).chosen(query())[1]) == [9, 6, 5]


def test_an_absent_entry_behind_the_last_good_one_is_not_kept() -> None:
    entries = [entry("recent", z, present=z > 4) for z in range(2, 10)]
    assert slices(bank(entries).chosen(query())[1]) == [9, 8, 7]


def test_absence_alone_is_remembered_too() -> None:
    entries = [entry("recent", z, present=False) for z in range(2, 10)]
    assert slices(bank(entries).chosen(query())[1]) == [9]
    assert bank(entries, recent=0).chosen(query())[1] == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mode", ["G1", "G1+G2"])
def test_numbers_keep_every_entry_within_what_sam2_has_codes_for(mode: str, seed: int) -> None:
    filled = bank(random_entries(seed, classes=1, count=120), mode=mode, support=2, key=2, recent=3)
    for z in range(0, 40, 2):
        for direction in (1, -1):
            asked = query(z, direction, descriptor=unit(1, 0, 0, 0))
            conditioning, recent = filled.chosen(asked)
            number, memories = filled.query_number(asked), filled.memories(asked)
            assert (len(memories.conditioning), len(memories.recent)) == (len(conditioning), len(recent))
            assert all(1 <= number - n <= TEMPORAL_SLOTS for n in memories.recent)
            assert all(1 <= abs(number - n) <= FARTHEST_POINTER for n in memories.conditioning)


@pytest.mark.parametrize("direction", [1, -1])
def test_distances_are_the_same_in_both_directions(direction: int) -> None:
    entries = [entry("key", 10 - 4 * direction), entry("key", 10 + 30 * direction), entry("support", 3), entry("support", 4)]
    entries += [entry("recent", 10 - n * direction) for n in (1, 2, 3)]
    asked = query(10, direction)
    filled = bank(entries)
    memories, number = filled.memories(asked), filled.query_number(asked)
    keys = {content["slice"]: n - number for n, content in memories.conditioning.items()}
    assert keys[10 - 4 * direction] == -4
    assert keys[10 + 30 * direction] == FARTHEST_POINTER
    assert sorted(n for z, n in keys.items() if z in (3, 4)) == [-2, -1]
    assert sorted(number - n for n in memories.recent) == [1, 2, 3]


def test_entries_from_far_back_take_the_farthest_codes_in_their_order() -> None:
    entries = [entry("recent", z) for z in (1, 2, 3)]
    filled, asked = bank(entries), query(30)
    number, memories = filled.query_number(asked), filled.memories(asked)
    assert {content["slice"]: number - n for n, content in memories.recent.items()} == {3: 4, 2: 5, 1: 6}


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("mode", MODES)
def test_what_a_long_walk_forgets_is_never_missed(mode: str, direction: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    walked = [
        entry("recent", z, quality=float(random.random()), present=bool(random.random() < 0.6))
        for z in range(300)[::direction]
        if random.random() < 0.8
    ]

    def choices() -> tuple[list[list[int]], int]:
        made = bank([entry("key", 150), *(entry("support", n) for n in range(3))], mode=mode, recent=6)
        chosen = []
        for each in walked:
            chosen.append([slices(part) for part in made.chosen(query(each.slice_index, direction, slices=300))])
            made.add(each)
        return chosen, len(made._passed[1])

    forgetful, kept = choices()
    monkeypatch.setattr(memory_bank, "_within_reach", list)
    assert choices() == (forgetful, len(walked)) and kept < 25
