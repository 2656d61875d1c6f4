from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import sam2
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from sam2.sam2_video_predictor import SAM2VideoPredictor
from tiny_sam2 import CPU, SIDE, ball_volume, box_prompt, encoded, tiny_foundation, tiny_model

from SAM2IterativeLib.device import Device
from SAM2IterativeLib.errors import Stopped
from SAM2IterativeLib.foundation import propagation
from SAM2IterativeLib.foundation.checkpoints import load_foundation, read_tensors
from SAM2IterativeLib.foundation.features import VolumeFeatures, Window
from SAM2IterativeLib.foundation.memory_bank import Entry
from SAM2IterativeLib.foundation.propagation import (
    LEAST_LOGIT,
    Guidance,
    Propagated,
    Propagator,
    allowed_slices,
    axial_positions,
    classes_per_slice,
    competed_logits,
    competed_probabilities,
)
from SAM2IterativeLib.foundation.sam2_model import SAM2Base, build_compact, build_official, encode_images, object_score_bias
from SAM2IterativeLib.guidance.prompts import Prompt, reviewed_prompt
from SAM2IterativeLib.metrics import class_dice
from SAM2IterativeLib.phantom import phantom_case
from SAM2IterativeLib.presets import preset_path
from SAM2IterativeLib.settings import MemorySettings

FOUNDATION = tiny_foundation()
STOCK_BANK = MemorySettings(mode="G0", compete=False)
GROUPED = MemorySettings(mode="G1+G2")


def propagator(memory: MemorySettings = GROUPED, device: Device = CPU, decay: float = 5.0) -> Propagator:
    return Propagator(FOUNDATION.model, device, memory, decay)


def mask_prompts(labels: np.ndarray, slices: Sequence[int], classes: Sequence[int] = (1,)) -> dict[int, list[Prompt]]:
    return {c: [reviewed_prompt(labels[z] == c, z, c) for z in slices] for c in classes}


def support(labels_of: int = 1, seed: int = 7) -> list[Entry]:
    image, labels = ball_volume(classes=labels_of, seed=seed)
    return propagator().support_entries("labelled", encoded(FOUNDATION, image), labels, labels_of)


# The stock predictor


def pair(kind: str) -> tuple[SAM2Base, SAM2VideoPredictor]:
    """Our model and the stock predictor with the same weights."""
    if kind == "official":
        return official_pair()
    if kind == "random":
        return tiny_model(3), tiny_model(3, SAM2VideoPredictor)
    if not preset_path("compact").is_file():
        pytest.skip("The shipped weights are not there.")
    ours = load_foundation("compact", CPU).model
    architecture = read_tensors(preset_path("compact"))[1]
    stock = build_compact(architecture, SAM2VideoPredictor).eval().requires_grad_(False)
    stock.load_state_dict(ours.state_dict())
    return ours, stock


def official_pair() -> tuple[SAM2Base, SAM2VideoPredictor]:
    """The official tiny one with random weights at 64 pixels; the object score's bias is raised as in ours."""
    torch.manual_seed(0)
    ours = build_official("sam2.1-tiny", SIDE).eval().requires_grad_(False)
    ours.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(3.0)
    configuration = OmegaConf.load(Path(sam2.__file__).parent / "configs/sam2.1/sam2.1_hiera_t.yaml").model
    # What sam2.build_sam.build_sam2_video_predictor adds to the file, but for filling holes, which needs a compiled extension.
    configuration.merge_with(
        {
            "_target_": "sam2.sam2_video_predictor.SAM2VideoPredictor",
            "binarize_mask_from_pts_for_mem_enc": True,
            "sam_mask_decoder_extra_args": {
                "dynamic_multimask_via_stability": True,
                "dynamic_multimask_stability_delta": 0.05,
                "dynamic_multimask_stability_thresh": 0.98,
            },
            "image_size": SIDE,
        }
    )
    stock = instantiate(configuration, _recursive_=True).eval().requires_grad_(False)
    stock.load_state_dict(ours.state_dict())
    return ours, stock


