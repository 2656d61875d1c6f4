"""Variation of training images: all chance in ``sample_augmentation``, a pure and batched ``augment`` (TorchIO's idea).

Kinds and strengths follow nnU-Net v2 (Isensee et al., Nature Methods 2021): one resampling for mirroring, rotation, scaling,
translation and elastic deformation together, then noise, blur, brightness, contrast, low resolution, gamma. The last step is ours: a
random intensity curve that may turn bright into dark. Few labelled cases show few contrasts, and a network that knows an organ by its
brightness misses it in a scan of another kind. (Zhou et al., Models Genesis, Medical Image Analysis 2021, pretrain with such curves.)
Every parameter has a value that changes nothing, which the images that were not chosen carry, so that a whole batch is varied at once
on any device.
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
from .sampling import Batch, Cutout, Cutouts

_ELASTIC_NODES = 6  # control points per axis of an elastic deformation
_CURVE_POINTS = 6  # control points of a random intensity curve
_CURVE_ENDS = (0.01, 0.99)  # quantiles of the intensities between which they lie
_CURVE_SAMPLES = 10_000  # intensities of an image from which the quantiles are taken
_OVERSHOOT = 1.3  # bicubic interpolation exceeds its control points by no more


@dataclass(frozen=True)
class Augmentation:
    """What was drawn for one batch of B images; axes are (k, j, i), in 2-D k counts the slice and its neighbours.

    ``matrix`` (B, 3, 3) maps an offset from the image's middle, in voxels, to an offset in the case, in voxels;
    ``shift`` (B, 3) voxels; ``elastic`` (B, 3, nodes…) voxels; the rest (B,): ``noise``, ``blur`` standard deviations (0: none),
    ``gain``, ``contrast``, ``gamma``, ``inverted_gamma``, ``coarse`` factors and exponents (1: none); ``curve`` (B, points) how far the
    control points of the intensity curve lie above the straight line (0: none); ``noise_seed`` (1,).
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
    curve: Tensor
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
        curve=_sample_curves(random, a, count),
    )


def augment(cutouts: Cutouts, drawn: Augmentation, plan: Plan) -> Batch:
    """Resample every cutout to one training image and vary its intensities. Pure: the same cutouts and draw give the same result.

    Args:
        cutouts: cut as far as ``reach`` says.
        drawn: from ``sample_augmentation``.
        plan: size of the images.

    Returns:
        Images, labels and weights of the plan's patch, in 2-D with the neighbouring slices as channels; weight 0 outside the case.
    """
    device = cutouts.parts[0].image.device
    drawn = Augmentation(**{f.name: getattr(drawn, f.name).to(device) for f in fields(drawn)})
    resampled = [_resampled(part, where) for part, where in zip(cutouts.parts, _offsets(drawn, plan.block), strict=True)]
    image, labels, weights = (torch.stack(column) for column in zip(*resampled, strict=True))
    if plan.dimensions == 2:  # (B, channels, neighbours, j, i) → (B, channels * neighbours, j, i)
        image, labels, weights = image.flatten(1, 2), labels[:, plan.neighbours], weights[:, plan.neighbours]
    return Batch(vary_intensities(image, drawn), labels.long(), weights, cutouts.labelled)


def reach(drawn: Augmentation, plan: Plan) -> NDArray[np.float64]:
    """How far from its middle every image is resampled: (B, 2, 3), least and largest offsets (k, j, i) in voxels."""
    half = torch.tensor([(n - 1) / 2 for n in plan.block])
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3) * half
    ends = torch.einsum("bxy,ny->bnx", drawn.matrix, corners) + drawn.shift.unsqueeze(1)
    bent = _OVERSHOOT * drawn.elastic.abs().flatten(2).amax(2)
    return torch.stack([ends.amin(1) - bent, ends.amax(1) + bent], dim=1).double().numpy()


def vary_intensities(image: Tensor, drawn: Augmentation) -> Tensor:
    """Noise, blur, brightness, contrast, low resolution, gamma and intensity curve on (B, channels, *spatial)."""
    image = image + _noise_like(image, drawn)
    image = _blurred(image, drawn.blur)
    image = image * _each(drawn.gain, image)
    mean = image.mean(_inner(image), keepdim=True)
    image = (image - mean) * _each(drawn.contrast, image) + mean
    image = _coarsened(image, drawn.coarse)
    image = -_gamma(-image, drawn.inverted_gamma)
    image = _gamma(image, drawn.gamma)
    return _bent(image, drawn.curve)


def _sample_matrices(random: np.random.Generator, plan: Plan, count: int) -> Tensor:
    """Mirror · rotation · size, in millimetres, between two changes from and to voxels. Slices that are kept stay slices."""
    a = plan.augmentation
    spacing = np.array(plan.spacing)
    axes = [axis for axis in a.mirror_axes if axis >= 3 - plan.dimensions]
    matrices = np.empty((count, 3, 3))
    for n in range(count):
        mirror = np.ones(3)
        mirror[axes] = random.choice([-1.0, 1.0], size=len(axes))
        turn = _rotation(random, a) if random.random() < a.rotation_chance else np.eye(3)
        size = np.ones(3)
        if random.random() < a.scale_chance:
            size[int(plan.keeps_slices) :] = math.exp(random.uniform(*np.log(a.scale)))
        matrices[n] = (turn * mirror / size) * spacing / spacing[:, None]
    return torch.from_numpy(matrices).float()


