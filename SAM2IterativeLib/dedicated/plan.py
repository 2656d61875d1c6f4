"""Every decision that the software made for the data, in a file that a person can read and edit.

nnU-Net's idea of a plans file (Isensee et al., Nature Methods 2021): what was decided is written down, hashed into every result,
and may be changed by hand before the next run.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import SettingsError
from ..files import write_text
from ..settings import from_table, to_table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT_VERSION = 1
_FINEST, _COARSEST = 1e-4, 1e3  # mm: from microscopes to nothing that is imaged
_BODY_AXES = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}

Network = Literal["unet2d", "unet3d", "unetplusplus"]
UNETPLUSPLUS = ((1, 1, 1), *[(1, 2, 2)] * 4), ((1, 3, 3),) * 5
"""Strides and kernels of MONAI's U-Net++, which are fixed."""
Scheme = Literal["zscore", "ct", "colour"]
Norm = Literal["instance", "batch"]


def decided(default: Any, low: float | None = None, high: float | None = None, *, note: str) -> Any:
    """A field of the plan: its range, and the comment that stands above it in the file."""
    return field(default=default, metadata={"low": low, "high": high, "note": note})


@dataclass(frozen=True)
class Normalisation:
    """How intensities become numbers around 0."""

    scheme: Scheme = field(
        default="zscore",
        metadata={"note": "zscore: each image by its own mean and deviation; ct: by the window below; colour: 0-255 to -1..1"},
    )
    lower: float = decided(0.5, note="zscore: percentile below which values are clipped; ct: Hounsfield units")
    upper: float = decided(99.5, note="zscore: percentile above which values are clipped; ct: Hounsfield units")
    mean: float = decided(0.0, note="ct: mean of the foreground, subtracted")
    deviation: float = decided(1.0, 1e-6, note="ct: standard deviation of the foreground, divided by")
    ignore_zeros: bool = decided(False, note="zscore: leave voxels of value 0 out of the statistics (images masked to an organ)")

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.lower, self.upper, self.mean, self.deviation))) or self.lower >= self.upper:
            raise SettingsError("normalisation needs numbers, lower below upper.", where="plan.toml")
        if self.scheme == "zscore" and not 0 <= self.lower < self.upper <= 100:
            raise SettingsError(f"normalisation.lower and upper are percentiles, not {self.lower} and {self.upper}.", where="plan.toml")


_RANGES = (
    ("scale", 0.1, 10.0),
    ("blur", 0.01, 10.0),
    ("gain", 0.01, 100.0),
    ("contrast", 0.01, 100.0),
    ("coarse", 0.05, 1.0),
    ("gamma", 0.1, 10.0),
)
"""What the ranges of ``AugmentationPlan`` must lie between."""


@dataclass(frozen=True)
class AugmentationPlan:
    """How far training images are varied. Chances are per image of a batch, ranges are drawn from uniformly."""

    mirror_axes: tuple[int, ...] = decided((), note="axes that may be mirrored: 0 slices, 1 rows, 2 columns; wrong for left and right")
    rotation_chance: float = decided(0.3, 0, 1, note="chance of a rotation")
    rotation: float = decided(30.0, 0, 180, note="largest rotation within the slice, degrees")
    tilt: float = decided(0.0, 0, 180, note="largest rotation out of the slice, degrees; for 3-D, or 2-D with several views")
    scale_chance: float = decided(0.3, 0, 1, note="chance of a change of size")
    scale: tuple[float, float] = decided((0.7, 1.4), note="smallest and largest size, as a factor")
    shift_chance: float = decided(0.3, 0, 1, note="chance of a translation")
    shift: float = decided(0.1, 0, 0.5, note="largest translation, as a share of the patch")
    elastic_chance: float = decided(0.2, 0, 1, note="chance of a smooth deformation")
    elastic: float = decided(0.03, 0, 0.3, note="size of the deformation, as a share of the patch")
    noise_chance: float = decided(0.15, 0, 1, note="chance of Gaussian noise")
    noise: float = decided(0.3, 0, 5, note="largest standard deviation of the noise, in normalised intensities")
    blur_chance: float = decided(0.2, 0, 1, note="chance of a Gaussian blur")
    blur: tuple[float, float] = decided((0.5, 1.0), note="smallest and largest standard deviation of the blur, voxels")
    gain_chance: float = decided(0.15, 0, 1, note="chance of a change of brightness")
    gain: tuple[float, float] = decided((0.75, 1.25), note="brightness: all intensities are multiplied by a factor in this range")
    contrast_chance: float = decided(0.15, 0, 1, note="chance of a change of contrast")
    contrast: tuple[float, float] = decided((0.75, 1.25), note="contrast: distances from the mean are multiplied by a factor in this range")
    coarse_chance: float = decided(0.25, 0, 1, note="chance of a simulated low resolution")
    coarse: tuple[float, float] = decided((0.5, 1.0), note="low resolution: share of the voxels per axis that is kept")
    gamma_chance: float = decided(0.3, 0, 1, note="chance of a gamma curve")
    gamma: tuple[float, float] = decided((0.7, 1.5), note="smallest and largest exponent of the gamma curve")
    inverted_gamma_chance: float = decided(0.1, 0, 1, note="chance of a gamma curve on the inverted image")
    curve_chance: float = decided(0.0, 0, 1, note="chance of a random intensity curve, as of a scan with another contrast")
    curve: float = decided(
        0.5, 0, 2, note="how far its points lie from the straight line: standard deviation, as a share of the intensities' range"
    )

    def __post_init__(self) -> None:
        if not set(self.mirror_axes) <= {0, 1, 2}:
            raise SettingsError(f"augmentation.mirror_axes {list(self.mirror_axes)} must be some of 0, 1 and 2.", where="plan.toml")
        for name, low, high in _RANGES:
            least, most = getattr(self, name)
            if not low <= least <= most <= high:
                raise SettingsError(
                    f"augmentation.{name} [{least}, {most}] must rise and lie between {low} and {high}.",
                    where="plan.toml",
                )