class StockRun:
    """The stock predictor on a folder of JPEG frames, and the same frames' features for ours."""

    def __init__(self, kind: str, folder: Path, slices: int) -> None:
        self.ours, self.stock = pair(kind)
        self.side = self.ours.image_size
        image, self.labels = ball_volume(slices, self.side, self.side)
        grey = np.clip(image + 50, 0, 255).astype(np.uint8)
        for z, plane in enumerate(grey):
            Image.fromarray(plane).convert("RGB").save(folder / f"{z:05d}.jpg", quality=95)
        self.folder = str(folder)
        with torch.inference_mode():
            features = encode_images(self.ours, self.stock.init_state(self.folder)["images"].float())
        self.volume = VolumeFeatures(features, Window.whole((self.side, self.side)), self.labels.shape)

    def walk(self, prompts: Sequence[Prompt], reverse: bool) -> dict[int, torch.Tensor]:
        """Stock logits (side, side) per slice from the first prompted slice to the end of the volume."""
        state = self.stock.init_state(self.folder)
        for prompt in prompts:
            if prompt.mask is not None:
                self.stock.add_new_mask(state, prompt.slice_index, 1, torch.from_numpy(prompt.mask))
                continue
            top, left, bottom, right = prompt.box or (0, 0, 0, 0)
            points = (prompt.positive_points[:, ::-1] + 0.5).copy()
            self.stock.add_new_points_or_box(
                state, prompt.slice_index, 1, points, np.ones(len(points), np.int32), box=np.array([left, top, right, bottom])
            )
        start = (max if reverse else min)(prompt.slice_index for prompt in prompts)
        found = self.stock.propagate_in_video(state, start_frame_idx=start, reverse=reverse)
        return {z: logits[0, 0].clone() for z, _, logits in found}

    def averaged(self, prompts: Sequence[Prompt], decay: float) -> np.ndarray:
        """Both walks, averaged as method (g) says."""
        total, weight = np.zeros(self.labels.shape, np.float32), np.zeros(len(self.labels))
        for reverse in (False, True):
            sign = -1 if reverse else 1
            for z, logits in self.walk(prompts, reverse).items():
                distance = min((z - p.slice_index) * sign for p in prompts if (z - p.slice_index) * sign >= 0)
                total[z] += np.exp(-distance / decay) * np.maximum(logits.numpy(), LEAST_LOGIT)
                weight[z] += np.exp(-distance / decay)
        return total / weight[:, None, None]


def intersection_over_union(a: np.ndarray, b: np.ndarray) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


@pytest.mark.parametrize("prompted", ["box and point", "mask", "two frames"])
@pytest.mark.parametrize("kind", ["random", "shipped", "official"])
def test_masks_equal_the_stock_video_predictors(kind: str, prompted: str, tmp_path: Path) -> None:
    run = StockRun(kind, tmp_path, slices=8 if kind == "official" else 22)
    # Beyond the fifteen slices over which object pointers reach, on one side of the prompt.
    first, second = (3, 5) if kind == "official" else (5, 14)
    prompts = {
        "box and point": [box_prompt(run.labels[first], first)],
        "mask": [reviewed_prompt(run.labels[first] > 0, first, 1)],
        "two frames": [box_prompt(run.labels[first], first), reviewed_prompt(run.labels[second] > 0, second, 1)],
    }[prompted]
    expected = run.averaged(prompts, decay=5.0) > 0
    walked = Propagator(run.ours, CPU.in_full_precision(), STOCK_BANK, decay=5.0).propagate(run.volume, Guidance(1, {1: prompts}))
    found = walked.logits[0] > 0
    assert min(intersection_over_union(a, b) for a, b in zip(expected, found, strict=True)) >= 0.995
    # The comparison says something only where there are masks.
    assert np.mean([0 < plane.mean() < 1 for plane in expected]) > 0.5


# Competition


def test_competed_probabilities_sum_to_one() -> None:
    logits = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 20
    probabilities = competed_probabilities(logits)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5, 4, 4))
    assert bool((probabilities[:, 1:].argmax(1) == logits.argmax(1)).all())


@pytest.mark.parametrize("extreme", [[1e4, 1e4, -1e4], [-1024.0, -1024.0, -1024.0], [-1024.0, 60.0, 3.0], [0.0, 0.0, 0.0]])
def test_competed_logits_are_finite_at_extremes(extreme: list[float]) -> None:
    competed = competed_logits(torch.tensor(extreme)[:, None])
    assert bool(torch.isfinite(competed).all())
    others = [competed[i] > 0 for i in range(3)]
    assert sum(bool(o) for o in others) <= 1


