"""dedicated.losses: the formula, and that a voxel of weight 0 does not exist."""

from __future__ import annotations

import math

import pytest
import torch

from SAM2IterativeLib.dedicated.losses import dice_loss, one_hot, segmentation_loss


def example(classes: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 5, 6, generator=generator)
    labels = torch.randint(classes, (2, 5, 6), generator=generator)
    return logits, labels, torch.rand(2, 5, 6, generator=generator)


def test_one_hot_marks_each_voxel_once() -> None:
    labels = torch.tensor([[[0, 2], [1, 2]]])
    result = one_hot(labels, 3)
    assert result.shape == (1, 3, 2, 2)
    assert torch.equal(result.argmax(1), labels) and torch.equal(result.sum(1), torch.ones(1, 2, 2))


def test_formula_by_hand() -> None:
    logits = torch.log(torch.tensor([0.25, 0.75])).view(1, 2, 1, 1).expand(1, 2, 1, 2)  # p(class 1) = 3/4 in both voxels
    labels = torch.tensor([[[1, 0]]])
    weights = torch.tensor([[[1.0, 0.5]]])
    entropy = (-math.log(0.75) - 0.5 * math.log(0.25)) / 1.5
    dice = 1 - 2 * 0.75 / (0.75 + 0.5 * 0.75 + 1.0)
    assert segmentation_loss(logits, labels, weights).item() == pytest.approx(entropy + dice, abs=1e-4)


def test_a_sure_and_right_network_has_no_loss() -> None:
    _, labels, weights = example()
    assert segmentation_loss(one_hot(labels, 3) * 50, labels, weights).item() < 1e-4


def test_weight_zero_hides_label_and_gradient() -> None:
    logits, labels, weights = example()
    weights[0, :3] = 0
    logits.requires_grad_()
    loss = segmentation_loss(logits, labels, weights)
    loss.backward()
    garbage = labels.clone()
    garbage[0, :3] = (labels[0, :3] + 1) % 3
    assert segmentation_loss(logits, garbage, weights).item() == loss.item()
    assert logits.grad is not None
    assert not logits.grad[0, :, :3].any() and logits.grad[0, :, 3:].any()


def test_without_weight_nothing_is_learned() -> None:
    logits, labels, _ = example()
    loss = segmentation_loss(logits.requires_grad_(), labels, torch.zeros(2, 5, 6))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None and not logits.grad.any()


def test_dice_runs_over_the_whole_batch() -> None:
    reference = one_hot(torch.tensor([[[1, 1, 1]], [[0, 0, 0]]]), 2)
    one = torch.ones(2, 1, 1, 3)
    assert dice_loss(reference, reference, one).item() == pytest.approx(0, abs=1e-6)
    spilled = reference.clone()
    spilled[1, :, 0, 0] = torch.tensor([0.0, 1.0])
    assert dice_loss(spilled, reference, one).item() == pytest.approx(1 - 6 / 7, abs=1e-4)  # image by image it would be (0 + 1) / 2


def test_permuted_classes_give_the_same_loss() -> None:
    logits, labels, weights = example(4)
    order = torch.tensor([0, 3, 1, 2])  # class c becomes order[c]
    permuted = logits[:, order.argsort()]
    expected = segmentation_loss(logits, labels, weights).item()
    assert segmentation_loss(permuted, order[labels], weights).item() == pytest.approx(expected, rel=1e-5)


def test_half_precision_logits_are_computed_in_float32() -> None:
    logits, labels, weights = example()
    assert segmentation_loss(logits.bfloat16(), labels, weights).dtype == torch.float32
