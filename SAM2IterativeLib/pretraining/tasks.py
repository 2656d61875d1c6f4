"""The exercises: which slices, objects and prompts a training step shows, from single slices to clips with support volumes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from ..foundation.tracking import Points
from .anatomy import label_volumes, sample_anatomy, uniform, vary
from .appearance import REFERENCE_SIDE, paint, sample_appearance
from .scenery import sample_scenery

MINIMUM_AREA = 40 / REFERENCE_SIDE**2
"""Share of the slice that an object covers on its prompted slice."""
GUIDED_SHARE = 0.35
"""Share of the later clips whose slices come with a network's logits, as in the rounds."""
COARSEST = 4.0
"""Largest pixels of a clip's scanner, in 1/``REFERENCE_SIDE`` of the field of view: 32 pixels a row, as windows around hippocampi have."""
SCENERY_SHARE = 0.5
"""Share of the volumes that show structures nobody asks for, some of them as bright as those that are asked for."""
NOISE_KINDS_SHARE = 0.5
"""Share of the volumes whose noise is that of magnitude images, or speckle."""
SLICE_DISTANCES = (0.015, 0.2)
"""Range of the distance between slices in half fields of view, wide enough that many objects end within a clip."""


@dataclass(frozen=True)
class Exercise:
    """What kind of step comes next.

    Attributes:
        volumes, objects: how many of each (objects per volume).
        length: slices of the clip, the first is prompted; 1 is a single slice.
        prompt: mask | box | points | click | dense | none; the prompt of the first slice ("none" relies on support).
        last_prompt: whether the last slice is prompted too.
        support: slices of a relative of each volume, given with their masks before the clip starts.
        corrections: further clicks on the first slice.
        guided: whether every slice that is not prompted comes with what a mediocre network says of it.
        negatives: clicks beside the object among "points". boxed: whether a "dense" prompt comes with a box.
    """

    volumes: int
    objects: int
    length: int
    prompt: str
    last_prompt: bool = False
    support: int = 0
    corrections: int = 0
    guided: bool = False
    negatives: int = 0
    boxed: bool = False


@dataclass(frozen=True)
class Clip:
    """Data of an exercise; n = volumes x objects rows, the objects of a volume side by side.

    Attributes:
        images: (volumes, length, 3, side, side); masks: (n, length, side, side) bool.
        support_images: (volumes, support, 3, side, side); support_masks: (n, support, side, side) bool.
        owner: (n,) the volume of each row.
    """

    images: torch.Tensor
    masks: torch.Tensor
    support_images: torch.Tensor
    support_masks: torch.Tensor
    owner: torch.Tensor


def sample_exercise(generator: torch.Generator, progress: float) -> Exercise:
    """The curriculum: ``progress`` in [0, 1] moves from dense to sparse prompts and from slices to long clips.

    Args:
        generator: of the CPU, so that no device is waited for.
    """
    return with_prompt_details(_sample_kind(generator, progress), generator)


def with_prompt_details(exercise: Exercise, generator: torch.Generator) -> Exercise:
    """The exercise with up to two negative clicks among its points, and every other time a box with its dense prompt."""
    negatives = int(torch.randint(0, 3, (1,), generator=generator, device=generator.device))
    return replace(exercise, negatives=negatives, boxed=float(uniform(generator, 0, 1, 1)) < 0.5)


