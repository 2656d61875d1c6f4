from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_sam2 import CPU, SIDE, TINY, ball_volume, tiny_foundation, tiny_model

from SAM2IterativeLib.errors import DataError, Stopped, WeightsError
from SAM2IterativeLib.foundation.checkpoints import Foundation, load_foundation, save_compact
from SAM2IterativeLib.guidance.prompts import LOGIT_LIMIT
from SAM2IterativeLib.learning import learning_of
from SAM2IterativeLib.metrics import dice
from SAM2IterativeLib.phantom import phantom_case
from SAM2IterativeLib.presets import ADAPTED, weights_in_use
from SAM2IterativeLib.pretraining import adaptation
from SAM2IterativeLib.pretraining.adaptation import (
    AdaptationPlan,
    AdaptationResult,
    HeldOut,
    adapt,
    adapt_before_rounds,
    adapt_project,
    held_out_dice,
    labelled_volumes,
    mediocre_logits,
    real_clip,
    sample_real_exercise,
)
from SAM2IterativeLib.pretraining.evaluation import LabelledVolume
from SAM2IterativeLib.pretraining.tasks import Exercise
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.settings import FoundationSettings, Label, Settings, replaced
from SAM2IterativeLib.volumes import LabelMap

FOUNDATION = tiny_foundation()
VOLUMES = [LabelledVolume(f"case_{seed}", *ball_volume(classes=2, seed=seed)) for seed in range(3)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scores(monkeypatch: pytest.MonkeyPatch, *values: float) -> list[Foundation]:
    """What the held-out case is said to score, look by look; the last one repeats. Returns the models that were judged."""
    judged: list[Foundation] = []

    def scored(foundation: Foundation, *rest: object) -> float:
        judged.append(foundation)
        return values[min(len(judged), len(values)) - 1]

    monkeypatch.setattr(adaptation, "held_out_dice", scored)
    return judged


def changed(model: torch.nn.Module) -> set[str]:
    """The parts of the model whose weights are no longer the foundation's."""
    before = FOUNDATION.model.state_dict()
    return {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


# Clips of real cases


def test_a_clip_of_real_cases_has_the_shapes_of_a_generated_one() -> None:
    exercise = Exercise(volumes=4, objects=1, length=5, prompt="box", support=2)
    clip = real_clip(FOUNDATION, VOLUMES, exercise, seeded(), CPU)
    assert clip.images.shape == (4, 5, 3, SIDE, SIDE) and clip.masks.shape == (4, 5, SIDE, SIDE)
    assert clip.support_images.shape == (4, 2, 3, SIDE, SIDE) and clip.support_masks.shape == (4, 2, SIDE, SIDE)
    assert clip.masks.dtype == clip.support_masks.dtype == torch.bool
    assert clip.owner.tolist() == [0, 1, 2, 3]
    assert bool(clip.masks[:, 0].flatten(1).any(1).all()) and bool(clip.support_masks.flatten(2).any(2).all())


def test_masks_lie_on_what_they_name() -> None:
    clip = real_clip(FOUNDATION, VOLUMES, Exercise(6, 1, 3, "box"), seeded(3), CPU)
    for image, mask in zip(clip.images[:, :, 0], clip.masks, strict=True):
        assert float(image[mask].mean()) > float(image[~mask].mean())


def test_the_same_seed_cuts_the_same_clip() -> None:
    exercise = Exercise(2, 1, 3, "none", support=1)
    first, second, other = (real_clip(FOUNDATION, VOLUMES, exercise, seeded(seed), CPU) for seed in (1, 1, 2))
    assert torch.equal(first.images, second.images) and not torch.equal(first.images, other.images)


def test_support_comes_from_another_case_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    real = adaptation._shown

    def noting(foundation: Foundation, volume: LabelledVolume, *rest: object) -> tuple[torch.Tensor, torch.Tensor]:
        shown.append(volume.name)
        return real(foundation, volume, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(adaptation, "_shown", noting)
    exercise = Exercise(8, 1, 2, "none", support=2)
    real_clip(FOUNDATION, VOLUMES, exercise, seeded(), CPU)
    assert all(own != other for own, other in zip(shown[::2], shown[1::2], strict=True))
    shown.clear()
    real_clip(FOUNDATION, VOLUMES[:1], exercise, seeded(), CPU)
    assert set(shown) == {"case_0"}


def test_a_lone_case_does_not_support_the_slices_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[set[int]] = []
    real = adaptation._shown

    def noting(foundation: Foundation, volume: LabelledVolume, c: int, slices: np.ndarray, random: np.random.Generator) -> object:
        rows.append(set(slices.tolist()))
        return real(foundation, volume, c, slices, random)

    monkeypatch.setattr(adaptation, "_shown", noting)
    real_clip(FOUNDATION, VOLUMES[:1], Exercise(8, 1, 2, "none", support=2), seeded(), CPU)
    assert not any(clip & support for clip, support in zip(rows[::2], rows[1::2], strict=True))


def test_few_steps_are_judged_at_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    scores(monkeypatch, 0.5, 0.6)
    for steps in (2, 4):  # a fifth of 4 + 1 is a rise without length
        assert adapt(FOUNDATION, VOLUMES[:2], VOLUMES[2], AdaptationPlan(steps=steps, check_every=25), CPU)[1] == 0.6


def test_the_object_score_is_set_on_the_held_out_case(monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated: list[list[str]] = []

    def lower(foundation: Foundation, device: object, volumes: list[LabelledVolume]) -> float:
        calibrated.append([volume.name for volume in volumes])
        return 0.0

    monkeypatch.setattr(adaptation, "calibrate_object_score", lower)
    for values in ((0.5, 0.6), (0.5, 0.4)):
        scores(monkeypatch, *values)
        adapt(FOUNDATION, VOLUMES[:2], VOLUMES[2], AdaptationPlan(steps=1, check_every=1), CPU)
    assert calibrated == [["case_2"]], "only where adapting helped"


def test_every_exercise_has_something_to_learn() -> None:
    for seed in range(300):
        exercise = sample_real_exercise(seeded(seed))
        assert exercise.objects == 1 and exercise.length - (exercise.prompt == "mask") >= 1
        assert exercise.prompt != "none" or exercise.support > 0


# Adapting


def test_nothing_is_kept_that_does_not_help(monkeypatch: pytest.MonkeyPatch) -> None:
    scores(monkeypatch, 0.7, 0.7, 0.65)
    before, after, model = adapt(FOUNDATION, VOLUMES[:2], VOLUMES[2], AdaptationPlan(steps=2, check_every=1), CPU)
    assert (before, after) == (0.7, 0.7)
    assert changed(model) == set()


def test_what_helped_most_is_kept_not_what_came_last(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = scores(monkeypatch, 0.5, 0.6, 0.8, 0.7, 0.75)  # the last: after the object score was set
    states: list[torch.Tensor] = []
    plan = AdaptationPlan(steps=3, check_every=1, learning_rate=1e-3)
    before, after, model = adapt(
        FOUNDATION, VOLUMES[:2], VOLUMES[2], plan, CPU, lambda done, text: states.append(judged[-1].model.maskmem_tpos_enc.clone())
    )
    assert (before, after) == (0.5, 0.75)
    assert torch.equal(model.maskmem_tpos_enc, states[1]) and not torch.equal(states[1], states[2])
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_the_encoder_is_left_alone_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoder in (False, True):
        scores(monkeypatch, 0.5, 0.6)
        plan = AdaptationPlan(steps=3, check_every=3, learning_rate=1e-3, encoder=encoder)
        found = changed(adapt(FOUNDATION, VOLUMES[:2], VOLUMES[2], plan, CPU)[2])
        assert ("image_encoder" in found) == encoder
        assert {"sam_mask_decoder", "memory_attention"} <= found
        assert "sam_prompt_encoder" not in found


def test_the_foundation_itself_is_never_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: value.clone() for name, value in FOUNDATION.model.state_dict().items()}
    scores(monkeypatch, 0.5, 0.9)
    adapt(FOUNDATION, VOLUMES[:2], VOLUMES[2], AdaptationPlan(steps=1, check_every=1), CPU)
    assert all(torch.equal(value, before[name]) for name, value in FOUNDATION.model.state_dict().items())
    assert not FOUNDATION.model.training and not any(p.requires_grad for p in FOUNDATION.model.parameters())


def test_it_stops_early_when_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = scores(monkeypatch, 0.5, 0.6, 0.6)
    told: list[str] = []
    adapt(
        FOUNDATION, VOLUMES[:2], VOLUMES[2], AdaptationPlan(steps=50, check_every=1, patience=2), CPU, lambda done, text: told.append(text)
    )
    assert len(judged) == 5 and len(told) == 3
    assert "0.600" in told[0] and "0.500" in told[0]


def test_the_same_seed_adapts_the_same() -> None:
    plan = AdaptationPlan(steps=2, check_every=2, learning_rate=1e-2)
    first, second = (adapt(FOUNDATION, VOLUMES[:2], VOLUMES[2], plan, CPU) for _ in range(2))
    assert first[:2] == second[:2]
    assert all(torch.equal(a, b) for a, b in zip(first[2].state_dict().values(), second[2].state_dict().values(), strict=True))


def test_a_mediocre_network_is_roughly_right_and_the_same_each_time() -> None:
    labels = ball_volume(slices=16, rows=64, columns=96, classes=2)[1]
    guess = mediocre_logits(labels, 2)
    assert guess.shape == (2, *labels.shape) and guess.dtype == np.float32
    assert float(np.abs(guess).max()) <= LOGIT_LIMIT
    for c in (1, 2):
        assert 0.6 < (dice(guess[c - 1] > 0, labels == c) or 0.0) < 0.99
    np.testing.assert_array_equal(guess, mediocre_logits(labels, 2))
    assert not (mediocre_logits(np.zeros_like(labels), 2) > 0).any()


def test_the_held_out_score_is_a_mean_over_classes() -> None:
    assert 0 <= held_out_dice(FOUNDATION, HeldOut.of(VOLUMES[0]), CPU) <= 1


def test_what_sam2_is_told_of_the_held_out_case_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = adaptation.mediocre_logits
    monkeypatch.setattr(adaptation, "mediocre_logits", lambda labels, count: made.append(count) or real(labels, count))
    told: list[str] = []
    adapt(FOUNDATION, VOLUMES[:2], VOLUMES[2], AdaptationPlan(steps=2, check_every=1), CPU, lambda done, text: told.append(text))
    assert len(told) == 2 and made == [2]


# Projects


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_compact(tiny_model(), TINY, path, {})
    return path


def project_of(folder: Path, weights: str | Path, labelled: int) -> Project:
    settings = Settings(name="p", labels=(Label(4, "organ"), Label(2, "gland")), foundation=FoundationSettings(weights=str(weights)))
    project = Project.create(folder, settings)
    for number in range(labelled + 1):
        image, label = phantom_case(number, size=(6, 32, 32))
        values = np.array([0, 4, 2], np.uint8)
        label = type(label)(values[label.array], label.geometry)
        project.add_case(f"case_{number}", image, label if number < labelled else None)
    return project


@pytest.fixture
def three_labelled(tmp_path: Path, weights: Path) -> Iterator[Project]:
    with project_of(tmp_path / "project", weights, 3) as project:
        yield project


PLAN = AdaptationPlan(steps=1, check_every=1)


def test_labelled_cases_come_with_class_indices(three_labelled: Project) -> None:
    volumes = labelled_volumes(three_labelled)
    assert [v.name for v in volumes] == ["case_0", "case_1", "case_2"]
    assert all(v.classes == (1, 2) and v.image.shape == v.labels.shape == (6, 32, 32) for v in volumes)


def test_one_labelled_case_is_not_enough(tmp_path: Path, weights: Path) -> None:
    with project_of(tmp_path / "project", weights, 1) as project, pytest.raises(DataError, match="two labelled cases"):
        adapt_project(project, PLAN, CPU)


def test_what_helps_is_used_by_the_project_from_then_on(three_labelled: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    scores(monkeypatch, 0.5, 0.75)
    result = adapt_project(three_labelled, PLAN, CPU)
    assert result == AdaptationResult(0.5, 0.75, True, "case_2")
    assert "0.500 before, 0.750 after" in result.sentence and "from now on" in result.sentence
    assert "judged on case_2, from which it did not learn but by which its best state was chosen" in result.sentence
    assert three_labelled.settings.foundation.weights == ADAPTED
    path = weights_in_use(ADAPTED, three_labelled.models_folder)
    assert "memory_attention" in changed(load_foundation(path, CPU).model)
    # A second adaptation begins where the first one ended.
    scores(monkeypatch, 0.75, 0.6)
    digest = load_foundation(path, CPU).digest
    assert not adapt_project(three_labelled, PLAN, CPU).used
    assert load_foundation(path, CPU).digest == digest


def test_what_does_not_help_changes_nothing(three_labelled: Project, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores(monkeypatch, 0.5, 0.5)
    result = adapt_project(three_labelled, PLAN, CPU)
    assert not result.used and "stay as they were" in result.sentence
    assert three_labelled.settings.foundation.weights == str(weights)
    assert not Path(weights_in_use(ADAPTED, three_labelled.models_folder)).exists()


def test_a_stop_changes_nothing(three_labelled: Project, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores(monkeypatch, 0.5, 0.9)
    with pytest.raises(Stopped):
        adapt_project(three_labelled, PLAN, CPU, stop_asked=lambda: True)
    assert three_labelled.settings.foundation.weights == str(weights)
    assert not Path(weights_in_use(ADAPTED, three_labelled.models_folder)).exists()


def test_a_run_adapts_once_where_that_applies(three_labelled: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    scores(monkeypatch, 0.5, 0.75)
    told: list[tuple[float, str]] = []
    three_labelled.change_settings(replaced(three_labelled.settings, "foundation.adaptation_steps", 25))
    result = adapt_before_rounds(three_labelled, CPU, lambda done, text: told.append((done, text)), lambda: False)
    assert result is not None and result.used
    [(done, text)] = told
    assert 0.9 < done < 1 and text.startswith("SAM2, step 25 of 25: Dice 0.750"), "the last look is still to come"
    assert result.sentence.startswith("Adapting SAM2")
    adapted = learning_of(three_labelled)
    assert adapted.adaptations_recorded and adapted.teachers_of(three_labelled.cases()[0].id) == "the adaptation of SAM2"
    assert three_labelled.settings.foundation.weights == ADAPTED
    assert adapt_before_rounds(three_labelled, CPU, lambda done, text: None, lambda: False) is None


@pytest.mark.parametrize(("labelled", "steps"), [(1, 25), (3, 0)])
def test_a_run_does_not_adapt_where_it_cannot_or_may_not(tmp_path: Path, weights: Path, labelled: int, steps: int) -> None:
    with project_of(tmp_path / "project", weights, labelled) as project:
        project.change_settings(replaced(project.settings, "foundation.adaptation_steps", steps))
        assert adapt_before_rounds(project, CPU, lambda done, text: None, lambda: False) is None


def test_accepted_cases_are_learned_from_too(three_labelled: Project) -> None:
    case = three_labelled.cases("unlabelled")[0]
    first = three_labelled.cases("labelled")[0]
    answer = LabelMap(three_labelled.read_case_label(first).array, three_labelled.read_case_image(case).geometry)
    Review(three_labelled).correct(case, answer, reviewer="A")
    assert [v.name for v in labelled_volumes(three_labelled)] == ["case_3", "case_0", "case_1", "case_2"]


def test_official_weights_are_not_adapted(tmp_path: Path) -> None:
    official = tmp_path / "official.pt"
    torch.save({"model": {"image_encoder.trunk.patch_embed.proj.weight": torch.zeros(96, 3, 7, 7)}}, official)
    with project_of(tmp_path / "project", official, 2) as project, pytest.raises(WeightsError, match="only compact weights"):
        adapt_project(project, PLAN, CPU)
