"""Variation of training images: all chance in ``sample_augmentation``, a pure and batched ``augment`` (TorchIO's idea).

Kinds and strengths follow nnU-Net v2 (Isensee et al., Nature Methods 2021): one resampling for mirroring, rotation, scaling,
translation and elastic deformation together, then noise, blur, brightness, contrast, low resolution, gamma. Every parameter has a
value that changes nothing, which the images that were not chosen carry, so that a whole batch is varied at once on any device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .plan import AugmentationPlan, Plan
from .sampling import Batch

_ELASTIC_NODES = 6  # control points per axis of an elastic deformation


@dataclass(frozen=True)
class Augmentation:
    """What was drawn for one batch of B images with d = 2 or 3 spatial axes.

    ``matrix`` (B, d, d) maps an offset from the patch's centre, in voxels, to an offset in the source, in voxels;
    ``shift`` (B, d) voxels; ``elastic`` (B, d, nodes…) voxels; the rest (B,): ``noise``, ``blur`` standard deviations (0: none),
    ``gain``, ``contrast``, ``gamma``, ``inverted_gamma``, ``coarse`` factors and exponents (1: none); ``noise_seed`` (1,).
    """

    matrix: Tensor
    shift: Tensor
    elastic: Tensor
    noise: Tensor
    blur: Tensor
    gain: Tensor
    contrast: Tensor
    coarse: Tensor
    gamma: Tensor
    inverted_gamma: Tensor
    noise_seed: Tensor


def sample_augmentation(random: np.random.Generator, plan: Plan, count: int) -> Augmentation:
    """Draw the variations of ``count`` images."""
    a = plan.augmentation
    return Augmentation(
        matrix=_sample_matrices(random, plan, count),
        shift=_sample_shift(random, plan, count),
        elastic=_sample_elastic(random, plan, count),
        noise=_drawn(random, count, a.noise_chance, (0.0, a.noise), nothing=0.0),
        blur=_drawn(random, count, a.blur_chance, a.blur, nothing=0.0),
        gain=_drawn(random, count, a.gain_chance, a.gain),
        contrast=_drawn(random, count, a.contrast_chance, a.contrast),
        coarse=_drawn(random, count, a.coarse_chance, a.coarse),
        gamma=_drawn(random, count, a.gamma_chance, a.gamma),
        inverted_gamma=_drawn(random, count, a.inverted_gamma_chance, a.gamma),
        noise_seed=torch.tensor([int(random.integers(2**31))]),
    )


def augment(batch: Batch, drawn: Augmentation, patch: tuple[int, ...]) -> Batch:
    """Vary a batch and crop it to the patch. Pure: the same batch and draw give the same result.

    Args:
        batch: images cut with a margin; (B, channels, *region).
        drawn: from ``sample_augmentation``.
        patch: (j, i) or (k, j, i), each at most the region's.

    Returns:
        Images, labels and weights of spatial size ``patch``; weight 0 where the resampling left the source.
    """
    device = batch.image.device
    drawn = Augmentation(**{f.name: getattr(drawn, f.name).to(device) for f in fields(drawn)})
    grid = _sampling_grid(drawn, patch, tuple(batch.image.shape[2:]))
    image = functional.grid_sample(batch.image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    exact = torch.stack([batch.labels.float(), batch.weights], dim=1)
    labels, weights = functional.grid_sample(exact, grid, mode="nearest", padding_mode="zeros", align_corners=False).unbind(1)
    return Batch(vary_intensities(image, drawn), labels.long(), weights, batch.labelled)


def crop(batch: Batch, patch: tuple[int, ...]) -> Batch:
    """The middle of a batch, unvaried."""
    image, labels, weights = batch.image, batch.labels, batch.weights
    for axis, size in zip(range(-len(patch), 0), patch, strict=True):
        first = (image.shape[axis] - size) // 2
        image, labels, weights = (t.narrow(axis, first, size) for t in (image, labels, weights))
    return Batch(image, labels, weights, batch.labelled)


def vary_intensities(image: Tensor, drawn: Augmentation) -> Tensor:
    """Noise, blur, brightness, contrast, low resolution and gamma on (B, channels, *spatial)."""
    image = image + _noise_like(image, drawn)
    image = _blurred(image, drawn.blur)
    image = image * _each(drawn.gain, image)
    mean = image.mean(_inner(image), keepdim=True)
    image = (image - mean) * _each(drawn.contrast, image) + mean
    image = _coarsened(image, drawn.coarse)
    image = -_gamma(-image, drawn.inverted_gamma)
    return _gamma(image, drawn.gamma)


def _sample_matrices(random: np.random.Generator, plan: Plan, count: int) -> Tensor:
    """Mirror · rotation · size, in millimetres, between two changes from and to voxels."""
    a = plan.augmentation
    d = plan.dimensions
    spacing = np.array(plan.spacing[3 - d :])
    axes = [axis - (3 - d) for axis in a.mirror_axes if axis >= 3 - d]
    matrices = np.empty((count, d, d))
    for n in range(count):
        mirror = np.ones(d)
        mirror[axes] = random.choice([-1.0, 1.0], size=len(axes))
        turn = _rotation(random, a, d) if random.random() < a.rotation_chance else np.eye(d)
        size = math.exp(random.uniform(*np.log(a.scale))) if random.random() < a.scale_chance else 1.0
        matrices[n] = (turn * mirror / size) * spacing / spacing[:, None]
    return torch.from_numpy(matrices).float()


def _rotation(random: np.random.Generator, a: AugmentationPlan, d: int) -> NDArray[np.float64]:
    """A rotation matrix: within the slice, and in 3-D tilted about the two in-plane axes as well."""
    whole = np.eye(d)
    whole[-2:, -2:] = _turn(random, a.rotation)
    if d == 3:
        for pair in ((0, 1), (0, 2)):
            one = np.eye(3)
            one[np.ix_(pair, pair)] = _turn(random, a.tilt)
            whole = whole @ one
    return whole


def _turn(random: np.random.Generator, limit: float) -> NDArray[np.float64]:
    angle = math.radians(random.uniform(-limit, limit))
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _sample_shift(random: np.random.Generator, plan: Plan, count: int) -> Tensor:
    a = plan.augmentation
    reach = a.shift * np.array(plan.patch[3 - plan.dimensions :])
    chosen = random.random((count, 1)) < a.shift_chance
    return torch.from_numpy(chosen * random.uniform(-reach, reach, size=(count, plan.dimensions))).float()


def _sample_elastic(random: np.random.Generator, plan: Plan, count: int) -> Tensor:
    """Displacements at control points, in voxels; those at the rim as well, since the patch has a margin."""
    a = plan.augmentation
    d = plan.dimensions
    patch = np.array(plan.patch[3 - d :])
    nodes = tuple(_ELASTIC_NODES if size > 1 else 1 for size in patch)
    chosen = random.random((count, *[1] * (d + 1))) < a.elastic_chance
    size = random.uniform(0, a.elastic, size=(count, *[1] * (d + 1)))
    raw = random.normal(size=(count, d, *nodes)) * patch.reshape(1, d, *[1] * d)
    return torch.from_numpy(chosen * size * raw).float()


def _drawn(random: np.random.Generator, count: int, chance: float, limits: tuple[float, float], nothing: float = 1.0) -> Tensor:
    """(count,) numbers in ``limits`` for the chosen images, ``nothing`` for the others."""
    values = random.uniform(*limits, size=count)
    return torch.from_numpy(np.where(random.random(count) < chance, values, nothing)).float()


def _sampling_grid(drawn: Augmentation, patch: tuple[int, ...], source: tuple[int, ...]) -> Tensor:
    """Where in the source every voxel of the patch comes from, (B, *patch, d) in grid_sample's scale, last axis first."""
    device = drawn.matrix.device
    axes = [torch.arange(n, device=device) - (n - 1) / 2 for n in patch]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"))  # (d, *patch)
    d = len(patch)
    where = torch.einsum("bxy,y...->bx...", drawn.matrix, offsets) + drawn.shift.view(-1, d, *[1] * d)
    if bool(drawn.elastic.any()):
        mode = "bicubic" if d == 2 else "trilinear"
        where = where + functional.interpolate(drawn.elastic, size=patch, mode=mode, align_corners=True)
    half = torch.tensor(source, device=device).view(1, d, *[1] * d) / 2
    return (where / half).flip(1).movedim(1, -1)


