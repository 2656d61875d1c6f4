"""Cross-entropy plus soft Dice, with a weight for every voxel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_SMALL = 1e-5


def segmentation_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy + weighted batch Dice loss, method (i).

    With w the voxel weight, p the softmax and g the one-hot reference, both over the whole batch:
    CE = Σ w·(-log p_g) / Σ w, and Dice loss = mean_c (1 - 2 Σ w p g / (Σ w p + Σ w g)) over the foreground classes.
    A voxel of weight 0 has no influence at all, whatever its label. Without any weight the loss is 0.

    Args:
        logits: (B, C+1, *spatial), any floating format; the loss is computed in float32.
        labels: (B, *spatial) class indices 0..C.
        weights: (B, *spatial) ≥ 0.
    """
    log_probabilities = functional.log_softmax(logits.float(), dim=1)
    # One-hot times log p instead of indexing: its gradient is repeatable on a GPU, that of indexing is not.
    reference = one_hot(labels, logits.shape[1])
    weights = weights.unsqueeze(1)
    entropy = -(weights * reference * log_probabilities).sum() / weights.sum().clamp_min(_SMALL)
    return entropy + dice_loss(log_probabilities.exp(), reference, weights)


def dice_loss(probabilities: Tensor, reference: Tensor, weights: Tensor) -> Tensor:
    """1 - soft Dice, averaged over the foreground classes; sums run over the whole batch (nnU-Net's batch Dice).

    A class that neither the batch nor the network shows counts as found (loss 0).

    Args:
        probabilities, reference: (B, C+1, *spatial).
        weights: (B, 1, *spatial).
    """
    over = [0, *range(2, probabilities.dim())]
    weighted = weights * probabilities[:, 1:]
    wanted = reference[:, 1:]
    overlap = (weighted * wanted).sum(over)
    total = weighted.sum(over) + (weights * wanted).sum(over)
    return (1.0 - (2.0 * overlap + _SMALL) / (total + _SMALL)).mean()


def one_hot(labels: Tensor, count: int) -> Tensor:
    """(B, *spatial) indices → (B, count, *spatial) float32."""
    indices = torch.arange(count, device=labels.device).view(1, count, *[1] * (labels.dim() - 1))
    return (labels.unsqueeze(1) == indices).float()