@dataclass(frozen=True)
class Plan:
    """All decisions about the dedicated network. Sizes and spacings are (k, j, i)."""

    format_version: int = decided(FORMAT_VERSION, FORMAT_VERSION, FORMAT_VERSION, note="version of this file's layout")
    network: Network = field(default="unet2d", metadata={"note": "unet2d and unetplusplus see slices, unet3d sees blocks"})
    classes: int = decided(1, 1, 65535, note="foreground classes")
    channels: int = decided(1, 1, 64, note="channels of an image; 3 for colour")
    neighbours: int = decided(1, 0, 4, note="2-D only: slices before and after that are shown along with a slice")
    views: tuple[int, ...] = decided(
        (0,),
        note="2-D only: axes across which volumes are cut: 0 into slices as they lie, 1 by rows, 2 by columns; predictions are averaged",
    )
    orientation: str = decided(
        "SPL", note="body directions in which k, j and i grow (R/L, A/P, S/I); cases that lie otherwise are turned for the network"
    )
    spacing: tuple[float, float, float] = decided(
        (1.0, 1.0, 1.0), note="voxel size in mm that images are resampled to; with views [0] slices are kept and only the last two count"
    )
    patch: tuple[int, int, int] = decided((1, 64, 64), note="voxels that the network sees at once in training")
    view_patches: tuple[tuple[int, int, int], ...] = decided(
        (),
        note="2-D only: the same for each of views, where slices of one view are smaller than those of another; empty: patch for all",
    )
    features: tuple[int, ...] = decided((32, 64, 128, 256), note="channels of the network, level by level")
    strides: tuple[tuple[int, int, int], ...] = decided(
        ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2)), note="reduction of the resolution, level by level"
    )
    kernels: tuple[tuple[int, int, int], ...] = decided(
        ((1, 3, 3), (1, 3, 3), (1, 3, 3), (1, 3, 3)), note="size of the convolutions, level by level"
    )
    norm: Norm = field(
        default="instance", metadata={"note": "whether features are kept in range per image (instance) or over the batch (batch)"}
    )
    batch: int = decided(16, 1, 4096, note="images or blocks in a training step")
    first_steps: int = decided(1000, 1, 1_000_000, note="training steps of round 0")
    round_steps: int = decided(1000, 1, 1_000_000, note="training steps of every later round")
    learning_rate: float = decided(1e-3, 1e-7, 1, note="largest learning rate")
    round_learning_rate: float = decided(1e-3, 1e-7, 1, note="largest learning rate of the later rounds, which start from trained weights")
    weight_decay: float = decided(1e-2, 0, 1, note="decay of the weights (AdamW)")
    averaging: float = decided(0.99, 0, 0.9999, note="the weights that are kept are a running average with this momentum; 0: none")
    snapshots: int = decided(5, 1, 50, note="copies of the weights from the last part of training; their mean is the first history")
    foreground_share: float = decided(0.5, 0, 1, note="share of a batch that surely shows a structure")
    labelled_share: float = decided(0.5, 0, 1, note="share of a batch from labelled cases, where pseudo-labels exist")
    mirrored_prediction: bool = decided(True, note="average the prediction over the mirrored images (mirror_axes)")
    single_component: tuple[int, ...] = decided((), note="classes that every labelled case shows in one piece")
    always_shown: tuple[int, ...] = decided(
        (), note="classes that every labelled case shows: a label map without one is doubtful, so reviewed first and learned from last"
    )
    normalisation: Normalisation = Normalisation()
    augmentation: AugmentationPlan = AugmentationPlan()

    def __post_init__(self) -> None:
        if not len(self.features) == len(self.strides) == len(self.kernels) >= 3:
            raise SettingsError(
                f"features, strides and kernels must have one entry per level, at least 3, not {len(self.features)}, "
                f"{len(self.strides)} and {len(self.kernels)}.",
                where="plan.toml",
            )
        if min(min(step) for step in (*self.strides, *self.kernels, self.features)) < 1:
            raise SettingsError("features, strides and kernels must be 1 at least.", where="plan.toml")
        if any(size % 2 == 0 for kernel in self.kernels for size in kernel) or set(self.strides[0]) != {1}:
            raise SettingsError("kernels must be odd, and the first level's stride [1, 1, 1].", where="plan.toml")
        if sorted(_BODY_AXES.get(letter, -1) for letter in self.orientation) != [0, 1, 2]:
            raise SettingsError(f"orientation {self.orientation!r} must name each body axis once, such as 'SPL'.", where="plan.toml")
        for name, chosen in (("single_component", self.single_component), ("always_shown", self.always_shown)):
            if not set(chosen) <= set(range(1, self.classes + 1)):
                raise SettingsError(f"{name} {list(chosen)} must be some of the {self.classes} classes.", where="plan.toml")
        for patch in (self.patch, *self.view_patches):
            if any(size < 1 or size % step for size, step in zip(patch, self.divisor, strict=True)):
                raise SettingsError(f"patch {patch} must be divisible by the product of the strides, {self.divisor}.", where="plan.toml")
        if not all(_FINEST <= step <= _COARSEST for step in self.spacing):
            raise SettingsError(f"spacing {self.spacing} must lie between {_FINEST} and {_COARSEST} mm on every axis.", where="plan.toml")
        if self.normalisation.scheme == "colour" and self.channels == 1:
            raise SettingsError("the normalisation 'colour' is not for grey images.", where="plan.toml")
        first = {self.patch[0], self.divisor[0], *(patch[0] for patch in self.view_patches), *(kernel[0] for kernel in self.kernels)}
        if self.dimensions == 2 and first != {1}:
            raise SettingsError(f"a {self.network} must have 1 as the first number of patch, strides and kernels.", where="plan.toml")
        if self.network == "unetplusplus" and (self.strides, self.kernels) != UNETPLUSPLUS:
            raise SettingsError("a unetplusplus has five levels, each half as fine, and kernels [1, 3, 3].", where="plan.toml")

        if not self.views or len(set(self.views)) < len(self.views) or not set(self.views) <= {0, 1, 2}:
            raise SettingsError(f"views {list(self.views)} must be some of 0, 1 and 2, each once.", where="plan.toml")
        if self.view_patches and len(self.view_patches) != len(self.views):
            raise SettingsError(f"view_patches must be empty or one for each of the views {list(self.views)}.", where="plan.toml")
        if self.keeps_slices and self.augmentation.tilt:
            raise SettingsError("slices that are kept as they lie (2-D with views [0]) need augmentation.tilt = 0.", where="plan.toml")
        if self.views != (0,) and self.dimensions == 3:
            raise SettingsError(
                f"views other than [0] are for 2-D networks without mirror_axes, and network is unet3d with views {list(self.views)}.",
                where="plan.toml",
                cure='Set network = "unet2d" again. For a 3-D network, patch, strides and kernels must change as well: before round 0, set '
                'network = "unet3d" under [dedicated] in project.toml and remove plan.toml, and all of them are planned anew.',
            )
        if self.views != (0,) and self.augmentation.mirror_axes:
            raise SettingsError(
                f"views other than [0] are for 2-D networks without mirror_axes, and views are {list(self.views)}, "
                f"mirror_axes {list(self.augmentation.mirror_axes)}.",
                where="plan.toml",
                cure="Set mirror_axes = [] under [augmentation], or views = [0] and view_patches = [].",
            )

    def across(self, view: int) -> Plan:
        """The plan as it is for slices across one of ``views``: with the patch of that view."""
        return replace(self, patch=self.view_patches[self.views.index(view)], view_patches=()) if self.view_patches else self

    @property
    def keeps_slices(self) -> bool:
        """Whether cases are resampled only within their slices."""
        return self.dimensions == 2 and self.views == (0,)

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return 3 if self.network == "unet3d" else 2

    @property
    def divisor(self) -> tuple[int, int, int]:
        """What every patch size must be divisible by: the product of the strides, per axis."""
        k, j, i = 1, 1, 1
        for stride in self.strides:
            k, j, i = k * stride[0], j * stride[1], i * stride[2]
        return k, j, i

    @property
    def block(self) -> tuple[int, int, int]:
        """Voxels (k, j, i) that one training image shows: the patch, in 2-D with the neighbouring slices."""
        return (2 * self.neighbours + 1, *self.patch[1:]) if self.dimensions == 2 else self.patch

    @property
    def input_channels(self) -> int:
        """Channels that enter the network: those of a slice and, in 2-D, of its neighbours."""
        return self.channels * (2 * self.neighbours + 1) if self.dimensions == 2 else self.channels

    @property
    def digest(self) -> str:
        """SHA-256 of the decisions (not of the comments), as 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(to_table(self), sort_keys=True).encode()).hexdigest()


def read_plan(path: str | Path, classes: int | None = None) -> Plan:
    """Read ``plan.toml``, strictly.

    Args:
        classes: how many labels the project has; None: any number will do.

    Raises:
        SettingsError: no TOML, an unknown key, a wrong type or range, decisions that contradict each other, or other labels.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows editors begin files with a mark
    except FileNotFoundError as error:
        raise SettingsError("the plan is missing.", where=path.name, cure="Run the first round again to make a new one.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"this is not a TOML file: {error}.", where=path.name, cure="Undo the last edit of the file.") from error
    if not table:
        raise SettingsError(
            "the plan is empty.", where=path.name, cure="Undo the last edit of the file, or remove it to have a new one made."
        )
    version = table.get("format_version", FORMAT_VERSION)
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise SettingsError("the plan was written by a newer version.", where=path.name, cure="Update SAM2Iterative.")
    plan = from_table(Plan, table, path.name)
    if classes is not None and plan.classes != classes:
        raise SettingsError(
            f"the plan and the networks that follow it know {plan.classes} labels, project.toml has {classes}.",
            where=path.name,
            cure="Give project.toml the labels that it had; other labels need a new project (before round 0: remove plan.toml).",
        )
    return plan


def change_plan(path: str | Path, **numbers: int) -> Plan:
    """Change single numbers of ``plan.toml``; every other line, a person's own comments among them, stays as it is.

    Args:
        numbers: fields of the plan by their name, such as ``round_steps=2000``.

    Raises:
        SettingsError: as ``read_plan``; or a number is out of range.
    """
    path = Path(path)
    before = read_plan(path)
    text = path.read_text(encoding="utf-8-sig")
    for name, number in numbers.items():
        line = re.compile(rf"^{name}[ \t]*=[ \t]*[\w+]+", re.MULTILINE)
        # A field that was left out stands at its default; plain keys must come before the first table.
        text = line.sub(f"{name} = {number}", text, count=1) if line.search(text) else f"{name} = {number}\n{text}"
    changed: dict[str, Any] = dict(numbers)
    plan = from_table(Plan, {**to_table(before), **changed}, path.name)
    if not _says(text, plan, path.name):
        told = ", ".join(f"{name} = {number}" for name, number in numbers.items())
        raise SettingsError("the file has an unusual form.", where=path.name, cure=f"Set {told} there by hand.")
    write_text(path, text)
    return plan


def _says(text: str, plan: Plan, where: str) -> bool:
    try:
        return bool(from_table(Plan, tomllib.loads(text), where) == plan)
    except (tomllib.TOMLDecodeError, SettingsError):
        return False


def write_plan(path: str | Path, plan: Plan) -> None:
    """Write ``plan.toml`` atomically, with a comment above every decision."""
    lines = ["# What was decided for these data. It may be edited before a run; results name the hash of this plan.", ""]
    lines += _toml_lines(plan)
    write_text(path, "\n".join(lines) + "\n")


def _toml_lines(values: Any) -> list[str]:
    """A dataclass as TOML: plain values first, then one table per nested dataclass."""
    lines: list[str] = []
    tables: list[str] = []
    for entry in fields(values):
        value = getattr(values, entry.name)
        if hasattr(value, "__dataclass_fields__"):
            title = (type(value).__doc__ or "").splitlines()[0]
            tables += ["", f"# {title}", f"[{entry.name}]", *_toml_lines(value)]
        else:
            lines += [f"# {entry.metadata['note']}", f"{entry.name} = {_toml_value(value)}"]
    return lines + tables


def _toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    return json.dumps(value, ensure_ascii=False)
