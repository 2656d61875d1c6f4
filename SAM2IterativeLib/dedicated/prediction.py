"""Probabilities of a case on its original grid: slice by slice in 2-D, across one axis or several; block by block in 3-D."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from monai.inferers.inferer import SlidingWindowInferer
from numpy.typing import NDArray
from torch import Tensor, nn
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
    """One or several trained networks of one plan, ready to predict; several are averaged."""

    def __init__(self, plan: Plan, weights: Sequence[Weights], device: Device) -> None:
        """Build the networks.

        Args:
            plan: under which the weights were trained.
            weights: of one network, or of several whose probabilities are averaged.
            device: where to compute.

        Raises:
            WeightsError: weights of another plan.
        """
        self.plan = plan
        self.device = device
        self._together = _SLICES_AT_ONCE if plan.dimensions == 2 else 1
        self._networks = [self._built(one) for one in weights]

    def predict(self, image: NDArray[np.generic], geometry: Geometry, *, stop: Callable[[], bool] = lambda: False) -> NDArray[np.float32]:
        """Mean probabilities of the networks.

        Args:
            image: (k, j, i), or (k, j, i, channels) for colour, as read.
            geometry: of the image.
            stop: asked between networks and mirrored views.

        Returns:
            (C+1, k, j, i) float32 on the image's own grid; every voxel sums to 1.

        Raises:
            Stopped: ``stop`` said so.
        """
        prepared = torch.from_numpy(prepare_image(image, geometry, self.plan))
        with torch.inference_mode():
            total: Tensor | None = None
            for network in self._networks:
                for axes in self._mirrorings():
                    if stop():
                        raise Stopped
                    part = self._probabilities(network, prepared.flip(axes)).flip(axes)
                    total = part if total is None else total.add_(part)
        if total is None:
            raise ValueError("a Predictor needs at least one set of weights.")
        on_grid = from_plan((total / total.sum(0, keepdim=True)).numpy(), geometry, self.plan)
        return np.asarray(on_grid / on_grid.sum(0, keepdims=True), dtype=np.float32)

    def _built(self, weights: Weights) -> nn.Module:
        network = build_network(self.plan)
        load_weights_into(network, weights)
        return network.to(self.device.torch).eval()

    def _mirrorings(self) -> Iterator[tuple[int, ...]]:
        """Sets of axes of (channels, k, j, i) to mirror; the first is empty."""
        axes = [axis + 1 for axis in self.plan.augmentation.mirror_axes] if self.plan.mirrored_prediction else []
        for count in range(len(axes) + 1):
            yield from itertools.combinations(axes, count)

    def _probabilities(self, network: nn.Module, prepared: Tensor) -> Tensor:
        """(channels, k, j, i) on the plan's grid → (C+1, k, j, i) on the CPU; the mean over the plan's views."""
        run = self._slices if self.plan.dimensions == 2 else self._blocks
        total: Tensor | None = None
        for view in self.plan.views:
            seen = partial(run, network, prepared.movedim(view + 1, 1))
            part, self._together = with_smaller_batches(seen, self._together)
            part = part.movedim(1, view + 1)
            total = part if total is None else total + part
        assert total is not None  # a plan has at least one view
        return total / len(self.plan.views)

    def _slices(self, network: nn.Module, prepared: Tensor, together: int) -> Tensor:
        """Batches of slices with their neighbours as channels."""
        n = self.plan.neighbours
        last = prepared.shape[1] - 1
        wanted = torch.arange(last + 1).unsqueeze(1) + torch.arange(-n, n + 1)  # (slices, 2n + 1)
        stacks = prepared[:, wanted.clamp(0, last)].movedim(0, 1).flatten(1, 2)  # (slices, channels * (2n + 1), j, i)
        parts = [self._forward_slices(network, part) for part in stacks.split(together)]
        return torch.cat(parts).movedim(0, 1)

    def _forward_slices(self, network: nn.Module, stack: Tensor) -> Tensor:
        size = stack.shape[2:]
        if any(length > _WHOLE * patch for length, patch in zip(size, self.plan.patch[1:], strict=True)):
            return self._windows(network, stack, self.plan.patch[1:])
        wanted = [max(p, -(-n // d) * d) for n, p, d in zip(size, self.plan.patch[1:], self.plan.divisor[1:], strict=True)]
        before = [(w - n) // 2 for w, n in zip(wanted, size, strict=True)]
        pad = [before[1], wanted[1] - size[1] - before[1], before[0], wanted[0] - size[0] - before[0]]
        logits = self._forward(network, functional.pad(stack, pad))
        logits = logits[:, :, before[0] : before[0] + size[0], before[1] : before[1] + size[1]]
        return logits.float().softmax(1).cpu()

    def _blocks(self, network: nn.Module, prepared: Tensor, together: int) -> Tensor:
        return self._windows(network, prepared.unsqueeze(0), self.plan.patch, together)[0]

    def _windows(self, network: nn.Module, stack: Tensor, window: Sequence[int], together: int = _SLICES_AT_ONCE) -> Tensor:
        """MONAI's sliding window with Gaussian weights; probabilities are averaged, not logits."""
        inferer = SlidingWindowInferer(window, together, overlap=_OVERLAP, mode="gaussian", device="cpu")
        result = inferer(stack, lambda part: self._forward(network, part).float().softmax(1).cpu())
        assert isinstance(result, Tensor)
        return result

    def _forward(self, network: nn.Module, part: Tensor) -> Tensor:
        part = part.to(self.device.torch).contiguous(memory_format=memory_format(self.plan))
        with self.device.autocast():
            logits: Tensor = network(part)
        return logits
