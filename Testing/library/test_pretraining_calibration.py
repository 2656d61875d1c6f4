from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tiny_sam2 import CPU, ball_volume, tiny_foundation

from SAM2IterativeLib.foundation.checkpoints import Foundation
from SAM2IterativeLib.foundation.sam2_model import object_score_bias
from SAM2IterativeLib.pretraining import calibration
from SAM2IterativeLib.pretraining.calibration import SHIFTS, calibrate_object_score
from SAM2IterativeLib.pretraining.evaluation import CALIBRATION_SEED, LabelledVolume, generated_volumes

VOLUMES = [LabelledVolume("case", *ball_volume(slices=4))]


@pytest.mark.parametrize("wanted", SHIFTS)
def test_the_threshold_that_carries_truths_furthest_is_taken(monkeypatch: pytest.MonkeyPatch, wanted: float) -> None:
    foundation = tiny_foundation()
    before = float(object_score_bias(foundation.model))

    def scored(found: Foundation, device: object, volumes: Sequence[LabelledVolume], kind: str) -> dict[str, float]:
        return {"case/1": 1.0 - abs(before - float(object_score_bias(found.model)) - wanted) / 10}

    monkeypatch.setattr(calibration, "propagation_dice", scored)
    assert calibrate_object_score(foundation, CPU, VOLUMES) == wanted
    assert float(object_score_bias(foundation.model)) == pytest.approx(before - wanted)


def test_only_the_threshold_changes() -> None:
    foundation, untouched = tiny_foundation(), tiny_foundation().model.state_dict()
    shift = calibrate_object_score(foundation, CPU, VOLUMES)
    differing = [name for name, value in foundation.model.state_dict().items() if not torch.equal(value, untouched[name])]
    assert differing == ([] if shift == 0 else [differing[0]]) and all("pred_obj_score_head" in name for name in differing)


def test_volumes_that_set_the_threshold_do_not_judge() -> None:
    judging, setting = generated_volumes(2, slices=8), generated_volumes(2, slices=8, first_seed=CALIBRATION_SEED)
    assert {v.name for v in judging}.isdisjoint(v.name for v in setting)