def _rotation(random: np.random.Generator, a: AugmentationPlan) -> NDArray[np.float64]:
    """A rotation matrix: within the slice, and tilted about the two in-plane axes."""
    whole = np.eye(3)
    whole[1:, 1:] = _turn(random, a.rotation)
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
    farthest = a.shift * np.where(np.array(plan.patch) > 1, plan.patch, 0)
    chosen = random.random((count, 1)) < a.shift_chance
    return torch.from_numpy(chosen * random.uniform(-farthest, farthest, size=(count, 3))).float()


def _sample_elastic(random: np.random.Generator, plan: Plan, count: int) -> Tensor:
    """Displacements at control points, in voxels, those at the rim included; none across an axis of one voxel."""
    a = plan.augmentation
    patch = np.array(plan.patch)
    nodes = tuple(_ELASTIC_NODES if size > 1 else 1 for size in patch)
    chosen = random.random((count, 1, 1, 1, 1)) < a.elastic_chance
    size = random.uniform(0, a.elastic, size=(count, 1, 1, 1, 1))
    raw = random.normal(size=(count, 3, *nodes)) * np.where(patch > 1, patch, 0).reshape(1, 3, 1, 1, 1)
    return torch.from_numpy(chosen * size * raw).float()


def _sample_curves(random: np.random.Generator, a: AugmentationPlan, count: int) -> Tensor:
    chosen = random.random((count, 1)) < a.curve_chance
    return torch.from_numpy(chosen * random.normal(0.0, a.curve, size=(count, _CURVE_POINTS))).float()


def _drawn(random: np.random.Generator, count: int, chance: float, limits: tuple[float, float], nothing: float = 1.0) -> Tensor:
    """(count,) numbers in ``limits`` for the chosen images, ``nothing`` for the others."""
    values = random.uniform(*limits, size=count)
    return torch.from_numpy(np.where(random.random(count) < chance, values, nothing)).float()


def _offsets(drawn: Augmentation, block: tuple[int, int, int]) -> Tensor:
    """How far from the image's middle every voxel of the block comes from, (B, 3, *block) in voxels."""
    axes = [torch.arange(n, device=drawn.matrix.device) - (n - 1) / 2 for n in block]
    where = torch.einsum("bxy,y...->bx...", drawn.matrix, torch.stack(torch.meshgrid(*axes, indexing="ij")))
    where = where + drawn.shift.view(-1, 3, 1, 1, 1)
    if not bool(drawn.elastic.any()):
        return where
    if drawn.elastic.shape[2] > 1:
        return where + functional.interpolate(drawn.elastic, size=block, mode="trilinear", align_corners=True)
    return where + functional.interpolate(drawn.elastic[:, :, 0], size=block[1:], mode="bicubic", align_corners=True).unsqueeze(2)


def _resampled(cutout: Cutout, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Image (linear), labels and weights (nearest) of a cutout at offsets (3, *block) from its centre."""
    size = torch.tensor(cutout.labels.shape, device=offsets.device).view(3, 1, 1, 1)
    where = offsets + torch.tensor(cutout.centre, device=offsets.device).view(3, 1, 1, 1)
    grid = ((2 * where + 1) / size - 1).flip(0).movedim(0, -1).unsqueeze(0)
    image = functional.grid_sample(cutout.image.unsqueeze(0), grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
    beside = _where_nearest_is_known(offsets.device)
    exact = torch.stack([cutout.labels.float(), cutout.weights]).unsqueeze(0).to(beside)
    nearest = functional.grid_sample(exact, grid.to(beside), mode="nearest", padding_mode="zeros", align_corners=False)[0]
    labels, weights = nearest.to(offsets.device)
    return image, labels, weights


def _where_nearest_is_known(device: torch.device) -> torch.device:
    """Where voxels can be taken by nearest neighbour in 3-D: older torch cannot on MPS ("Unsupported Nearest interpolation").

    On every other device this is the device itself, so that ``to`` copies nothing and no number changes.
    """
    return torch.device("cpu") if device.type == "mps" else device


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
    return _with(image, chosen, _as_bright_as(some, ((some - low) / span) ** _each(exponent[chosen], some)))


def _bent(image: Tensor, curve: Tensor) -> Tensor:
    """Intensities through a curve, linear between control points that lie evenly over their range; mean and deviation are kept."""
    chosen = curve.abs().amax(1) > 0
    if not bool(chosen.any()):
        return image
    some = image[chosen].flatten(1)
    step = max(1, some.shape[1] // _CURVE_SAMPLES)
    low, high = torch.quantile(some[:, ::step].float(), torch.tensor(_CURVE_ENDS, device=image.device), dim=1).unsqueeze(2)
    heights = curve[chosen] + torch.linspace(0.0, 1.0, curve.shape[1], device=image.device)
    place = ((some - low) / (high - low).clamp_min(1e-6)).clamp(0.0, 1.0) * (curve.shape[1] - 1)
    before = place.long().clamp_max(curve.shape[1] - 2)
    curved = torch.lerp(heights.gather(1, before), heights.gather(1, before + 1), place - before)
    some = image[chosen]
    return _with(image, chosen, _as_bright_as(some, curved.view_as(some)))


def _as_bright_as(image: Tensor, varied: Tensor) -> Tensor:
    """``varied`` with the mean and deviation that each entry of ``image`` has."""
    over = _inner(image)
    scale = image.std(over, keepdim=True) / varied.std(over, keepdim=True).clamp_min(1e-6)
    return (varied - varied.mean(over, keepdim=True)) * scale + image.mean(over, keepdim=True)


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
