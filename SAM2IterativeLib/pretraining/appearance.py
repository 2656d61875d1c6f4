"""How generated anatomy looks: CT-like windows, MR-like contrasts, colour images; noise, blur, bias, coarse pixels.

As in ``anatomy``, ``sample_appearance`` holds the randomness of what belongs to a volume; ``paint`` adds only pixel noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from .anatomy import HALF, STRUCTURES, uniform

_BACKGROUND, _BODY = 0, STRUCTURES
_TISSUES = STRUCTURES + 1
_NEIGHBOURS = {2: (1,), 4: (3,), HALF: (1, 2, 3)}
"""Structures that ``anatomy`` places in or beside these others."""
_LEAST_CONTRAST = 0.12
"""Between a structure and what surrounds it: what nobody can see, nothing can be learned from."""
_DRAWS = 12
ADDED, MAGNITUDE, SPECKLE = 0, 1, 2
"""Kinds of noise: added to the image; of a magnitude image (MR), which lifts the dark; in proportion to the image (ultrasound)."""
_SPECKLE_FACTOR = 3.0
_ALIKE_SHARE, _RIM_SHARE = 0.3, 0.5
_WIDEST_RIM = 3.0
REFERENCE_SIDE = 128
"""Pixels per row in which blur and coarseness are told; a volume painted with more of them looks the same, only finer."""


@dataclass(frozen=True)
class Appearance:
    """One row per volume.

    Attributes:
        means: (B, tissues, 3) mean intensity per tissue and channel; grey volumes have equal channels.
        textures: (B, tissues) amplitude of each tissue's own texture.
        rims: (B,) what the thin walls between tissues add; 0 without walls. rim_widths: (B,) in 1/``REFERENCE_SIDE`` of the field of view.
        clutter: (B,) amplitude of structures that have no label.
        bias: (B,) amplitude of the slow intensity change; noise: (B,); blur: (B,) and coarse: (B,) the size of the
            scanner's own pixels, both in 1/``REFERENCE_SIDE`` of the field of view.
        gamma: (B,). noise_kind: (B,) one of ``ADDED``, ``MAGNITUDE``, ``SPECKLE``.
    """

    means: torch.Tensor
    textures: torch.Tensor
    rims: torch.Tensor
    rim_widths: torch.Tensor
    clutter: torch.Tensor
    bias: torch.Tensor
    noise: torch.Tensor
    blur: torch.Tensor
    coarse: torch.Tensor
    gamma: torch.Tensor
    noise_kind: torch.Tensor

    def repeated(self, times: int) -> Appearance:
        """Each row ``times`` times, neighbours together."""
        return Appearance(*(getattr(self, name).repeat_interleave(times, 0) for name in self.__dataclass_fields__))


def sample_appearance(
    generator: torch.Generator,
    count: int,
    colour_share: float = 0.08,
    finest: float = 1.0,
    coarsest: float = 3.0,
    noise_kinds_share: float = 0.0,
) -> Appearance:
    """Draw the look of ``count`` volumes on the generator's device.

    Intensities are about 0..1; ``coarse`` lies between ``finest`` and ``coarsest``. In ``noise_kinds_share`` of the volumes noise is
    not just added.
    """
    b = count
    alike = _chosen(generator, b, _ALIKE_SHARE)
    contrast = uniform(generator, 0.6, 1.0, b, 1, 1)
    means = _sample_means(generator, alike, contrast)
    colour = (torch.rand(b, generator=generator, device=generator.device) < colour_share)[:, None, None]
    tint = 0.25 * torch.randn(b, _TISSUES, 3, generator=generator, device=generator.device)
    means = means + torch.where(colour, tint, torch.zeros_like(tint))
    look = Appearance(
        means=means,
        textures=uniform(generator, 0.0, 0.10, b, _TISSUES) * uniform(generator, 0.0, 0.8, b, 1),
        rims=_sample_rims(generator, alike) * contrast[:, 0, 0],
        rim_widths=uniform(generator, 1.0, _WIDEST_RIM, b),
        clutter=uniform(generator, 0.0, 0.25, b) * contrast[:, 0, 0],
        bias=uniform(generator, 0.0, 0.3, b),
        noise=uniform(generator, 0.0, 0.1, b),
        blur=uniform(generator, 0.3, 1.5, b),
        coarse=uniform(generator, finest, coarsest, b),
        gamma=torch.exp(uniform(generator, -0.4, 0.4, b)),
        noise_kind=torch.full((b,), ADDED, device=generator.device),
    )
    if not noise_kinds_share:
        return look
    draw = uniform(generator, 0.0, 1.0, b)
    other = torch.where(draw < noise_kinds_share / 2, MAGNITUDE, SPECKLE)
    return replace(look, noise_kind=torch.where(draw < noise_kinds_share, other, look.noise_kind))


def _chosen(generator: torch.Generator, count: int, share: float) -> torch.Tensor:
    return torch.rand(count, generator=generator, device=generator.device) < share


def _sample_means(generator: torch.Generator, alike: torch.Tensor, contrast: torch.Tensor) -> torch.Tensor:
    """Intensities (B, tissues, 1): every structure differs from body, background and the structures beside it.

    In the volumes that are ``alike`` (B,) about half of the structures share one intensity, as all that blood fills does: there
    thin walls alone divide them.
    """
    b, rows = len(alike), torch.arange(len(alike), device=alike.device)
    means = uniform(generator, 0.05, 0.95, b, _TISSUES)
    means = means[:, _BODY, None] + contrast[..., 0] * (means - means[:, _BODY, None])
    shared = alike[:, None] & (torch.rand(b, _TISSUES, generator=generator, device=generator.device) < 0.5)
    for structure in range(1, STRUCTURES):
        draws = uniform(generator, 0.05, 0.95, b, _DRAWS)
        draws = means[:, _BODY, None] + contrast[..., 0] * (draws - means[:, _BODY, None])
        others = means[:, [_BACKGROUND, _BODY, *_NEIGHBOURS.get(structure, ())]]
        nearest = (draws[:, :, None] - others[:, None]).abs().amin(2)
        means[:, structure] = draws[rows, nearest.clamp(max=_LEAST_CONTRAST).argmax(1)]
        means[:, structure] = torch.where(shared[:, structure], means[:, 1], means[:, structure])
    return means[..., None]


def _sample_rims(generator: torch.Generator, alike: torch.Tensor) -> torch.Tensor:
    """What walls add (B,): dark ones more often than bright ones; always there in volumes that are ``alike``."""
    b = len(alike)
    dark = torch.where(_chosen(generator, b, 0.7), -1.0, 1.0)
    return dark * uniform(generator, 0.1, 0.4, b) * (alike | _chosen(generator, b, _RIM_SHARE))


@dataclass(frozen=True)
class Backdrop:
    """What is seen behind the labelled structures: ``numbers`` (B, T, h, w), 0 for nothing, and the ``means`` (B, S) of these numbers."""

    numbers: torch.Tensor
    means: torch.Tensor


def paint(labels: torch.Tensor, look: Appearance, generator: torch.Generator, backdrop: Backdrop | None = None) -> torch.Tensor:
    """Images of label volumes.

    Args:
        labels: (B, T, h, w) uint8 of ``anatomy.label_volumes``.
        backdrop: what is seen beside them.

    Returns:
        (B, T, 3, h, w) float32, each volume scaled to mean 0 and deviation 1, clipped to [-4, 4].
    """
    b, t, h, w = labels.shape
    tissue = torch.where(labels == 255, torch.full_like(labels, _BODY), labels).long()
    rows = torch.arange(b, device=labels.device)[:, None]
    flat = tissue.flatten(1)
    clean = look.means[rows, flat].view(b, t, h, w, 3).permute(0, 1, 4, 2, 3)
    seen = tissue
    if backdrop is not None:
        there = ((tissue == _BACKGROUND) | (tissue == _BODY)) & (backdrop.numbers > 0)
        number = torch.where(there, backdrop.numbers, torch.zeros_like(backdrop.numbers)).long()
        intensity = backdrop.means[rows, number.flatten(1)].view(b, t, 1, h, w)
        clean = torch.where(there[:, :, None], intensity, clean)
        seen = torch.where(there, _TISSUES + number, tissue)
    clean = clean + (_texture(tissue, look, generator) + _rims(seen, look, generator))[:, :, None]
    image = _blurred(clean.flatten(0, 1), look.blur.repeat_interleave(t) * h / REFERENCE_SIDE).view_as(clean)
    image = image * (1 + look.bias[:, None, None, None, None] * _smooth(generator, b, 1, t, h, w, 3)[:, 0, :, None])
    image = _coarse(image, look, generator)
    image = (image.clamp(min=0) + 1e-3).pow(look.gamma[:, None, None, None, None])
    mean = image.mean((1, 2, 3, 4), keepdim=True)
    deviation = image.std((1, 2, 3, 4), keepdim=True) + 1e-3
    return ((image - mean) / deviation).clamp(-4, 4)


def _smooth(generator: torch.Generator, b: int, c: int, t: int, h: int, w: int, knots: int) -> torch.Tensor:
    """Smooth random fields (B, c, T, h, w), about unit amplitude."""
    field = torch.randn(b, c, max(2, knots // 2), knots, knots, generator=generator, device=generator.device)
    return F.interpolate(field, size=(t, h, w), mode="trilinear", align_corners=True)


def _texture(tissue: torch.Tensor, look: Appearance, generator: torch.Generator) -> torch.Tensor:
    b, t, h, w = tissue.shape
    fine = _smooth(generator, b, 1, t, h, w, 24)[:, 0]
    rows = torch.arange(b, device=tissue.device)[:, None]
    amplitude = look.textures[rows, tissue.flatten(1)].view(b, t, h, w)
    steps = torch.sign(_smooth(generator, b, 1, t, h, w, 7)[:, 0])
    outside = ((tissue == _BACKGROUND) | (tissue == _BODY)).float()
    return amplitude * fine * 2 + look.clutter[:, None, None, None] * 0.5 * steps * outside


def _rims(tissue: torch.Tensor, look: Appearance, generator: torch.Generator) -> torch.Tensor:
    """Thin walls where two tissues meet (B, T, h, w), stronger here, weaker there, and with gaps, as valves and worn walls are."""
    b, t, h, w = tissue.shape
    strength = (0.8 + 0.6 * _smooth(generator, b, 1, t, h, w, 6)[:, 0]).clamp(0, 1)
    one = tissue.flatten(0, 1)[:, None].float()
    widest = max(1, round(_WIDEST_RIM * h / REFERENCE_SIDE / 2))
    reach = (look.rim_widths * (h / REFERENCE_SIDE / 2)).round().clamp(1, widest)  # on either side of the border
    walls = torch.zeros(b, t, h, w, device=tissue.device)
    for r in range(1, widest + 1):
        largest, smallest = (F.max_pool2d(sign * one, 2 * r + 1, 1, r) * sign for sign in (1, -1))
        walls = torch.where((reach == r)[:, None, None, None], (largest != smallest).float().view_as(walls), walls)
    return look.rims[:, None, None, None] * walls * strength


def _blurred(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur per image: images (n, c, h, w), sigma (n,) pixels."""
    radius = 4 * max(1, math.ceil(images.shape[-1] / REFERENCE_SIDE))
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets[None] / sigma[:, None]) ** 2)
    kernel = kernel / kernel.sum(-1, keepdim=True)
    n = len(images)
    x = images.transpose(0, 1)
    x = F.conv2d(x, kernel[:, None, None, :], padding=(0, radius), groups=n)
    x = F.conv2d(x, kernel[:, None, :, None], padding=(radius, 0), groups=n)
    return x.transpose(0, 1)