def test_a_class_alone_keeps_its_logits_and_rivals_lower_each_other() -> None:
    logits = torch.linspace(-10, 10, 21)[None]
    torch.testing.assert_close(competed_logits(logits), logits, atol=1e-2, rtol=1e-3)
    rivals = competed_logits(torch.tensor([[4.0], [2.0]]))
    # log(p / (1 - p)) = l - log(1 + exp(rival))
    torch.testing.assert_close(rivals[0, 0], torch.tensor(4 - np.log1p(np.exp(2)), dtype=torch.float32))
    assert float(rivals[0, 0]) > 0 > float(rivals[1, 0])


def test_a_pixel_that_two_classes_claim_alike_is_not_background() -> None:
    contested = Propagated(np.array([5.0, 4.99], np.float32).reshape(2, 1, 1, 1))
    assert int(contested.probabilities().argmax(0).item()) == 1


# Gates and positions


def test_a_class_is_looked_for_where_its_history_or_a_neighbours_exceeds_the_gate() -> None:
    history = np.zeros((3, 6, 4, 4), np.float32)
    history[1, 2, 0, 0], history[2, 5, 1, 1], history[2, 0, 1, 1] = 0.21, 0.9, 0.2
    allowed = allowed_slices(history)
    assert allowed[0].tolist() == [False, True, True, True, False, False]
    assert allowed[1].tolist() == [False, False, False, False, True, True]


def test_positions_run_along_the_foreground() -> None:
    foreground = np.zeros((11, 3, 3), bool)
    foreground[4:7, 1, 1] = True
    assert axial_positions(foreground).tolist() == [-0.5, -0.5, -0.5, -0.5, 0.0, 0.5, 1.0, 1.5, 1.5, 1.5, 1.5]
    assert axial_positions(np.zeros((3, 2, 2), bool)).tolist() == [0.0, 0.5, 1.0]
    assert axial_positions(np.ones((1, 2, 2), bool)).tolist() == [0.0]


def test_the_classes_of_each_slice() -> None:
    labels = np.zeros((3, 4, 4), np.uint8)
    labels[1, 0, 0], labels[1, 1, 1], labels[2, 0, 0] = 2, 1, 2
    assert classes_per_slice(labels) == [frozenset(), frozenset({1, 2}), frozenset({2})]


@pytest.mark.parametrize("mode", ["G0", "G1+G2"])
def test_a_closed_gate_leaves_a_slice_empty_but_for_its_key_frame(mode: str) -> None:
    image, labels = ball_volume()
    allowed = np.zeros((1, 8), bool)
    allowed[0, 5] = True
    guidance = Guidance(1, mask_prompts(labels, [3]), allowed)
    memory = MemorySettings(mode=mode)  # type: ignore[arg-type]
    result = Propagator(FOUNDATION.model, CPU, memory).propagate(encoded(FOUNDATION, image), guidance)
    assert [bool((plane > LEAST_LOGIT).any()) for plane in result.logits[0]] == [z in (3, 5) for z in range(8)]


# Key frames and passes


def test_a_reviewed_slice_comes_back_as_it_was_drawn() -> None:
    image, labels = ball_volume()
    result = propagator().propagate(encoded(FOUNDATION, image), Guidance(1, mask_prompts(labels, [2, 4])))
    for z in (2, 4):
        assert np.array_equal(result.probabilities().argmax(0)[z], labels[z])


def test_the_order_of_prompts_does_not_matter() -> None:
    image, labels = ball_volume()
    prompts = [box_prompt(labels[z], z) for z in (2, 4, 5)]
    volume, entries = encoded(FOUNDATION, image), support()
    results = [propagator().propagate(volume, Guidance(1, {1: order}), entries).logits for order in (prompts, prompts[::-1])]
    np.testing.assert_array_equal(*results)


def test_walking_up_and_down_are_mirror_images() -> None:
    image, labels = ball_volume()
    for memory in (STOCK_BANK, GROUPED):
        up = Propagator(FOUNDATION.model, CPU, memory).propagate(encoded(FOUNDATION, image), Guidance(1, mask_prompts(labels, [2])))
        turned = Guidance(1, mask_prompts(labels[::-1], [5]))
        down = Propagator(FOUNDATION.model, CPU, memory).propagate(encoded(FOUNDATION, image[::-1].copy()), turned)
        np.testing.assert_allclose(up.logits[:, ::-1], down.logits, atol=2e-2)


