from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_sam2
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_sam2 import full_disk

from SAM2IterativeLib.errors import ResourceError, WeightsError
from SAM2IterativeLib.foundation.checkpoints import load_foundation, save_compact
from SAM2IterativeLib.pretraining import training
from SAM2IterativeLib.pretraining.session import run_session, write_weights
from SAM2IterativeLib.pretraining.tasks import Exercise, sample_exercise
from SAM2IterativeLib.pretraining.training import REFUSED_IN_A_ROW, Pretraining, PretrainingPlan, Progress, learning_rate

SIDE = 64
SIZES = replace(tiny_sam2.TINY, image_size=SIDE)
PLAN = PretrainingPlan(minutes=1e6, steps=6)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Small exercises; the places in the curriculum that were asked for."""
    places: list[float] = []

    def small(generator: torch.Generator, progress: float) -> Exercise:
        places.append(progress)
        exercise = sample_exercise(generator, progress)
        return replace(exercise, volumes=1, length=min(exercise.length, 3), last_prompt=False)

    monkeypatch.setattr(training, "sample_exercise", small)
    return places


def begun(folder: Path, plan: PretrainingPlan = PLAN, name: str = "checkpoint.safetensors", start: Path | None = None) -> Pretraining:
    return Pretraining(plan, folder / name, tiny_sam2.CPU, SIZES, start)


def run(run_of: Pretraining, steps: int = 1000) -> list[float]:
    """Losses of at most ``steps`` steps."""
    losses: list[float] = []
    run_of.run(lambda progress, loss: losses.append(loss), lambda: len(losses) >= steps)
    return losses


def same_state(a: Pretraining, b: Pretraining) -> bool:
    models = (a.model.state_dict(), b.model.state_dict())
    pairs = [(models[0][name], models[1][name]) for name in models[0]]
    pairs += [(a.average[name], b.average[name]) for name in a.average]
    states = (a.optimiser.state_dict()["state"], b.optimiser.state_dict()["state"])
    assert states[0].keys() == states[1].keys() and states[0]
    pairs += [(states[0][i][name], states[1][i][name]) for i in states[0] for name in states[0][i]]
    return all(torch.equal(x, y) for x, y in pairs)


def test_an_interrupted_training_continues_as_if_it_had_not_been(tmp_path: Path, asked: list[float]) -> None:
    whole = begun(tmp_path, name="whole.safetensors")
    expected = run(whole)
    uninterrupted = list(asked)
    asked.clear()
    losses: list[float] = []
    for steps in (2, 1, 1000):
        continued = begun(tmp_path)
        assert continued.progress.step == len(losses)
        losses += run(continued, steps)
    assert losses == expected and len(losses) == 6
    assert same_state(whole, continued)
    # A step's place in the curriculum is its own, whether prepared ahead or after an interruption.
    assert sorted(set(asked)) == sorted(set(uninterrupted))


def test_another_seed_trains_otherwise(tmp_path: Path, asked: list[float]) -> None:
    first = run(begun(tmp_path, replace(PLAN, steps=2), "first.safetensors"))
    second = run(begun(tmp_path, replace(PLAN, steps=2, seed=1), "second.safetensors"))
    assert first != second


def test_a_batch_shows_that_many_times_the_volumes(tmp_path: Path, asked: list[float]) -> None:
    trained = begun(tmp_path, replace(PLAN, batch=3))
    exercise, clip, _ = trained._prepared(0, 0.0)
    assert exercise.volumes == len(clip.images) == 3
    trained.step()
    assert trained.progress.step == 1


def test_training_changes_the_weights_and_the_average_lags_behind(tmp_path: Path, asked: list[float]) -> None:
    trained = begun(tmp_path)
    before = trained.model.state_dict()["maskmem_tpos_enc"].clone()
    run(trained)
    after = trained.model.state_dict()["maskmem_tpos_enc"]
    assert not torch.equal(before, after)
    model = trained.averaged_model()
    assert not model.training
    distance = [(trained.average["maskmem_tpos_enc"] - end).abs().sum() for end in (before, after)]
    assert float(distance[0]) > 0 < float(distance[1])
    assert torch.equal(model.state_dict()["maskmem_tpos_enc"], trained.average["maskmem_tpos_enc"])


def test_a_plan_ends_with_its_steps_or_its_time(tmp_path: Path) -> None:
    trained = begun(tmp_path, PretrainingPlan(minutes=10, steps=4))
    trained.progress = Progress(step=1, seconds=60)
    assert trained.share == 0.25 and not trained.finished
    trained.progress = Progress(step=1, seconds=590)
    assert trained.share == pytest.approx(590 / 600)
    trained.progress = Progress(step=4, seconds=60)
    assert trained.finished
    trained.progress = Progress(step=0, seconds=601)
    assert trained.finished and run(trained) == []


def test_the_learning_rate_rises_stays_and_falls() -> None:
    plan = PretrainingPlan(learning_rate=1.0)
    assert 0 < learning_rate(plan, 0.0) < 0.05
    assert learning_rate(plan, 0.02) == learning_rate(plan, 0.5) == 1.0
    assert 0.4 < learning_rate(plan, 0.8) < 0.6
    assert 0 < learning_rate(plan, 1.0) < 0.05


def test_a_training_that_starts_later_in_the_curriculum_still_ends_it() -> None:
    plan = PretrainingPlan(curriculum_from=0.5)
    assert (plan.curriculum(0), plan.curriculum(0.5), plan.curriculum(1)) == (0.5, 0.75, 1.0)


def test_the_object_score_is_left_alone_at_first(tmp_path: Path, asked: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    flags: list[bool] = []
    real = training.exercise_loss

    def noting(*arguments: object, train_score: bool) -> torch.Tensor:
        flags.append(train_score)
        return real(*arguments, train_score=train_score)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "exercise_loss", noting)
    run(begun(tmp_path, replace(PLAN, score_from=0.5)))
    assert flags == [False, False, False, True, True, True]


# Checkpoints


def damaged(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    begun(tmp_path).save()
    for keep in (0, 100, 20_000):
        damaged(tmp_path / "checkpoint.safetensors", keep)
        with pytest.raises(WeightsError, match=r"checkpoint\.safetensors"):
            begun(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux alone tells what is mapped.")
def test_a_continued_training_lets_go_of_its_checkpoint(tmp_path: Path, asked: list[float]) -> None:
    """Windows replaces no file that is mapped into memory."""
    run(begun(tmp_path), 1)
    continued = begun(tmp_path)
    assert continued.progress.step == 1 and "checkpoint.safetensors" not in Path("/proc/self/maps").read_text()


def test_another_architectures_checkpoint_and_a_foreign_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    Pretraining(PLAN, path, tiny_sam2.CPU, replace(SIZES, feedforward=32)).save()
    with pytest.raises(WeightsError, match="another architecture"):
        begun(tmp_path)
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(WeightsError, match="another architecture"):
        begun(tmp_path)


def test_the_old_checkpoint_stays_when_a_new_one_cannot_be_written(tmp_path: Path, asked: list[float]) -> None:
    trained = begun(tmp_path)
    run(trained, 1)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

    with full_disk(20_000), pytest.raises(ResourceError, match="disk is full"):
        run(trained, 1)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert begun(tmp_path).progress.step == 1


def test_finished_weights_can_be_the_start(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_compact(tiny_sam2.tiny_model(5, architecture=SIZES), SIZES, weights, {})
    expected = load_foundation(str(weights), tiny_sam2.CPU).model.state_dict()
    trained = begun(tmp_path, start=weights)
    assert all(torch.equal(value, expected[name]) for name, value in trained.model.state_dict().items())
    assert all(torch.equal(value, expected[name]) for name, value in trained.average.items())
    assert all(p.requires_grad for p in trained.model.parameters())
    begun(tmp_path, name="other.safetensors").save()
    assert not torch.equal(begun(tmp_path, name="other.safetensors", start=weights).model.no_mem_embed, expected["no_mem_embed"])


def test_a_start_may_be_of_another_image_size(tmp_path: Path) -> None:
    weights = tmp_path / "smaller.safetensors"
    smaller = replace(SIZES, image_size=SIZES.image_size // 2)
    save_compact(tiny_sam2.tiny_model(5, architecture=smaller), smaller, weights, {})
    trained = begun(tmp_path, start=weights)
    assert trained.architecture == SIZES
    trained.step()
    assert trained.progress.step == 1


def test_a_start_of_another_architecture_is_refused(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    narrower = replace(SIZES, feedforward=32)
    save_compact(tiny_sam2.tiny_model(architecture=narrower), narrower, weights, {})
    with pytest.raises(WeightsError, match="another architecture"):
        begun(tmp_path, start=weights)


# Gradients that are not finite


def broken(when: Callable[[int], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = training.exercise_loss, [0]

    def loss(*arguments: object, train_score: bool) -> torch.Tensor:
        calls[0] += 1
        value = real(*arguments, train_score=train_score)  # type: ignore[arg-type]
        return value * float("nan") if when(calls[0]) else value

    monkeypatch.setattr(training, "exercise_loss", loss)


def test_a_step_without_a_finite_gradient_changes_nothing(tmp_path: Path, asked: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    trained = begun(tmp_path)
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    broken(lambda call: call == 1, monkeypatch)
    run(trained, 1)
    assert all(torch.equal(value, before[name]) for name, value in trained.model.state_dict().items())
    run(trained, 1)
    after = trained.model.state_dict()
    assert not torch.equal(after["maskmem_tpos_enc"], before["maskmem_tpos_enc"])
    assert all(bool(torch.isfinite(value).all()) for value in after.values())


def test_a_lost_training_gives_up_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = begun(tmp_path, replace(PLAN, steps=1000))
    exercise, clip = Exercise(1, 1, 1, "box"), torch.zeros(1)
    monkeypatch.setattr(Pretraining, "_prepared", lambda self, step, share: (exercise, clip, torch.Generator()))

    def lost(model: torch.nn.Module, *arguments: object, train_score: bool) -> torch.Tensor:
        return sum(p.sum() for p in model.parameters()) * float("nan")  # type: ignore[return-value]

    monkeypatch.setattr(training, "exercise_loss", lost)
    with pytest.raises(ResourceError, match=f"{REFUSED_IN_A_ROW} times in a row"):
        run(trained)


# A sitting


def test_a_session_continues_and_writes_weights_with_what_made_them(
    tmp_path: Path, asked: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("SAM2IterativeLib.pretraining.session.Pretraining", lambda *a, **k: Pretraining(*a, SIZES, **k))
    monkeypatch.setattr("SAM2IterativeLib.pretraining.session.write_weights", lambda made, output: write_weights(made, output, volumes=1))
    checkpoint, output, told = tmp_path / "checkpoint.safetensors", tmp_path / "weights.safetensors", []
    run_session(replace(PLAN, steps=2), checkpoint, tiny_sam2.CPU, None, told.append, lambda: False)
    run_session(replace(PLAN, steps=2), checkpoint, tiny_sam2.CPU, output, told.append, lambda: False)
    assert told[0].startswith("Beginning at step 0") and told[1].startswith("Continuing at step 2")
    assert told[2].startswith("Written: weights.safetensors")
    assert load_foundation(str(output), tiny_sam2.CPU).side == SIDE
    with safe_open(output, framework="pt") as file:
        notes = json.loads(file.metadata()["notes"])
    assert notes["steps"] == 2 and notes["plan"]["steps"] == 2 and "generated volumes only" in notes["made_by"]