def _sample_kind(generator: torch.Generator, progress: float) -> Exercise:
    r = float(uniform(generator, 0, 1, 1))
    single_share = 0.9 if progress < 0.05 else 0.55
    dense_share = max(0.15, 0.9 - 4 * progress)
    prompt = _prompt(float(uniform(generator, 0, 1, 1)), dense_share)
    if r < single_share:
        corrections = int(torch.randint(0, 3, (1,), generator=generator)) if progress > 0.1 else 0
        return Exercise(volumes=12, objects=3, length=1, prompt="box" if prompt == "mask" else prompt, corrections=corrections)
    longest = 3 if progress < 0.15 else 5 if progress < 0.4 else 8
    shortest = 2 if progress < 0.5 else 4
    length = int(torch.randint(shortest, longest + 1, (1,), generator=generator))
    u = float(uniform(generator, 0, 1, 1))
    guided = progress > 0.3 and float(uniform(generator, 0, 1, 1)) < GUIDED_SHARE
    volumes = max(3, 24 // length)
    if progress > 0.1 and u < 0.35:
        support = 1 + int(u < 0.2)
        own = "none" if u < 0.25 else prompt
        return Exercise(max(3, 24 // (length + support)), objects=3, length=length, prompt=own, support=support, guided=guided)
    own = "mask" if u < 0.62 else prompt
    return Exercise(volumes, objects=3, length=length, prompt=own, last_prompt=u > 0.85 and length > 2, guided=guided)


def _prompt(r: float, dense_share: float) -> str:
    """The kind at place ``r`` in [0, 1); of the kinds that are not dense, boxes come most often: they are what the rounds use."""
    if r < dense_share:
        return "dense"
    place = (r - dense_share) / (1 - dense_share)
    return "box" if place < 0.5 else "points" if place < 0.65 else "click" if place < 0.75 else "mask"


def make_clip(exercise: Exercise, generator: torch.Generator, side: int, scenery_share: float = SCENERY_SHARE) -> Clip:
    """Generate the volumes of an exercise, ``side`` pixels wide, and choose objects that are visible on the first slice.

    Args:
        scenery_share: the share of the volumes that show more than can be asked for.
    """
    v, length, support = exercise.volumes, exercise.length, exercise.support
    anatomy = sample_anatomy(generator, v)
    look = sample_appearance(generator, v, finest=min(1.0, REFERENCE_SIDE / side), coarsest=COARSEST, noise_kinds_share=NOISE_KINDS_SHARE)
    distance = torch.exp(uniform(generator, math.log(SLICE_DISTANCES[0]), math.log(SLICE_DISTANCES[1]), v, 1))
    first = uniform(generator, -0.5, 0.5, v, 1)
    direction = torch.where(torch.rand(v, 1, generator=generator, device=generator.device) < 0.5, 1.0, -1.0)
    positions = first + direction * distance * torch.arange(length, device=generator.device)
    motion = 0.02 * torch.randn(v, length, 2, generator=generator, device=generator.device)
    motion = motion * (torch.rand(v, 1, 1, generator=generator, device=generator.device) < 0.4)
    labels = label_volumes(anatomy, positions, motion, side)
    scenery = sample_scenery(generator, look, scenery_share)
    images = paint(labels, look, generator, scenery.backdrop(positions, motion, side))
    chosen = choose_objects(labels, exercise.objects, generator)
    support_images = images[:, :0]
    support_masks = _object_masks(labels[:, :0], chosen)
    if support:
        relative = vary(anatomy, generator)
        where = first + distance * length * uniform(generator, -0.3, 1.0, v, support) * direction
        still = torch.zeros(v, support, 2, device=where.device)
        relatives = label_volumes(relative, where, still, side)
        behind = scenery.varied(generator).backdrop(where, still, side)
        support_images = paint(relatives, look, generator, behind)
        support_masks = _object_masks(relatives, chosen)
    owner = torch.arange(v, device=labels.device).repeat_interleave(exercise.objects)
    return Clip(images, _object_masks(labels, chosen), support_images, support_masks, owner)


def choose_objects(labels: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Values (volumes, count) of objects on the first slice, at random among those large enough; 255 is the body's tissue.

    A volume with fewer repeats them; one with none yields its largest tissue.
    """
    first = labels[:, 0].flatten(1)
    values = torch.arange(1, 256, device=labels.device, dtype=torch.uint8)
    values = torch.cat([values[:11], values[-1:]])
    areas = torch.stack([(first == value).sum(1) for value in values], 1)
    least = MINIMUM_AREA * first.shape[1]
    weight = (areas >= least).float()
    weight[:, -1] *= 0.3
    weight = weight + 1e-6 * (areas + 1e-3)
    picks = torch.multinomial(weight, count, replacement=False, generator=generator)
    usable = (areas.gather(1, picks) >= least) | (picks == picks[:, :1])
    picks = torch.where(usable, picks, picks[:, :1])
    return values[picks]


def _object_masks(labels: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    return (labels[:, None] == chosen[:, :, None, None, None]).flatten(0, 1)


def boxes(masks: torch.Tensor, generator: torch.Generator, jitter: float = 0.08) -> Points:
    """Boxes around masks (n, side, side) as corner points; each edge is off by up to ``jitter`` of the box's size."""
    n, side, _ = masks.shape
    index = torch.arange(side, device=masks.device, dtype=torch.float32)
    corners = []
    for axis in (1, 2):
        covered = masks.any(axis)
        low = torch.where(covered, index, float(side)).amin(1)
        high = torch.where(covered, index, -1.0).amax(1) + 1
        corners.append((low.clamp(max=side - 1), high.clamp(min=1)))
    (x0, x1), (y0, y1) = corners
    off = jitter * uniform(generator, -1, 1, n, 4)
    coords = torch.stack([x0, y0, x1, y1], 1) + off * torch.stack([x1 - x0, y1 - y0] * 2, 1)
    labels = torch.tensor([2, 3], dtype=torch.int32, device=masks.device).expand(n, 2)
    return {"point_coords": coords.view(n, 2, 2), "point_labels": labels}


def clicks(inside: torch.Tensor, outside: torch.Tensor, positive: int, negative: int, generator: torch.Generator) -> Points:
    """Random clicks: ``positive`` in ``inside`` and ``negative`` in ``outside``, both (n, side, side) bool."""
    coords, labels = [], []
    for region, count, label in ((inside, positive, 1), (outside, negative, 0)):
        if count:
            coords.append(_random_pixels(region, count, generator))
            found = region.flatten(1).any(1, keepdim=True)
            labels.append(torch.where(found, label, -1).expand(-1, count))
    return {"point_coords": torch.cat(coords, 1), "point_labels": torch.cat(labels, 1).int()}


def correction(masks: torch.Tensor, logits: torch.Tensor, generator: torch.Generator) -> Points:
    """One click per row where the result (n, 1, side, side) is wrong: positive on a miss, negative on an excess."""
    predicted = logits[:, 0] > 0
    wrong = predicted != masks
    wrong = torch.where(wrong.flatten(1).any(1)[:, None, None], wrong, masks)
    coords = _random_pixels(wrong, 1, generator)
    x, y = coords[:, 0].long().unbind(-1)
    label = masks[torch.arange(len(masks), device=masks.device), y, x].int()[:, None]
    return {"point_coords": coords, "point_labels": label}


def _random_pixels(region: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """(n, count, 2) pixel centres (x, y), preferring the interior of the region; the whole slice where it is empty."""
    soft = F.avg_pool2d(region.float()[:, None], 5, 1, 2)[:, 0] * region
    up_to = (soft.square() + 1e-8).flatten(1).cumsum(1)  # torch.multinomial would wait for the device
    drawn = torch.rand(len(region), count, generator=generator, device=region.device) * up_to[:, -1:]
    index = torch.searchsorted(up_to, drawn).clamp(max=up_to.shape[1] - 1)
    side = region.shape[-1]
    return torch.stack([index % side, index // side], -1).float() + 0.5


def coarse_logits(masks: torch.Tensor, generator: torch.Generator, ghosts: torch.Tensor | None = None) -> torch.Tensor:
    """What a mediocre network would say of masks (n, side, side): (n, 1, side/4, side/4) logits in [-10, 10].

    Some answers are timid, none is exact; and where ``ghosts`` (n, side, side), the neighbouring slice's masks, are given, some rows
    show these faintly too: networks let an organ's end fade out over slices that it does not reach.
    """
    n, side, _ = masks.shape
    size = side // 4
    rough = _roughly(masks)
    if ghosts is not None:
        faint = uniform(generator, 0.0, 0.7, n, 1, 1, 1) * (torch.rand(n, 1, 1, 1, generator=generator, device=masks.device) < 0.4)
        rough = torch.maximum(rough, faint * _roughly(ghosts))
    error = F.interpolate(
        torch.randn(n, 1, 6, 6, generator=generator, device=masks.device), size=(size, size), mode="bicubic", align_corners=False
    )
    strength = uniform(generator, 0.0, 0.5, n, 1, 1, 1)
    certainty = uniform(generator, 6.0, 20.0, n, 1, 1, 1)
    return ((rough - 0.5 + strength * error * (rough > 0.02)) * certainty).clamp(-10, 10)


def _roughly(masks: torch.Tensor) -> torch.Tensor:
    """The share of each of side/4 x side/4 cells, and of their neighbours, that masks (n, side, side) cover; (n, 1, side/4, side/4)."""
    return F.avg_pool2d(F.avg_pool2d(masks.float()[:, None], 4), 3, 1, 1)
