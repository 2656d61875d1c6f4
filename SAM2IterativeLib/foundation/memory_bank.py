"""Method (f): the semantic-aware memory bank. A query slice of a class attends only to memories of its own semantic group.

Groups: G1 is the class; G2 the set of classes on the slice. An entry is *support* (a labelled case: the anatomical prior), *key* (a
prompted slice of the same volume) or *recent* (a slice passed just before). Choosing entries is pure, so it can be read and tested
without a model. The stock bank (mode G0) takes all key entries and the slices just passed, whatever their quality: of the last six the
whole memory, of the last fifteen the object pointer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from ..settings import MemorySettings
from .tracking import Memories

Source = Literal["support", "key", "recent"]

POSITION_WEIGHT = 0.5
SAME_CLASSES_BONUS = 0.1
MINIMUM_QUALITY = 0.5
"""Predicted IoU that a recent slice needs to be remembered (method (f))."""
TEMPORAL_SLOTS = 6
"""Distances that SAM2 has a temporal code for."""
FARTHEST_POINTER = 15
"""Slices over which SAM2 codes the distance of an object pointer."""
MOST_CONDITIONING, MOST_ENTRIES = 4, 7
"""What one query attends to at most: SAM2 is trained on few conditioning frames and has seven memory slots."""
_QUERY_NUMBER = 1000
"""The query slice's number in modes G1 and G1+G2: entries find free numbers on either side of it."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One memory.

    Attributes:
        class_index: 1..C; source: see ``Source``; case: where it comes from.
        slice_index: its slice in that case; position: that slice as a share of the axial extent, about 0..1.
        classes: the classes on the slice (sigma in method (f)).
        descriptor: unit vector of the slice's features, on the CPU.
        quality: predicted IoU; present: whether the object is on the slice.
        content: what SAM2 remembers.
    """

    class_index: int
    source: Source
    case: str
    slice_index: int
    position: float
    classes: frozenset[int]
    descriptor: torch.Tensor = field(repr=False)
    quality: float
    present: bool
    content: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Query:
    """The slice that asks.

    Attributes:
        class_index: the class it is segmented for.
        slice_index, slices: its place in the volume; direction: +1 or -1, the way the pass walks.
        position, descriptor: as in ``Entry``; classes: too, or None where nobody knows them: then no entry's are the same.
    """

    class_index: int
    slice_index: int
    slices: int
    direction: int
    position: float
    classes: frozenset[int] | None
    descriptor: torch.Tensor = field(repr=False)


class MemoryBank:
    """All memories of one pass through one volume, by class.

    Args:
        settings: mode and number of slots.
        support: entries from labelled cases.
    """

    def __init__(self, settings: MemorySettings, support: Iterable[Entry] = ()) -> None:
        self.settings = settings
        self._entries: dict[int, list[Entry]] = {}
        self._passed: dict[int, list[Entry]] = {}
        for entry in support:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Keep an entry in its class's group; of the recent ones, which come in the pass's order, those that a later slice may choose."""
        if entry.source == "recent":
            passed = [*self._passed.get(entry.class_index, []), entry]
            self._passed[entry.class_index] = _within_reach(passed)
        else:
            self._entries.setdefault(entry.class_index, []).append(entry)

    def chosen(self, query: Query) -> tuple[list[Entry], list[Entry]]:
        """The entries that a query attends to: for the conditioning slots, and for the temporal slots, latest first.

        Outside mode G0 at most ``MOST_CONDITIONING`` and ``MOST_ENTRIES`` in all: support entries give way to key entries, and
        recent ones to both.
        """
        group = self._entries.get(query.class_index, [])
        keys = [e for e in group if e.source == "key" and e.slice_index != query.slice_index]
        passed = sorted(
            (e for e in self._passed.get(query.class_index, []) if (query.slice_index - e.slice_index) * query.direction > 0),
            key=lambda e: abs(query.slice_index - e.slice_index),
        )
        if self.settings.mode == "G0":
            return keys, [e for e in passed if abs(query.slice_index - e.slice_index) <= FARTHEST_POINTER]
        nearest = _nearest_keys(query, keys, min(self.settings.key, MOST_CONDITIONING))
        support = ranked_support(query, [e for e in group if e.source == "support"], self.settings)
        conditioning = [*support[: MOST_CONDITIONING - len(nearest)], *nearest]
        return conditioning, _recent(passed, min(self.settings.recent, MOST_ENTRIES - len(conditioning)))

    def memories(self, query: Query) -> Memories:
        """The chosen entries numbered as SAM2 wants them.

        Going backwards the numbers are mirrored, so every pass walks upwards. In mode G0 they are the slices' own, as in the stock
        predictor; else distances are kept within what SAM2 has codes for, and support entries stand right behind the query.
        """
        conditioning, recent = self.chosen(query)
        if self.settings.mode == "G0":
            return Memories(_stock_numbers(conditioning, query), _stock_numbers(recent, query), query.slices)
        return _near_numbers(conditioning, recent, query)

    def query_number(self, query: Query) -> int:
        """The number under which the query slice itself is tracked."""
        return _stock_number(query.slice_index, query) if self.settings.mode == "G0" else _QUERY_NUMBER