class TwoOpinions:
    """In place of a pass: near the key frame it is there, the other, farther pass has lost it."""

    def __init__(self, *arguments: object) -> None:
        self.direction = arguments[-1]

    def slices(self) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
        near = self.direction == 1
        logits = torch.full((1, 4, 4), 3.0 if near else propagation.ABSENT_LOGIT)
        return [(0, logits, torch.tensor([-1 / 5 if near else -14 / 5]))]


def test_a_far_pass_that_lost_the_object_does_not_outvote_a_near_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(propagation, "_Pass", TwoOpinions)
    result = propagator().propagate(encoded(FOUNDATION, ball_volume(slices=1, rows=4, columns=4)[0]), Guidance(1, {}))
    assert float(result.logits[0, 0].min()) > 0
    assert float(result.logits[0, 0].max()) < 3


def test_a_stop_is_heard_before_the_next_slice() -> None:
    image, labels = ball_volume()
    asked: list[int] = []

    def stopped() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise Stopped

    walker = Propagator(FOUNDATION.model, CPU, GROUPED, stopped=stopped)
    with pytest.raises(Stopped):
        walker.propagate(encoded(FOUNDATION, image), Guidance(1, mask_prompts(labels, [3])))
    assert len(asked) == 3


# Classes, groups, anatomical prior


def test_permuting_class_ids_permutes_the_output() -> None:
    image, labels = ball_volume(classes=3)
    volume = encoded(FOUNDATION, image)
    names = np.array([0, 3, 1, 2])
    sets = classes_per_slice(labels)
    prompts = {1: mask_prompts(labels, [3])[1], 2: [box_prompt(labels[4] == 2, 4, 2)]}
    plain = Guidance(3, prompts, classes=sets)
    turned = Guidance(
        3,
        {int(names[c]): [dataclasses.replace(p, class_index=int(names[c])) for p in found] for c, found in prompts.items()},
        classes=[frozenset(int(names[c]) for c in found) for found in sets],
    )
    entries = [e for e in support(3) if e.class_index == 3]
    renamed = [
        dataclasses.replace(e, class_index=int(names[e.class_index]), classes=frozenset(int(names[c]) for c in e.classes)) for e in entries
    ]
    before, after = propagator().propagate(volume, plain, entries), propagator().propagate(volume, turned, renamed)
    np.testing.assert_allclose(before.probabilities(), after.probabilities()[names], atol=1e-4)


def test_classes_that_do_not_compete_are_the_same_together_and_alone() -> None:
    image, labels = ball_volume(classes=2)
    volume, memory = encoded(FOUNDATION, image), dataclasses.replace(GROUPED, compete=False)
    together = Propagator(FOUNDATION.model, CPU, memory).propagate(volume, Guidance(2, mask_prompts(labels, [3], (1, 2))))
    for c in (1, 2):
        alone = Propagator(FOUNDATION.model, CPU, memory).propagate(volume, Guidance(2, mask_prompts(labels, [3], (c,))))
        np.testing.assert_array_equal(together.logits[c - 1], alone.logits[c - 1])


def test_a_rival_changes_what_a_competing_class_remembers() -> None:
    image, labels = ball_volume(classes=2)
    volume = encoded(FOUNDATION, image)
    alone = propagator().propagate(volume, Guidance(2, mask_prompts(labels, [3], (1,))))
    rivals = propagator().propagate(volume, Guidance(2, mask_prompts(labels, [3], (1, 2))))
    assert not np.allclose(alone.logits[0, 5:], rivals.logits[0, 5:])


def test_support_changes_what_a_prompted_slice_says() -> None:
    image, labels = ball_volume()
    volume, guidance = encoded(FOUNDATION, image), Guidance(1, {1: [box_prompt(labels[3], 3)]})
    without, with_support = propagator().propagate(volume, guidance), propagator().propagate(volume, guidance, support())
    assert not np.allclose(without.logits[0, 3], with_support.logits[0, 3])


def test_a_volume_without_any_key_frame_gets_a_mask_through_support_entries() -> None:
    image, labels = ball_volume(classes=2)
    guidance = Guidance(2, {}, classes=classes_per_slice(labels))
    result = propagator().propagate(encoded(FOUNDATION, image), guidance, [e for e in support(2) if e.class_index == 1])
    assert result.abstained == {2}
    assert bool((result.logits[0] > LEAST_LOGIT).any())
    assert bool((result.logits[1] == LEAST_LOGIT).all())
    assert float(result.probabilities()[2].max()) < 1e-3


