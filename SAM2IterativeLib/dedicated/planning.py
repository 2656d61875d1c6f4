"""From the cases' fingerprints to a plan: nnU-Net's rules (Isensee et al., Nature Methods 2021), scaled to what the device can do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ..device import Device
from ..errors import DataError, SettingsError
from ..orientation import turned_spacing
from ..settings import DedicatedSettings
from .fingerprint import Fingerprint, distances_to_labelled
from .plan import UNETPLUSPLUS, AugmentationPlan, Network, Normalisation, Plan

Triple = tuple[int, int, int]

_SMALLEST_PATCH = 32  # voxels per in-plane axis: below it three levels have nothing to reduce
_SMALLEST_MAP = 4  # voxels per axis at the lowest level
_ANISOTROPIC = 3.0  # nnU-Net: an axis this many times coarser than the others is treated apart
_FEW_SLICES = 8  # fewer slices make no block worth a 3-D network
_NEARLY_CUBIC = 2.0  # slices this many times as far apart as pixels can still be looked at from the side
_SIDE_VIEW = 16  # voxels along the slices' axis below which a side view shows too little
_SINGLE_SHARE = 0.98  # share of the largest piece from which a class counts as one piece: annotations have specks
_MASKED_SHARE = 0.25  # share of zeros from which an image counts as masked to an organ
_TILT = 30.0  # degrees
_CURVE_CHANCE = 0.5
_ALIKE, _UNLIKE = 0.05, 0.07  # mean contrast distance up to which no curves are drawn, and from which all are
_HALVES = ("left", "right")


@dataclass(frozen=True)
class _Budget:
    """What one training step may cost: voxels of a batch and of a patch, channels of the network, levels, longest side of a slice."""

    batch_voxels: int
    patch_voxels: int
    features: int
    most_features: int
    levels: int
    side: int
    smallest_batch: int
    largest_batch: int


_BUDGETS: dict[tuple[str, Network], _Budget] = {
    ("cpu", "unet2d"): _Budget(16 * 112 * 112, 256 * 256, 32, 256, 5, 256, 4, 16),
    ("cpu", "unet3d"): _Budget(2 * 360_000, 360_000, 16, 256, 5, 160, 2, 4),
    ("cpu", "unetplusplus"): _Budget(16 * 112 * 112, 256 * 256, 16, 256, 5, 256, 4, 16),
    ("gpu", "unet2d"): _Budget(12 * 512 * 512, 512 * 512, 32, 512, 7, 1024, 8, 32),
    ("gpu", "unetplusplus"): _Budget(12 * 512 * 512, 512 * 512, 32, 512, 5, 1024, 8, 32),
    ("gpu", "unet3d"): _Budget(2 * 128**3, 128**3, 32, 320, 6, 512, 2, 4),
}


def make_plan(
    fingerprints: Sequence[Fingerprint],
    classes: int,
    settings: DedicatedSettings,
    device: Device,
    label_names: Sequence[str] = (),
) -> Plan:
    """Decide everything about the dedicated network.

    Args:
        fingerprints: of all cases, labelled or not.
        classes: C, foreground classes.
        settings: wishes; 0 and "auto" are decided here.
        device: where training will run.
        label_names: of the classes; "left" or "right" in one of them forbids mirroring columns (see ``_augmentation``).

    Raises:
        DataError: no case, or cases with different channels.
        SettingsError: a 3-D network was asked for, but the cases are single slices.
    """
    if not fingerprints:
        raise DataError("there is no case to plan for.", cure="Import at least one labelled case.")
    channels = {f.channels for f in fingerprints}
    if len(channels) > 1:
        raise DataError(f"the images have different channels: {sorted(channels)}.", cure="Use colour or grey images, not both.")
    orientation = Counter(sorted(f.orientation for f in fingerprints)).most_common(1)[0][0]
    spacings = np.array([turned_spacing(f.spacing, f.orientation, orientation) for f in fingerprints])
    sizes = np.array([turned_spacing(f.size, f.orientation, orientation) for f in fingerprints])
    network = _network(settings, sizes, spacings, device)
    budget = _BUDGETS["cpu" if device.kind == "cpu" else "gpu", network]
    spacing = _spacing(sizes, spacings, network, budget)
    colour = max(channels) > 1
    views = _views(sizes, spacings, spacing, network, colour)
    if len(views) > 1:
        spacing[:] = np.sqrt(spacing[1] * spacing[2])
    planned = np.maximum(1, np.round(sizes * spacings / spacing))
    patch, strides, kernels = _shape(_seen(planned, views), spacing, network, budget)
    view_patches = _view_patches(planned, views, patch, strides)
    voxels = int(np.prod(patch))
    fitting = int(np.clip(budget.batch_voxels // voxels, budget.smallest_batch, budget.largest_batch))
    normalisation = _normalisation(fingerprints)
    curve_chance = _curve_chance(fingerprints, normalisation)
    first, later = _steps(network, device, curve_chance)
    return Plan(
        network=network,
        classes=classes,
        channels=channels.pop(),
        neighbours=1 if network != "unet3d" and int(np.median(sizes[:, 0])) >= 3 else 0,
        views=views,
        orientation=orientation,
        spacing=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        patch=patch,
        view_patches=view_patches,
        features=tuple(min(budget.features << level, budget.most_features) for level in range(len(strides))),
        strides=strides,
        kernels=kernels,
        batch=settings.batch or fitting,
        first_steps=settings.first_steps or first,
        round_steps=settings.round_steps or settings.first_steps or later,
        learning_rate=settings.learning_rate,
        round_learning_rate=settings.learning_rate,
        snapshots=settings.snapshots,
        single_component=_single(fingerprints, classes) if np.median(sizes[:, 0]) > 1 else (),
        always_shown=_always_shown(fingerprints, classes),
        normalisation=normalisation,
        augmentation=_augmentation(network, views, spacing, patch, normalisation, label_names, curve_chance),
    )


def overruled(settings: DedicatedSettings, plan: Plan) -> list[str]:
    """A sentence for each setting that a person changed and that the plan, made before or edited since, says otherwise."""
    changed = [f.name for f in fields(settings) if getattr(settings, f.name) != f.default and hasattr(plan, f.name)]
    return [
        f"project.toml asks for {name} = {getattr(settings, name)}, plan.toml says {getattr(plan, name)}: plan.toml counts, edit it there."
        for name in changed
        if getattr(settings, name) != getattr(plan, name)
    ]


def _network(settings: DedicatedSettings, sizes: NDArray[np.float64], spacings: NDArray[np.float64], device: Device) -> Network:
    """3-D on a GPU, and on a CPU 2-D; slices where there is no depth."""
    slices = int(np.median(sizes[:, 0]))
    if settings.network == "unet3d" and slices < _FEW_SLICES:
        raise SettingsError(
            f"the cases have {slices} slices (median), too few for 'unet3d'.", where="dedicated.network", cure="Use 'unet2d'."
        )
    if settings.network != "auto":
        return settings.network
    return "unet3d" if device.kind == "cuda" and slices >= _FEW_SLICES else "unet2d"


def _spacing(sizes: NDArray[np.float64], spacings: NDArray[np.float64], network: Network, budget: _Budget) -> NDArray[np.float64]:
    """Median spacing; for 3-D the 10th percentile on a much coarser axis; coarser in the slice where slices exceed the budget.

    nnU-Net takes the 10th percentile where the coarsest axis is 3 times coarser *and* 3 times shorter than the others.
    """
    spacing = np.median(spacings, axis=0)
    size = np.median(sizes * spacings, axis=0) / spacing
    worst = int(spacing.argmax())
    others = [axis for axis in range(3) if axis != worst]
    coarse = spacing[worst] > _ANISOTROPIC * spacing[others].max() and size[worst] * _ANISOTROPIC < size[others].min()
    if network == "unet3d" and coarse:
        spacing[worst] = max(float(np.percentile(spacings[:, worst], 10)), float(spacing[others].max()))
    longest = float((np.median(sizes * spacings, axis=0) / spacing)[1:].max())
    if longest > budget.side:
        spacing[1:] *= longest / budget.side
    return np.asarray(spacing)


def _views(
    sizes: NDArray[np.float64], spacings: NDArray[np.float64], spacing: NDArray[np.float64], network: Network, colour: bool
) -> tuple[int, ...]:
    """All three axes for slices of nearly cubic voxels, else the slices as they lie.

    One network for slices across all axes, its predictions averaged: the multi-planar U-Net (Perslev et al., MICCAI 2019). Measured on 30
    hippocampi (3 labelled, 800 steps, one seed): Dice 0.839, where the same network across one axis has 0.802.
    """
    along = float(np.percentile(spacings[:, 0], 90))
    cubic = along <= _NEARLY_CUBIC * spacing[1:].min() and spacing[1:].max() <= _NEARLY_CUBIC * spacing[1:].min()
    deep = float(np.median(sizes[:, 0] * spacings[:, 0])) >= _SIDE_VIEW * spacing[1:].min() and float(np.median(sizes[:, 0])) >= _SIDE_VIEW
    return (0, 1, 2) if network != "unet3d" and cubic and deep and not colour else (0,)


def _seen(planned: NDArray[np.float64], views: tuple[int, ...]) -> NDArray[np.float64]:
    """Sizes (cases, 3) of which the last two hold a slice of every view."""
    if len(views) == 1:
        return planned
    k, j, i = planned.T
    return np.stack([k, np.maximum(k, j), np.maximum(j, i)], axis=1)


def _shape(
    planned: NDArray[np.float64], spacing: NDArray[np.float64], network: Network, budget: _Budget
) -> tuple[Triple, tuple[Triple, ...], tuple[Triple, ...]]:
    """Patch, strides and kernels: the median case, shrunk axis by axis (the one largest against it first) to the budget."""
    median = np.median(planned, axis=0)
    target = np.maximum(_whole(planned), (1, _SMALLEST_PATCH, _SMALLEST_PATCH))
    if network != "unet3d":
        target[0] = 1
    while True:
        strides, kernels = topology(target, spacing, network, budget.levels)
        divisor = np.prod(np.array(strides), axis=0)
        patch = (np.ceil(target / divisor) * divisor).astype(int)
        if np.prod(patch) <= budget.patch_voxels:
            return (int(patch[0]), int(patch[1]), int(patch[2])), strides, kernels
        widest = int((patch / np.maximum(median, 1)).argmax())
        target = patch.astype(float)
        target[widest] -= divisor[widest]


def _whole(planned: NDArray[np.float64]) -> NDArray[np.float64]:
    """The size to see at once: the largest where cases differ little, else the median."""
    median, largest = np.median(planned, axis=0), planned.max(axis=0)
    return np.where(largest <= 1.25 * median, largest, median)


def _view_patches(planned: NDArray[np.float64], views: tuple[int, ...], patch: Triple, strides: Sequence[Triple]) -> tuple[Triple, ...]:
    """A patch for each view, no larger than its slices need: rows and columns of empty padding teach nothing.

    On the left atrium (44 of about 72 rows from the side) that is a third less to compute.
    """
    if len(views) == 1:
        return ()
    whole = np.maximum(_whole(planned), _SMALLEST_PATCH)
    divisor = np.prod(np.array(strides), axis=0)[1:]
    patches: list[Triple] = []
    for view in views:
        needed = whole[[axis for axis in range(3) if axis != view]]
        fitting = (np.ceil(needed / divisor) * divisor).astype(int)
        patches.append((1, min(int(fitting[0]), patch[1]), min(int(fitting[1]), patch[2])))
    return tuple(patches)


def topology(
    patch: NDArray[np.float64], spacing: NDArray[np.float64], network: Network, most_levels: int
) -> tuple[tuple[Triple, ...], tuple[Triple, ...]]:
    """Strides and kernels per level, by nnU-Net's rule.

    An axis is halved while at least 4 voxels remain and its spacing is at most twice the finest; a kernel spans an axis once
    the spacings have come that close. A U-Net++ always has its five levels.
    """
    if network == "unetplusplus":
        return UNETPLUSPLUS
    size, space = patch.astype(float).copy(), spacing.astype(float).copy()
    if network == "unet2d":
        space[0] = np.inf
    strides: list[Triple] = [(1, 1, 1)]
    kernels: list[Triple] = []
    wide = np.zeros(3, dtype=bool)
    while True:
        wide |= (space <= 2 * space.min()) & np.isfinite(space)
        kernel = np.where(wide, 3, 1)
        kernels.append((int(kernel[0]), int(kernel[1]), int(kernel[2])))
        able = (size >= 2 * _SMALLEST_MAP) & np.isfinite(space)
        finest = space[able].min() if able.any() else 0.0
        stride = np.where(able & (space <= 2 * finest), 2, 1)
        if stride.max() == 1 or len(strides) >= most_levels:
            return tuple(strides), tuple(kernels)
        strides.append((int(stride[0]), int(stride[1]), int(stride[2])))
        size, space = np.ceil(size / stride), space * stride


def _steps(network: Network, device: Device, curve_chance: float) -> tuple[int, int]:
    """Steps of round 0 and of a later round.

    A round that is shorter, or goes slower, than round 0 undoes what its pseudo-labels give (TRIED.md). But without CUDA round 0 is twice
    as long where intensities are bent: on 30 unlabelled left atria (4 labelled, seed 0) pseudo-labels have a Dice of 0.863 after 1,600
    steps, and of 0.841 after four trainings of 400, which learn from what 400 steps had to say.
    """
    if device.kind == "cuda":
        return 6000, 6000
    later = 400 if network == "unet3d" else 800
    return (2 * later if curve_chance else later), later


def _normalisation(fingerprints: Sequence[Fingerprint]) -> Normalisation:
    """Colour as it is; the foreground's window for CT; else each image by itself."""
    if fingerprints[0].channels > 1:
        return Normalisation(scheme="colour")
    foreground = np.concatenate([np.asarray(f.foreground, dtype=float) for f in fingerprints])
    if foreground.size and looks_like_ct(fingerprints):
        lower, upper = np.percentile(foreground, (0.5, 99.5))
        inside = foreground.clip(lower, upper)
        return Normalisation("ct", float(lower), float(upper), float(inside.mean()), max(float(inside.std()), 1.0))
    return Normalisation(ignore_zeros=float(np.median([f.zeros for f in fingerprints])) > _MASKED_SHARE)


