"""From a volume's slices to the frozen encoder's features, computed once and kept in a bounded cache.

A *window* is the part of the slices that SAM2 sees: it becomes the model's square input. The whole slice is the plain choice; a square
around the coarse mask gives small structures more of the model's few pixels, and shows labelled and unlabelled cases at one scale.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..device import Device, with_smaller_batches
from .arithmetic import slice_arithmetic
from .checkpoints import Foundation
from .sam2_model import SliceFeatures, encode_images

OUTSIDE_LOGIT = -10.0
"""What lies outside the window is background."""
_ENCODED_TOGETHER = 16
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Window:
    """A rectangle of slice pixels: ``top``, ``left`` may be negative, the part outside the slice repeats its edge."""

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def whole(cls, shape: tuple[int, int]) -> Window:
        """The whole slice of ``shape`` (rows, columns); not square slices are stretched, as SAM2 itself does it."""
        return cls(0, 0, *shape)

    @classmethod
    def around(cls, mask: np.ndarray, margin: float = 0.5, minimum: int = 32) -> Window:
        """A square that holds all of ``mask`` (k, j, i) bool, wider by ``margin`` of its extent, never wider than the slice needs.

        An empty mask gives a square around the whole slice.
        """
        rows, columns = np.flatnonzero(mask.any((0, 2))), np.flatnonzero(mask.any((0, 1)))
        longest = max(mask.shape[1:])
        if not len(rows):
            return cls._square(mask.shape[1] / 2, mask.shape[2] / 2, longest)
        extent = max(int(np.ptp(rows)), int(np.ptp(columns))) + 1
        # Steps of 8 pixels: a mask that changes a little from round to round keeps its window, and so its features.
        side = min(longest, max(minimum, extent, 8 * round(extent * (1 + margin) / 8)))
        row, column = (
            float(np.clip(8 * round((axis[0] + axis[-1] + 1) / 16), axis[-1] + 1 - side / 2, axis[0] + side / 2))
            for axis in (rows, columns)
        )
        return cls._square(row, column, side)

    @classmethod
    def _square(cls, row: float, column: float, side: int) -> Window:
        return cls(round(row - side / 2), round(column - side / 2), side, side)

    def crop(self, slices: torch.Tensor) -> torch.Tensor:
        """(n, c, rows, columns) -> (n, c, height, width), edges repeated."""
        rows = torch.arange(self.top, self.top + self.height).clamp(0, slices.shape[-2] - 1)
        columns = torch.arange(self.left, self.left + self.width).clamp(0, slices.shape[-1] - 1)
        return slices[..., rows, :][..., columns]

    def to_model(self, points: np.ndarray, side: int) -> np.ndarray:
        """Pixel-edge coordinates (n, 2) as (row, column) -> the model's (x, y)."""
        scale = np.array([side / self.height, side / self.width])
        inside = (np.asarray(points, dtype=np.float64) - [self.top, self.left]) * scale
        return np.clip(inside, 0, side)[..., ::-1].astype(np.float32)

    def masks_to_model(self, masks: torch.Tensor, side: int) -> torch.Tensor:
        """Slice masks or logits (n, 1, rows, columns) float -> (n, 1, side, side)."""
        return F.interpolate(self.crop(masks), size=(side, side), mode="bilinear", align_corners=False, antialias=True)

    def logits_to_slice(self, logits: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        """The model's logits (n, c, side, side) -> (n, c, *shape); ``OUTSIDE_LOGIT`` outside the window."""
        inside = F.interpolate(logits, size=(self.height, self.width), mode="bilinear", align_corners=False)
        result = logits.new_full((*logits.shape[:2], *shape), OUTSIDE_LOGIT)
        rows = slice(max(0, self.top), max(0, self.top + self.height))
        columns = slice(max(0, self.left), max(0, self.left + self.width))
        target = result[..., rows, columns]
        result[..., rows, columns] = inside[
            ..., max(0, -self.top) : max(0, -self.top) + target.shape[-2], max(0, -self.left) : max(0, -self.left) + target.shape[-1]
        ]
        return result


@dataclass(frozen=True)
class VolumeFeatures:
    """The encoder's view of one volume.

    Attributes:
        features: one row per slice, on the CPU: with official weights a large CT has gigabytes of them.
        window: the part of the slices that it shows.
        shape: (k, j, i) of the volume.
        device: where a slice's features go when they are asked for.
    """

    features: SliceFeatures
    window: Window
    shape: tuple[int, int, int]
    device: torch.device = _CPU

    def of_slice(self, index: int, objects: int = 1) -> SliceFeatures:
        """One slice's features on the device, repeated for ``objects`` objects."""
        return self.features.select(torch.tensor([index])).to(self.device).in_float().select(torch.zeros(objects, dtype=torch.long))

    def descriptors(self) -> torch.Tensor:
        """(k, C) unit vectors on the CPU: the mean of each slice's coarsest features (GAP F_z in method (f))."""
        return F.normalize(self.features.levels[-1].mean((2, 3), dtype=torch.float32), dim=-1)


def prepare_images(array: np.ndarray, window: Window, foundation: Foundation) -> torch.Tensor:
    """The model's input.

    Args:
        array: (k, j, i) numbers of any type, or (k, j, i, 3) uint8 colours.
        window: the part to show.

    Returns:
        (k, 3, side, side) float32. The compact model wants mean 0 and deviation 1 over the window; the official ones want 0..1 (0.5-99.5
        percentiles of the window, or colours / 255) minus ImageNet's mean over its deviation.
    """
    return _as_input(_scaled(array, window, foundation), foundation)


def _scaled(array: np.ndarray, window: Window, foundation: Foundation) -> torch.Tensor:
    """(k, 1 or 3, side, side): all slices by one scale. Grey stays one channel until a batch is encoded, to save memory."""
    volume = torch.from_numpy(np.ascontiguousarray(array)).float()
    channels = volume.permute(0, 3, 1, 2) if volume.ndim == 4 else volume[:, None]
    images = F.interpolate(window.crop(channels), size=(foundation.side,) * 2, mode="bilinear", align_corners=False, antialias=True)
    if foundation.imagenet:
        return images / 255 if volume.ndim == 4 else _stretched(images)
    return images.sub_(images.mean()).div_(images.std() + 1e-6).clamp_(-4, 4)


def _as_input(images: torch.Tensor, foundation: Foundation) -> torch.Tensor:
    """(n, 1 or 3, side, side) of ``_scaled`` -> (n, 3, side, side)."""
    images = images.expand(-1, 3, -1, -1)
    if not foundation.imagenet:
        return images
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    return (images - mean) / deviation


def _stretched(images: torch.Tensor) -> torch.Tensor:
    low, high = np.percentile(images.numpy(), [0.5, 99.5])
    return images.sub_(low).div_(max(high - low, 1e-6)).clamp_(0, 1)


def encode_volume(foundation: Foundation, array: np.ndarray, window: Window, device: Device) -> VolumeFeatures:
    """Encode all slices, as many at once as the device's memory allows.

    They are kept in half precision: a volume of 40 slices has 5 MB of compact features.

    Raises:
        ResourceError: not even one slice fits.
    """
    images = _scaled(array, window, foundation)
    features, _ = with_smaller_batches(lambda together: _encoded(foundation, images, together, device), _ENCODED_TOGETHER)
    return VolumeFeatures(features, window, tuple(array.shape[:3]), device.torch)


def _encoded(foundation: Foundation, images: torch.Tensor, together: int, device: Device) -> SliceFeatures:
    """All slices' features in half precision on the CPU; the position codes, which are one for all, stay on the device."""
    parts: list[SliceFeatures] = []
    with torch.inference_mode(), slice_arithmetic(device):
        for batch in images.split(together):
            part = encode_images(foundation.model, _as_input(batch, foundation).to(device.torch))
            parts.append(SliceFeatures([level.half().cpu() for level in part.levels], part.positions))
    levels = [torch.cat(each) for each in zip(*(part.levels for part in parts), strict=True)]
    return SliceFeatures(levels, parts[0].positions)


class FeatureCache:
    """The features of the volumes used last, at most ``limit`` bytes of them; the key is content, so nothing stale is ever found."""

    def __init__(self, foundation: Foundation, device: Device, limit: int = 2 * 1024**3) -> None:
        self.foundation = foundation
        self.device = device
        self.limit = limit
        self._kept: OrderedDict[str, VolumeFeatures] = OrderedDict()
        self._sizes: dict[str, int] = {}

    def get(self, array: np.ndarray, window: Window) -> VolumeFeatures:
        """The features of ``array`` in ``window``, from the cache or computed."""
        digest = hashlib.sha256(np.ascontiguousarray(array).reshape(-1).data).hexdigest()
        key = f"{digest} {array.shape} {array.dtype} {window} {self.foundation.digest}"
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        features = encode_volume(self.foundation, array, window, self.device)
        self._kept[key] = features
        self._sizes[key] = _bytes(features.features.levels)
        while sum(self._sizes.values()) > self.limit and len(self._kept) > 1:
            oldest, _ = self._kept.popitem(last=False)
            del self._sizes[oldest]
        return features


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(t.element_size() * t.numel() for t in tensors)