def test_a_class_that_is_allowed_nowhere_abstains() -> None:
    image, labels = ball_volume(classes=2)
    allowed = np.ones((2, len(labels)), bool)
    allowed[1] = False
    guidance = Guidance(2, mask_prompts(labels, [3], (1,)), allowed, classes=classes_per_slice(labels))
    result = propagator().propagate(encoded(FOUNDATION, image), guidance, support(2))
    assert result.abstained == {2}, "it was never looked for, so that it was not found says nothing"


@pytest.mark.parametrize(
    "memory", [MemorySettings(mode="G0"), MemorySettings(mode="G1", support=0)], ids=["stock bank", "no place for support"]
)
def test_where_support_is_not_used_a_class_without_prompts_abstains(memory: MemorySettings) -> None:
    image, _ = ball_volume()
    result = propagator(memory).propagate(encoded(FOUNDATION, image), Guidance(1, {}), support())
    assert result.abstained == {1}
    assert bool((result.logits == LEAST_LOGIT).all())


def test_without_any_memory_to_attend_to_only_the_key_frame_has_a_mask() -> None:
    image, labels = ball_volume()
    memory = MemorySettings(mode="G1", support=0, key=0)
    result = propagator(memory).propagate(encoded(FOUNDATION, image), Guidance(1, mask_prompts(labels, [3])))
    assert [bool((plane > 0).any()) for plane in result.logits[0]] == [z == 3 for z in range(8)]


def shipped_support(seed: int) -> tuple[Propagator, VolumeFeatures, np.ndarray]:
    if not preset_path("compact").is_file():
        pytest.skip("The shipped weights are not there.")
    foundation = load_foundation("compact", CPU)
    volume, label_map = phantom_case(seed, size=(12, 64, 64))
    labels = label_map.array
    return Propagator(foundation.model, CPU, GROUPED), encoded(foundation, volume.array, Window.around(labels > 0)), labels


def test_the_shipped_weights_find_organs_through_support_alone() -> None:
    scores = []
    for one in (1, 3, 5):  # pairs of cases, since a single organ of a single pair may be missed
        walker, labelled, truth = shipped_support(one)
        _, query, labels = shipped_support(one + 1)
        entries = walker.support_entries("labelled", labelled, truth, 2)
        guidance = Guidance(2, {}, positions=axial_positions(labels > 0), classes=classes_per_slice(labels))
        found = walker.propagate(query, guidance, entries).probabilities().argmax(0)
        scores.append(class_dice(found, labels, 2))
    assert np.mean(scores) > 0.4
    assert (np.mean(scores, axis=0) > 0.2).all(), "every organ is found"


def test_support_entries_show_a_class_evenly_and_where_it_ends() -> None:
    image, labels = ball_volume(slices=20)
    entries = propagator().support_entries("case_3", encoded(FOUNDATION, image), labels, 2, most=4)
    shown = np.flatnonzero(labels.any((1, 2)))
    assert {e.class_index for e in entries} == {1}  # class 2 is not there
    assert [e.slice_index for e in entries if not e.present] == [shown[0] - 1, shown[-1] + 1]
    present = [e.slice_index for e in entries if e.present]
    assert len(present) == 4 and {present[0], present[-1]} == {int(shown[0]), int(shown[-1])}
    assert {(e.source, e.case) for e in entries} == {("support", "case_3")}
    assert all(e.classes == (frozenset({1}) if e.present else frozenset()) for e in entries)


def test_an_empty_label_map_gives_no_support() -> None:
    image, labels = ball_volume()
    assert propagator().support_entries("empty", encoded(FOUNDATION, image), np.zeros_like(labels), 1) == []


# Shapes of data