def _noise_like(image: Tensor, drawn: Augmentation) -> Tensor:
    if not bool(drawn.noise.any()):
        return torch.zeros_like(image)
    generator = torch.Generator(image.device).manual_seed(int(drawn.noise_seed))
    noise = torch.randn(image.shape, generator=generator, device=image.device)
    return noise * _each(drawn.noise, image)


def _blurred(image: Tensor, deviation: Tensor) -> Tensor:
    """Separable Gaussian blur; images of deviation 0 come back unchanged."""
    chosen = deviation > 0
    if not bool(chosen.any()):
        return image
    some = image[chosen]
    radius = math.ceil(3 * float(deviation.max()))
    offsets = torch.arange(-radius, radius + 1, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / deviation[chosen].unsqueeze(1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(image.shape[1], 0)  # (b * channels, taps)
    blurred = some.flatten(0, 1).unsqueeze(0)  # (1, b * channels, *spatial): one group per image and channel
    d = image.dim() - 2
    for axis in range(d):
        if blurred.shape[2 + axis] == 1:
            continue
        shape = [1] * d
        shape[axis] = kernel.shape[1]
        pad = [0] * (2 * d)
        pad[2 * (d - 1 - axis)] = pad[2 * (d - 1 - axis) + 1] = radius
        convolve = functional.conv2d if d == 2 else functional.conv3d
        padded = functional.pad(blurred, pad, mode="replicate")
        blurred = convolve(padded, kernel.view(-1, 1, *shape), groups=kernel.shape[0])
    return _with(image, chosen, blurred.view_as(some))


def _coarsened(image: Tensor, share: Tensor) -> Tensor:
    """Keep a share of the voxels per axis (nearest), then bring the image back to its size (linear)."""
    result = image
    size = image.shape[2:]
    for n in torch.nonzero(share < 1).flatten().tolist():
        small = [max(1, round(length * float(share[n]))) for length in size]
        low = functional.interpolate(image[n : n + 1], size=small, mode="nearest-exact")
        back = functional.interpolate(low, size=size, mode="bilinear" if len(size) == 2 else "trilinear", align_corners=False)
        result = _with(result, torch.arange(len(image), device=image.device) == n, back)
    return result


def _gamma(image: Tensor, exponent: Tensor) -> Tensor:
    """x^γ on intensities brought to 0..1; mean and deviation are kept."""
    chosen = exponent != 1
    if not bool(chosen.any()):
        return image
    some = image[chosen]
    over = _inner(some)
    low = some.amin(over, keepdim=True)
    span = (some.amax(over, keepdim=True) - low).clamp_min(1e-6)
    curved = ((some - low) / span) ** _each(exponent[chosen], some)
    scale = some.std(over, keepdim=True) / curved.std(over, keepdim=True).clamp_min(1e-6)
    curved = (curved - curved.mean(over, keepdim=True)) * scale + some.mean(over, keepdim=True)
    return _with(image, chosen, curved)


def _with(image: Tensor, chosen: Tensor, values: Tensor) -> Tensor:
    """A copy of ``image`` whose chosen entries are replaced."""
    result = image.clone()
    result[chosen] = values.to(image.dtype)
    return result


def _each(values: Tensor, image: Tensor) -> Tensor:
    """(B,) numbers in a shape that multiplies (B, channels, *spatial)."""
    return values.view(-1, *[1] * (image.dim() - 1))


def _inner(image: Tensor) -> tuple[int, ...]:
    """All axes but the batch: channels (neighbouring slices, colours) share their statistics."""
    return tuple(range(1, image.dim()))