def ranked_support(query: Query, entries: Sequence[Entry], settings: MemorySettings) -> list[Entry]:
    """The best support entries: cos(GAP F_z, GAP F_e) - 0.5 |position difference| + 0.1 [same classes on the slice].

    In mode G1+G2 entries whose slice shows the query's classes come before all others; in G1 the classes are not looked at.
    """
    if not entries:
        return []
    grouped = settings.mode == "G1+G2" and query.classes is not None
    likeness = (torch.stack([entry.descriptor for entry in entries]) @ query.descriptor).tolist()

    def rank(index: int) -> tuple[bool, float]:
        alike = grouped and entries[index].classes == query.classes
        score = likeness[index] - POSITION_WEIGHT * abs(entries[index].position - query.position)
        return alike, score + SAME_CLASSES_BONUS * alike

    order = sorted(range(len(entries)), key=rank, reverse=True)
    return [entries[index] for index in order[: settings.support]]


def _nearest_keys(query: Query, keys: Sequence[Entry], count: int) -> list[Entry]:
    """The nearest key before and the nearest after, the nearer of the two first, then the next nearest on either side."""
    by_distance = sorted(keys, key=lambda e: abs(e.slice_index - query.slice_index))
    sides = [next((e for e in by_distance if (e.slice_index - query.slice_index) * side > 0), None) for side in (-1, 1)]
    first = sorted((e for e in sides if e is not None), key=lambda e: abs(e.slice_index - query.slice_index))
    others = [e for e in by_distance if not any(e is f for f in first)]
    return [*first, *others][:count]


def _within_reach(passed: Sequence[Entry]) -> list[Entry]:
    """The entries, in the pass's order, that ``chosen`` may still take: a large CT would fill a GPU with all."""
    good = [e for e in passed if _is_good(e)][-MOST_ENTRIES:]
    absent = [e for e in passed if not e.present][-1:]
    kept = {id(e) for e in (*passed[-FARTHEST_POINTER:], *good, *absent)}
    return [e for e in passed if id(e) in kept]


def _is_good(entry: Entry) -> bool:
    return entry.present and entry.quality > MINIMUM_QUALITY


def _recent(passed: Sequence[Entry], count: int) -> list[Entry]:
    """The latest good slices, walking past failures and empty ones; the latest empty slice takes one slot if it is nearer."""
    good = [e for e in passed if _is_good(e)][:count]
    absent = next((e for e in passed if not e.present), None)
    if absent is None or not count or (good and passed.index(absent) > passed.index(good[0])):
        return good
    return [absent, *good[: count - 1]]


def _stock_number(slice_index: int, query: Query) -> int:
    return slice_index if query.direction > 0 else query.slices - 1 - slice_index


def _stock_numbers(entries: Iterable[Entry], query: Query) -> dict[int, dict[str, Any]]:
    return {_stock_number(e.slice_index, query): e.content for e in entries}


def _near_numbers(conditioning: Sequence[Entry], recent: Sequence[Entry], query: Query) -> Memories:
    temporal = {_QUERY_NUMBER - slot: e.content for slot, e in zip(_temporal_slots(recent, query), recent, strict=True)}
    places = _conditioning_places(conditioning, query)
    fixed = {_QUERY_NUMBER + place: e.content for place, e in zip(places, conditioning, strict=True)}
    return Memories(fixed, temporal, 2 * _QUERY_NUMBER)


def _temporal_slots(recent: Sequence[Entry], query: Query) -> list[int]:
    """Distances 1..``TEMPORAL_SLOTS`` of entries sorted latest first: their own, where failures lie between them nearer ones."""
    slots: list[int] = []
    farthest = TEMPORAL_SLOTS
    for entry in reversed(recent):
        farthest = min(farthest, abs(query.slice_index - entry.slice_index))
        slots.insert(0, farthest)
        farthest -= 1
    return slots


def _conditioning_places(conditioning: Sequence[Entry], query: Query) -> list[int]:
    """Where conditioning entries stand, ahead (+) or behind (-) of the query, all different, at most ``FARTHEST_POINTER`` away.

    Key entries keep their distance; support entries take what is free right behind the query.
    """
    places: dict[int, int] = {}
    order = sorted(range(len(conditioning)), key=lambda i: (conditioning[i].source == "support", i))
    for index in order:
        entry = conditioning[index]
        ahead = -1 if entry.source == "support" else (entry.slice_index - query.slice_index) * query.direction
        ahead = max(-FARTHEST_POINTER, min(FARTHEST_POINTER, ahead))
        # A taken place yields the next one: outwards from the query's side for support, inwards from the limit for keys.
        step = -1 if entry.source == "support" or ahead > 0 else 1
        while ahead in places.values():
            ahead += step
        places[index] = ahead
    return [places[index] for index in range(len(conditioning))]