@pytest.mark.parametrize("memory", [STOCK_BANK, GROUPED], ids=["G0", "G1+G2"])
@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((1, SIDE, SIDE), None),
        ((5, 40, 70), None),
        ((5, 70, 40), Window(-8, -20, 80, 80)),
        ((4, 90, 90), Window(20, 30, 40, 40)),
    ],
    ids=["one slice", "wide", "window beyond the slice", "window inside"],
)
def test_any_shape_comes_back_in_its_own(memory: MemorySettings, shape: tuple[int, int, int], window: Window | None) -> None:
    image, labels = ball_volume(*shape)
    key = shape[0] // 2
    volume = encoded(FOUNDATION, image, window)
    prompts: Mapping[int, Sequence[Prompt]] = {1: [box_prompt(labels[key], key)]}
    result = Propagator(FOUNDATION.model, CPU, memory).propagate(volume, Guidance(1, prompts))
    assert result.logits.shape == (1, *shape)
    probabilities = result.probabilities()
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    if window == Window(20, 30, 40, 40):
        outside = np.ones(shape[1:], bool)
        outside[20:60, 30:70] = False
        assert float(probabilities[1][:, outside].max()) < 1e-3


def test_a_colour_picture_is_one_slice() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (1, 50, 60, 3), dtype=np.uint8)
    mask = np.zeros((50, 60), bool)
    mask[10:30, 20:40] = True
    result = propagator().propagate(encoded(FOUNDATION, picture), Guidance(1, {1: [box_prompt(mask, 0)]}))
    assert result.logits.shape == (1, 1, 50, 60)


def test_a_reviewed_empty_slice_is_a_prompt_too() -> None:
    image, labels = ball_volume()
    empty = reviewed_prompt(np.zeros_like(labels[0], bool), 6, 1)
    result = propagator().propagate(encoded(FOUNDATION, image), Guidance(1, {1: [*mask_prompts(labels, [3])[1], empty]}))
    assert not bool((result.logits[0, 6] > 0).any())


@pytest.mark.parametrize("key", [0, 7])
def test_a_key_frame_at_the_end_reaches_all_slices(key: int) -> None:
    image, labels = ball_volume()
    prompts = {1: [reviewed_prompt(labels[4] > 0, key, 1)]}
    result = propagator().propagate(encoded(FOUNDATION, image), Guidance(1, prompts))
    assert all(bool((plane != LEAST_LOGIT).any()) for plane in result.logits[0])


def test_far_from_a_key_frame_its_pass_still_has_all_the_say() -> None:
    image, labels = ball_volume()
    volume, prompts = encoded(FOUNDATION, image), mask_prompts(labels, [0])
    near, far = (propagator(decay=decay).propagate(volume, Guidance(1, prompts)).logits for decay in (5.0, 0.01))
    np.testing.assert_array_equal(near, far)


def test_the_networks_logits_on_every_slice_are_heard() -> None:
    image, labels = ball_volume()
    volume, prompts = encoded(FOUNDATION, image), mask_prompts(labels, [3])
    plain = propagator().propagate(volume, Guidance(1, prompts))
    inside = np.where(labels > 0, 0.999, 0.001).astype(np.float32)
    told = propagator().propagate(volume, Guidance(1, prompts, dense=np.stack([1 - inside, inside])))
    assert not np.allclose(plain.logits[0, 5], told.logits[0, 5])
    np.testing.assert_array_equal(plain.logits[0, 3], told.logits[0, 3])


def unsure_model() -> SAM2Base:
    """A model whose object score always says "not here"."""
    model = tiny_model()
    with torch.no_grad():
        object_score_bias(model).fill_(-100.0)
    return model


@pytest.mark.parametrize(("memory", "shown"), [(GROUPED, {2, 3, 4, 5}), (STOCK_BANK, {2, 5})])
def test_between_key_frames_an_object_is_there(memory: MemorySettings, shown: set[int]) -> None:
    image, labels = ball_volume()
    walk = Propagator(unsure_model(), CPU, memory)
    result = walk.propagate(encoded(FOUNDATION, image), Guidance(1, mask_prompts(labels, [2, 5])))
    assert {z for z in range(8) if (result.logits[0, z] > LEAST_LOGIT + 0.1).any()} == shown


def test_an_empty_key_frame_vouches_for_nothing() -> None:
    image, labels = ball_volume()
    prompts = {1: [*mask_prompts(labels, [2])[1], reviewed_prompt(np.zeros_like(labels[5], dtype=bool), 5, 1)]}
    result = Propagator(unsure_model(), CPU, GROUPED).propagate(encoded(FOUNDATION, image), Guidance(1, prompts))
    assert not any((result.logits[0, z] > LEAST_LOGIT + 0.1).any() for z in (3, 4))
