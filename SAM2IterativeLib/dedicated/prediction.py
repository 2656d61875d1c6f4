"""Probabilities of a case on its original grid: slice by slice in 2-D, across one axis or several; block by block in 3-D."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from monai.inferers.inferer import SlidingWindowInferer
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..device import Device, with_smaller_batches
from ..errors import Stopped
from ..volumes import Geometry
from .cases import prepare_image
from .networks import Weights, build_network, load_weights_into, memory_format
from .plan import Plan
from .resampling import from_plan

_WHOLE = 1.25  # slices up to this many times the patch are seen whole
_SLICES_AT_ONCE = 16
_OVERLAP = 0.5


class Predictor:
    """A trained network, ready to predict."""

    def __init__(self, plan: Plan, weights: Weights, device: Device) -> None:
        """Build the network.

        Args:
            plan: under which the weights were trained.
            weights: of the network.
            device: where to compute.

        Raises:
            WeightsError: weights of another plan.
        """
        self.plan = plan
        self.device = device
        self._together = _SLICES_AT_ONCE if plan.dimensions == 2 else 1
        network = build_network(plan)
        load_weights_into(network, weights)
        self._network = network.to(device.torch).eval()

    def predict(self, image: NDArray[np.generic], geometry: Geometry, *, stop: Callable[[], bool] = lambda: False) -> NDArray[np.float32]:
        """The network's probabilities.

        Args:
            image: (k, j, i), or (k, j, i, channels) for colour, as read.
            geometry: of the image.
            stop: asked between mirrored views.

        Returns:
            (C+1, k, j, i) float32 on the image's own grid; every voxel sums to 1.

        Raises:
            Stopped: ``stop`` said so.
        """
        prepared = torch.from_numpy(prepare_image(image, geometry, self.plan))
        with torch.inference_mode():
            total = torch.zeros(self.plan.classes + 1, *prepared.shape[1:])
            for axes in self._mirrorings():
                if stop():
                    raise Stopped
                total += self._probabilities(prepared.flip(axes)).flip(axes)
            total /= total.sum(0, keepdim=True)
        on_grid = from_plan(total.numpy(), geometry, self.plan)
        on_grid /= on_grid.sum(0, keepdims=True)
        return on_grid

    def _mirrorings(self) -> Iterator[tuple[int, ...]]:
        """Sets of axes of (channels, k, j, i) to mirror; the first is empty."""
        axes = [axis + 1 for axis in self.plan.augmentation.mirror_axes] if self.plan.mirrored_prediction else []
        for count in range(len(axes) + 1):
            yield from itertools.combinations(axes, count)

    def _probabilities(self, prepared: Tensor) -> Tensor:
        """(channels, k, j, i) on the plan's grid → (C+1, k, j, i) on the CPU; the mean over the plan's views."""
        total = torch.zeros(self.plan.classes + 1, *prepared.shape[1:])
        for view in self.plan.views:
            run = partial(self._slices, patch=self.plan.across(view).patch[1:]) if self.plan.dimensions == 2 else self._blocks
            part, self._together = with_smaller_batches(partial(run, prepared.movedim(view + 1, 1)), self._together)
            total += part.movedim(1, view + 1)
        return total / len(self.plan.views)

    def _slices(self, prepared: Tensor, together: int, patch: Sequence[int]) -> Tensor:
        """Batches of slices with their neighbours as channels."""
        n = self.plan.neighbours
        last = prepared.shape[1] - 1
        wanted = torch.arange(last + 1).unsqueeze(1) + torch.arange(-n, n + 1)  # (slices, 2n + 1)
        result = torch.empty(self.plan.classes + 1, *prepared.shape[1:])
        for at_once in wanted.clamp(0, last).split(together):
            stack = prepared[:, at_once].movedim(0, 1).flatten(1, 2)  # (slices, channels * (2n + 1), j, i)
            middle = at_once[:, n]
            result[:, int(middle[0]) : int(middle[-1]) + 1] = self._forward_slices(stack, patch, together).movedim(0, 1)
        return result

    def _forward_slices(self, stack: Tensor, patch: Sequence[int], together: int) -> Tensor:
        size = stack.shape[2:]
        if any(length > _WHOLE * p for length, p in zip(size, patch, strict=True)):
            return self._windows(stack, patch, together)
        wanted = [max(p, -(-n // d) * d) for n, p, d in zip(size, patch, self.plan.divisor[1:], strict=True)]
        before = [(w - n) // 2 for w, n in zip(wanted, size, strict=True)]
        pad = [before[1], wanted[1] - size[1] - before[1], before[0], wanted[0] - size[0] - before[0]]
        logits = self._forward(functional.pad(stack, pad))
        logits = logits[:, :, before[0] : before[0] + size[0], before[1] : before[1] + size[1]]
        return logits.float().softmax(1).cpu()

    def _blocks(self, prepared: Tensor, together: int) -> Tensor:
        return self._windows(prepared.unsqueeze(0), self.plan.patch, together)[0]

    def _windows(self, stack: Tensor, window: Sequence[int], together: int) -> Tensor:
        """MONAI's sliding window, ``together`` windows at once, with Gaussian weights; probabilities are averaged, not logits."""
        inferer = SlidingWindowInferer(window, together, overlap=_OVERLAP, mode="gaussian", device="cpu")
        result = inferer(stack, lambda part: self._forward(part).float().softmax(1).cpu())
        assert isinstance(result, Tensor)
        return result

    def _forward(self, part: Tensor) -> Tensor:
        part = part.to(self.device.torch).contiguous(memory_format=memory_format(self.plan))
        with self.device.autocast():
            logits: Tensor = self._network(part)
        return logits
