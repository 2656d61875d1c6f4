"""Endless random anatomy: shapes as implicit functions, whole batches at once, on any device.

Sampling is separated from applying: ``sample_anatomy`` and ``vary`` hold all randomness, ``label_volumes`` is a pure function of
their result, so every volume can be made again, at any slice distance.

Coordinates are (x, y, z) with x, y in [-1, 1] across a slice and z along the slices, in the same unit.
A structure is the set where its implicit function is positive; later structures are painted over earlier ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

BLOBS = (0, 1, 2, 3, 4, 5)
SHELLS = (6, 7)
TUBES = (8, 9)
FORK = 10
HALF = 11
STRUCTURES = 12
"""Slots per volume. Slot 0 is the body (background tissue, label 0); the others carry labels 1..11 where present."""
_NOISE = 5
"""Knots per axis of the smooth random fields."""


@dataclass(frozen=True)
class Anatomy:
    """All parameters of a batch of B anatomies with S = ``STRUCTURES`` slots.

    Attributes:
        present: (B, S) bool.
        centres: (B, S, 3); radii: (B, S, 3); rotations: (B, S, 3, 3), world to local.
        exponents: (B, S), 2 an ellipsoid, more a box-like body.
        thickness: (B, S), relative half wall of shells; bend: (B, S, 2), amplitude and phase of tubes.
        bumps: (B, S, n, n, n) knots of a smooth field added to the implicit functions.
        warp: (B, 3, n, n, n) knots of the deformation shared by all structures.
        half_of: (B,) the blob that slot ``HALF`` is cut from; cut: (B,) where, in local units.
    """

    present: torch.Tensor
    centres: torch.Tensor
    radii: torch.Tensor
    rotations: torch.Tensor
    exponents: torch.Tensor
    thickness: torch.Tensor
    bend: torch.Tensor
    bumps: torch.Tensor
    warp: torch.Tensor
    half_of: torch.Tensor
    cut: torch.Tensor

    def __len__(self) -> int:
        return self.present.shape[0]

    def repeated(self, times: int) -> Anatomy:
        """Each anatomy ``times`` times, neighbours together."""
        return Anatomy(*(getattr(self, name).repeat_interleave(times, 0) for name in self.__dataclass_fields__))


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> torch.Tensor:
    """Uniform numbers of the given shape on the generator's device."""
    return low + (high - low) * torch.rand(*shape, generator=generator, device=generator.device)


def _normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, device=generator.device)


def sample_anatomy(generator: torch.Generator, count: int) -> Anatomy:
    """Draw ``count`` independent anatomies on the generator's device."""
    b, s = count, STRUCTURES
    radii = torch.exp(uniform(generator, -1.9, -0.6, b, s, 1)) * torch.exp(0.3 * _normal(generator, b, s, 3))
    radii = radii.clamp(0.08, 0.7)
    radii[:, 0] = uniform(generator, 0.7, 1.3, b, 3)
    radii[:, 6:8] = radii[:, 6:8].clamp(min=0.2)
    tubes = [*TUBES, FORK]
    radii[:, tubes, :2] = uniform(generator, 0.05, 0.2, b, len(tubes), 1)
    radii[:, tubes, 2] = uniform(generator, 0.4, 1.2, b, len(tubes))
    centres = uniform(generator, -0.65, 0.65, b, s, 3)
    centres[:, 0] *= 0.3
    present = torch.rand(b, s, generator=generator, device=generator.device) < 0.55
    present[:, 0] = torch.rand(b, generator=generator, device=generator.device) < 0.7
    present[:, 1:3] = True
    half_of = torch.randint(1, 4, (b,), generator=generator, device=generator.device)
    anatomy = Anatomy(
        present=present,
        centres=centres,
        radii=radii,
        rotations=random_rotations(generator, b, s),
        exponents=uniform(generator, 1.6, 4.0, b, s),
        thickness=uniform(generator, 0.08, 0.3, b, s),
        bend=torch.stack([uniform(generator, 0.0, 0.3, b, s), uniform(generator, 0.0, 6.28, b, s)], -1),
        bumps=0.22 * _normal(generator, b, s, _NOISE, _NOISE, _NOISE),
        warp=0.14 * _normal(generator, b, 3, _NOISE, _NOISE, _NOISE),
        half_of=half_of,
        cut=uniform(generator, -0.4, 0.4, b),
    )
    return _arranged(anatomy, generator)


