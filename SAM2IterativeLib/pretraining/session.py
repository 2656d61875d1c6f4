"""One sitting of pretraining, as the command line runs it: continue, tell, and write the finished weights with what made them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .. import __version__
from ..device import Device
from ..foundation.checkpoints import Foundation, load_foundation, save_compact
from .calibration import calibrate_object_score
from .evaluation import CALIBRATION_SEED, copied_dice, generated_volumes, propagation_dice
from .training import Pretraining, PretrainingPlan, Progress

_TELL_EVERY = 50


def run_session(
    plan: PretrainingPlan,
    checkpoint: Path,
    device: Device,
    output: Path | None,
    say: Callable[[str], None],
    stop_asked: Callable[[], bool],
    start: Path | None = None,
) -> None:
    """Train until done or stopped; where ``output`` is given, write the averaged weights so far and their scores.

    Args:
        say: receives a line of text now and then.
        start: see ``Pretraining``.
    """
    training = Pretraining(plan, checkpoint, device, start=start)
    say(f"{'Continuing' if training.progress.step else 'Beginning'} at step {training.progress.step}. {device.sentence}")
    if plan.recorded and not training.finished:
        say(f"First {plan.recorded} kinds of exercises are recorded, about a second each.")
    recent: list[float] = []

    def tell(progress: Progress, loss: float) -> None:
        recent.append(loss)
        if progress.step % _TELL_EVERY == 0:
            say(f"step {progress.step}, {training.share:.0%} done, loss {np.mean(recent):.3f}")
            recent.clear()

    training.run(tell, stop_asked)
    if output is not None:
        scores = write_weights(training, output)
        say(f"Written: {output.name}. Unseen generated volumes: {scores}")


def write_weights(training: Pretraining, output: Path, volumes: int = 12) -> dict[str, float]:
    """Write the averaged weights in half precision with a note of what made them; the scores are those of the file as written."""
    notes: dict[str, object] = {
        "made_by": f"SAM2Iterative {__version__}, from generated volumes only",
        "plan": asdict(training.plan),
        "steps": training.progress.step,
        "minutes": round(training.progress.seconds / 60, 1),
        "device": training.device.sentence,
    }
    model = training.averaged_model()
    foundation = Foundation(model.requires_grad_(False), "new", "new", training.architecture.image_size, imagenet=False)
    shift = calibrate_object_score(foundation, training.device, generated_volumes(volumes, first_seed=CALIBRATION_SEED))
    notes["object_score_lowered_by"] = shift
    save_compact(model, training.architecture, output, notes)
    return generated_scores(load_foundation(str(output), training.device), training.device, volumes)


def generated_scores(foundation: Foundation, device: Device, count: int) -> dict[str, float]:
    """Mean 3-D Dice on ``count`` unseen generated volumes: copying, then one middle slice's mask, box, points."""
    volumes = generated_volumes(count)
    scores = {"copied": _mean(copied_dice(volumes))}
    for kind in ("mask", "box", "points"):
        scores[kind] = _mean(propagation_dice(foundation, device, volumes, kind))
    return scores


def _mean(scores: dict[str, float]) -> float:
    return round(float(np.mean(list(scores.values()))), 4)