def _coarse(image: torch.Tensor, look: Appearance, generator: torch.Generator) -> torch.Tensor:
    """Noise added on the scanner's own coarser pixels, then interpolated, as a small field of view looks after resizing."""
    h = image.shape[-2]
    size = (REFERENCE_SIDE / look.coarse).round().clamp(24, h)
    most = int(size.max())
    down, up = _shrinking(size, most, h), _enlarging(size, most, h)
    small = down @ image @ down.transpose(-1, -2)
    small = _noisy(small, look, generator)
    return up @ small @ up.transpose(-1, -2)


def _noisy(image: torch.Tensor, look: Appearance, generator: torch.Generator) -> torch.Tensor:
    """Images (B, t, c, h, w) with their volumes' kinds of noise, the same in all channels."""
    b, t, _, h, w = image.shape
    first, second = (
        look.noise[:, None, None, None, None] * torch.randn(b, t, 1, h, w, generator=generator, device=generator.device) for _ in range(2)
    )
    kind = look.noise_kind[:, None, None, None, None]
    magnitude = ((image + first).square() + second.square()).sqrt()
    other = torch.where(kind == MAGNITUDE, magnitude, image * (1 + _SPECKLE_FACTOR * first))
    return torch.where(kind == ADDED, image + first, other)


def _shrinking(size: torch.Tensor, most: int, side: int) -> torch.Tensor:
    """Matrices (B, 1, 1, most, side) that average ``side`` pixels into ``size`` (B,) larger ones, triangle-weighted; further rows are 0."""
    scale = (side / size)[:, None, None]
    centre = (torch.arange(most, device=size.device)[:, None] + 0.5) * scale
    pixel = torch.arange(side, device=size.device) + 0.5
    weight = (1 - (pixel - centre).abs() / scale).clamp(min=0)
    weight = weight / weight.sum(-1, keepdim=True).clamp(min=1e-6)
    return (weight * (centre < side))[:, None, None]


def _enlarging(size: torch.Tensor, most: int, side: int) -> torch.Tensor:
    """Matrices (B, 1, 1, side, most) that interpolate ``size`` (B,) pixels linearly to ``side``."""
    pixel = torch.arange(side, device=size.device)[:, None] + 0.5
    place = (pixel * (size / side)[:, None, None] - 0.5).clamp(min=0).minimum((size - 1)[:, None, None])
    return (1 - (place - torch.arange(most, device=size.device)).abs()).clamp(min=0)[:, None, None]
