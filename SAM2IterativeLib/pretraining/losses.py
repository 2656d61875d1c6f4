"""SAM2's training losses: masks (BCE + Dice), predicted IoU, object score."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..foundation.tracking import SliceResult

BCE_WEIGHT, DICE_WEIGHT, QUALITY_WEIGHT, SCORE_WEIGHT = 2.0, 1.0, 0.2, 0.5
ABSENT_WEIGHT = 3.0
"""An absent object counts so often in the object score's loss: clips show objects about three times as often as not, and a score that
says "here" past an organ's end costs whole slices."""


def slice_loss(result: SliceResult, masks: torch.Tensor, score_weight: float = SCORE_WEIGHT) -> torch.Tensor:
    """Loss of one slice's result.

    With several candidates only the best one's mask loss counts, all IoU predictions do (SAM2, appendix D.2.1). Rows whose object is
    not on the slice train the object score and, unlike SAM2's, an empty mask: organs end, and a mask that fades there is right even
    where the score is not. The plain BCE takes the place of SAM2's focal loss, which from random weights stays long at empty masks.

    Args:
        masks: (n, side, side) bool.
        score_weight: 0 while the object score is not to be trained.
    """
    present = masks.flatten(1).any(1).float()
    target = masks[:, None].float().expand_as(result.candidates)
    logits = result.candidates.float()
    shown = (result.object_score[:, 0] > 0).float()  # elsewhere the logits are replaced, without a gradient
    bce = F.binary_cross_entropy_with_logits(logits.clamp(-30, 30), target, reduction="none").mean((2, 3))
    probability = logits.sigmoid()
    overlap = (probability * target).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((2, 3)) + target.sum((2, 3)) + 1)
    mask_loss = BCE_WEIGHT * bce * _area_balance(target) + DICE_WEIGHT * dice
    best = mask_loss.argmin(1, keepdim=True)
    hard = logits > 0
    truth = target > 0.5
    iou = (hard & truth).sum((2, 3)) / (hard | truth).sum((2, 3)).clamp(min=1)
    quality = (result.quality.float() - iou).abs().mean(1)
    balance = present + ABSENT_WEIGHT * (1 - present)
    score = F.binary_cross_entropy_with_logits(result.object_score[:, 0].float(), present, balance)
    visible = mask_loss.gather(1, best)[:, 0] + QUALITY_WEIGHT * quality
    rows = present * visible + (1 - present) * BCE_WEIGHT * bce.mean(1)
    return (rows * shown).sum() / len(rows) + score_weight * score


def _area_balance(target: torch.Tensor) -> torch.Tensor:
    """Small objects weigh more in the BCE: 1 at a tenth of the slice, at most 4."""
    return (0.1 / target.mean((2, 3)).clamp(min=1e-3)).sqrt().clamp(max=4.0)