def _arranged(anatomy: Anatomy, generator: torch.Generator) -> Anatomy:
    """Nest slot 2 in slot 1 and let slot 4 touch slot 3, each in half of the volumes."""
    centres, radii = anatomy.centres.clone(), anatomy.radii.clone()
    b = len(anatomy)
    nested = (torch.rand(b, generator=generator, device=generator.device) < 0.5)[:, None]
    inside = centres[:, 1] + 0.35 * radii[:, 1] * uniform(generator, -1, 1, b, 3)
    radii[:, 2] = torch.where(nested, radii[:, 1] * uniform(generator, 0.35, 0.65, b, 1), radii[:, 2])
    centres[:, 2] = torch.where(nested, inside, centres[:, 2])
    touching = (torch.rand(b, generator=generator, device=generator.device) < 0.5)[:, None]
    direction = F.normalize(_normal(generator, b, 3), dim=-1)
    beside = centres[:, 3] + direction * (radii[:, 3] + radii[:, 4]).mean(-1, keepdim=True) * 0.8
    centres[:, 4] = torch.where(touching, beside, centres[:, 4])
    return replace(anatomy, centres=centres, radii=radii)


def vary(anatomy: Anatomy, generator: torch.Generator, strength: float = 1.0) -> Anatomy:
    """Another individual with the same anatomy: pose, sizes and surfaces differ, the arrangement stays.

    Args:
        strength: 1 is about as different as two people; 0 gives the same individual.
    """
    b = len(anatomy)
    pose = 0.08 * strength * _normal(generator, b, 1, 3)
    shift = 0.03 * strength * _normal(generator, b, STRUCTURES, 3)
    scale = torch.exp(0.08 * strength * _normal(generator, b, 1, 3) + 0.08 * strength * _normal(generator, b, STRUCTURES, 1))
    turn = _small_rotations(generator, b, 0.15 * strength)
    centres = torch.einsum("bij,bsj->bsi", turn, anatomy.centres) * scale.mean(-1, keepdim=True) + pose + shift
    return replace(
        anatomy,
        centres=centres,
        radii=anatomy.radii * scale,
        rotations=torch.einsum("bsij,bkj->bsik", anatomy.rotations, turn),
        bumps=anatomy.bumps + 0.12 * strength * _normal(generator, *anatomy.bumps.shape),
        warp=anatomy.warp + 0.05 * strength * _normal(generator, *anatomy.warp.shape),
    )