def looks_like_ct(fingerprints: Sequence[Fingerprint]) -> bool:
    """Whether intensities look like Hounsfield units: in four of five cases air below -500, nothing below -4096, bone above 200."""
    alike = [-4096 <= low <= -500 and 200 <= high <= 32767 for low, high in (f.range for f in fingerprints)]
    return float(np.mean(alike)) >= 0.8


def _single(fingerprints: Sequence[Fingerprint], classes: int) -> tuple[int, ...]:
    """Classes that are in one piece in every labelled case that shows them. Of volumes: a few pictures with one polyp each say nothing."""
    shares: dict[int, list[float]] = {}
    for fingerprint in fingerprints:
        for value, share in (fingerprint.pieces or {}).items():
            shares.setdefault(value, []).append(share)
    return tuple(c for c in range(1, classes + 1) if c in shares and min(shares[c]) >= _SINGLE_SHARE)


def _always_shown(fingerprints: Sequence[Fingerprint], classes: int) -> tuple[int, ...]:
    """Classes that no labelled case lacks."""
    labelled = [fingerprint.pieces for fingerprint in fingerprints if fingerprint.pieces is not None]
    return tuple(c for c in range(1, classes + 1) if labelled and all(c in pieces for pieces in labelled))


def _augmentation(
    network: Network,
    views: tuple[int, ...],
    spacing: NDArray[np.float64],
    patch: Triple,
    normalisation: Normalisation,
    label_names: Sequence[str],
    curve_chance: float,
) -> AugmentationPlan:
    """nnU-Net's strengths; no tilt where slices or blocks are thick; mirroring only for pictures, and not if labels name body sides.

    Tilting the slices of a 2-D network that sees three views, measured on 40 hippocampi (100 to 139; 3 labelled, 800 steps): Dice 0.843
    without it, 0.845 and 0.849 in two trainings with it.

    A volume lies in the patient, and with few labels that is worth more than mirror images: on validation cases (one seed)
    mirroring took Dice from 0.814 to 0.743 on the left atrium (4 labelled) and from 0.829 to 0.796 on the hippocampus (3).
    """
    sided = any(half in name.lower() for name in label_names for half in _HALVES)
    axes = () if normalisation.scheme != "colour" else (1,) if sided else (1, 2)
    flat = spacing[0] > _ANISOTROPIC * spacing[1:].max() or patch[0] * _ANISOTROPIC < min(patch[1:])
    still = flat if network == "unet3d" else len(views) == 1
    return AugmentationPlan(mirror_axes=axes, tilt=0.0 if still else _TILT, curve_chance=curve_chance)


def _curve_chance(fingerprints: Sequence[Fingerprint], normalisation: Normalisation) -> float:
    """How often intensities are bent: the more, the further unlabelled cases' contrasts lie from the nearest labelled one's, on the mean
    (labelled ones' among themselves, if there are no others).

    Only where every image is normalised by itself, as MR is: what Hounsfield units and colours say is kept.

    Measured after 400 steps on few labels: 34 other left atria (4 labelled, distance 0.10) have a Dice of 0.769 without curves and 0.839
    with them (seed 0; 0.747 and 0.818 with seed 1), for some of them are darker than the fat around them, and no labelled one is. 30 other
    hippocampi (3 labelled, distance 0.04) have 0.837 and 0.810: where all look alike, brightness may be trusted (TRIED.md).
    """
    distances = np.array(distances_to_labelled(fingerprints))
    unlabelled = np.array([f.pieces is None for f in fingerprints])
    distances = distances[unlabelled if unlabelled.any() else ~unlabelled]
    if normalisation.scheme != "zscore" or np.isnan(distances).all():
        return 0.0
    return round(_CURVE_CHANCE * float(np.clip((np.nanmean(distances) - _ALIKE) / (_UNLIKE - _ALIKE), 0.0, 1.0)), 2)