def random_rotations(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Rotation matrices (*shape, 3, 3), uniform over all rotations, from unit quaternions."""
    return _from_quaternions(F.normalize(_normal(generator, *shape, 4), dim=-1))


def _small_rotations(generator: torch.Generator, count: int, angle: float) -> torch.Tensor:
    vector = torch.cat([torch.ones(count, 1, device=generator.device), 0.5 * angle * _normal(generator, count, 3)], -1)
    return _from_quaternions(F.normalize(vector, dim=-1))


def _from_quaternions(q: torch.Tensor) -> torch.Tensor:
    w, x, y, z = q.unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], -1),
        torch.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], -1),
        torch.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)


def slice_grid(positions: torch.Tensor, side: int, shifts: torch.Tensor) -> torch.Tensor:
    """World coordinates of the pixels of a batch of slice stacks.

    Args:
        positions: (B, T) z of each slice.
        side: pixels per row and column.
        shifts: (B, T, 2) in-plane motion of each slice, (x, y).

    Returns:
        (B, T, side, side, 3).
    """
    axis = (torch.arange(side, device=positions.device) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    b, t = positions.shape
    plane = torch.stack([x, y], -1).expand(b, t, side, side, 2) + shifts[:, :, None, None]
    return torch.cat([plane, positions[:, :, None, None, None].expand(b, t, side, side, 1)], -1)


def _sampled(knots: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Smooth fields at points: knots (B, C, n, n, n), points (B, T, h, w, 3) in [-1.3, 1.3] -> (B, C, T, h, w)."""
    return F.grid_sample(knots, points / 1.3, mode="bilinear", padding_mode="border", align_corners=True)


def implicit_functions(anatomy: Anatomy, points: torch.Tensor) -> torch.Tensor:
    """Positive inside, negative outside, about -1..1 near the surface.

    Args:
        points: (B, T, h, w, 3).

    Returns:
        (B, S, T, h, w); absent structures are -1 everywhere.
    """
    warped = points + _sampled(anatomy.warp, points).permute(0, 2, 3, 4, 1)
    b, t, h, w, _ = points.shape
    flat = warped.reshape(b, 1, -1, 3)
    local = torch.einsum("bsij,bsnj->bsni", anatomy.rotations, flat - anatomy.centres[:, :, None])
    local = local / anatomy.radii[:, :, None]
    values = torch.empty(b, STRUCTURES, flat.shape[2], device=points.device)
    solid = [*BLOBS, *SHELLS]
    norm = _superellipsoid(local[:, solid], anatomy.exponents[:, solid])
    values[:, list(BLOBS)] = 1 - norm[:, : len(BLOBS)]
    walls = norm[:, len(BLOBS) :]
    values[:, list(SHELLS)] = (anatomy.thickness[:, list(SHELLS), None] - (1 - walls).abs()) * 2
    values[:, list(TUBES)] = _tube(local[:, list(TUBES)], anatomy.bend[:, list(TUBES)], anatomy.radii[:, list(TUBES)])
    values[:, FORK] = _fork(local[:, FORK], anatomy.bend[:, FORK], anatomy.radii[:, FORK])
    values = values.reshape(b, STRUCTURES, t, h, w) + _sampled(anatomy.bumps, points)
    rows = torch.arange(b, device=points.device)
    cut = (local[rows, anatomy.half_of, :, 0] - anatomy.cut[:, None]).reshape(b, t, h, w)
    values[:, HALF] = torch.minimum(values[rows, anatomy.half_of], cut)
    return torch.where(anatomy.present[:, :, None, None, None], values, -1.0)


def _superellipsoid(local: torch.Tensor, exponents: torch.Tensor) -> torch.Tensor:
    p = exponents[:, :, None, None]
    return (local.abs() + 1e-4).pow(p).sum(-1).pow(1 / p[..., 0])


def _tube(local: torch.Tensor, bend: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
    """A bent tube along the local third axis; lengths in units of the radii."""
    along = local[..., 2]
    sway = bend[..., 0, None] / radii[..., 0, None] * torch.sin(2.2 * along + bend[..., 1, None])
    across = ((local[..., 0] - sway).square() + local[..., 1].square() + 1e-6).sqrt()
    return torch.minimum(1 - across, (1 - along.abs()) * 3)


def _fork(local: torch.Tensor, bend: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
    """A tube that splits in two where its local third coordinate passes zero."""
    along = local[..., 2]
    spread = (0.15 + bend[..., 0, None]) / radii[..., 0, None] * along.clamp(min=0) * 1.5
    branches = [1 - ((local[..., 0] - side * spread).square() + local[..., 1].square() + 1e-6).sqrt() for side in (-1.0, 1.0)]
    return torch.minimum(torch.maximum(*branches), (1 - along.abs()) * 3)


def label_volumes(anatomy: Anatomy, positions: torch.Tensor, shifts: torch.Tensor, side: int) -> torch.Tensor:
    """Exact label maps (B, T, side, side), uint8: 0 background, 1..S-1 the structure on top, 255 the body's tissue.

    The implicit functions are computed at half resolution and interpolated (they are smooth), then thresholded at full resolution.
    """
    values = implicit_functions(anatomy, slice_grid(positions, side // 2, shifts))
    b, s, t = values.shape[:3]
    fine = F.interpolate(values.flatten(1, 2), size=(side, side), mode="bilinear", align_corners=False).view(b, s, t, side, side)
    order = torch.arange(1, s + 1, device=fine.device, dtype=torch.uint8)[None, :, None, None, None]
    top = torch.where(fine > 0, order, torch.zeros_like(order)).amax(1)
    return torch.where(top == 0, top, torch.where(top == 1, torch.full_like(top, 255), top - 1))
