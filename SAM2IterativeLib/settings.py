"""Every choice a person can make, as frozen dataclasses with one strict loader.

One definition serves the project file (TOML), the command line and the GUI's parameter node. Here stand *wishes* ("auto" is
allowed); what the software decided for the data stands in the plan (``dedicated.plan``).
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from .errors import SettingsError

FORMAT_VERSION = 1

MemoryMode = Literal["G0", "G1", "G1+G2"]
DensePrompt = Literal["none", "refinable", "everywhere"]
NetworkKind = Literal["auto", "unet2d", "unet3d", "unetplusplus"]

Settings_ = TypeVar("Settings_")

MOST_LABELS = 255
"""Class indices are uint8 everywhere, and 0 is the background."""

_COLOURS = (
    (221, 130, 101),
    (128, 174, 128),
    (111, 184, 210),
    (241, 214, 145),
    (177, 122, 101),
    (216, 101, 79),
    (144, 238, 144),
    (192, 104, 88),
    (220, 245, 20),
    (78, 63, 0),
    (255, 250, 220),
    (230, 158, 140),
)
"""Well apart from each other; the first ones are Slicer's own for common anatomy."""


def bounded(default: Any, low: float | None = None, high: float | None = None, least: int = 0) -> Any:
    """A dataclass field whose value, or values, must lie in [low, high]; None leaves that side open. A list has ``least`` or more."""
    return field(default=default, metadata={"low": low, "high": high, "least": least})


@dataclass(frozen=True)
class Label:
    """One foreground label: ``value`` in every file, ``name`` and ``colour`` (RGB, 0-255; left out: its value's) on every screen."""

    value: int = bounded(1, 1, 65535)
    name: str = "structure"
    colour: tuple[int, int, int] = bounded((), 0, 255)
    terminology: str = ""
    """Slicer's terminology tag; empty: the generic "Tissue" entry."""

    def __post_init__(self) -> None:
        """Labels of different values are told apart, whoever made them."""
        if not self.colour:
            object.__setattr__(self, "colour", _COLOURS[(self.value - 1) % len(_COLOURS)])


@dataclass(frozen=True)
class RoundSettings:
    """How many rounds, which volumes each may learn from, when to stop (method (h), (j))."""

    maximum: int = bounded(10, 1, 100)
    """Rounds after round 0 that rounds "until nothing changes" do at most (T in method (j)). With 4 labelled left atria the labels of the
    others still got better in round 5 (TRIED.md)."""
    shares: tuple[float, ...] = bounded((0.5, 0.75, 1.0), 0.0, 1.0, least=1)
    """Share of the unlabelled volumes, best agreement first, that rounds 1, 2, ... learn from; the last one repeats."""
    converged_dice: float = bounded(0.99, 0.0, 1.0)
    minimum_gain: float = bounded(0.002, 0.0, 1.0)
    unlabelled_weight: float = bounded(1.0, 0.0, 10.0)
    """Final weight of the pseudo-label loss, reached after the first tenth of a round's steps."""


@dataclass(frozen=True)
class DedicatedSettings:
    """The dedicated network (a U-Net). 0 or "auto" lets the plan decide from data, device and method."""

    network: NetworkKind = "auto"
    """"unet2d" sees slices, "unet3d" blocks; "unetplusplus" is a U-Net++ that sees slices."""
    first_steps: int = bounded(0, 0, 1_000_000)
    """Optimiser steps of round 0."""
    round_steps: int = bounded(0, 0, 1_000_000)
    """Optimiser steps of each later round; 0: as many as round 0 has, half as many where the plan lengthens that (see ``planning``)."""
    batch: int = bounded(0, 0, 4096)
    learning_rate: float = bounded(1e-3, 1e-7, 1.0)
    snapshots: int = bounded(5, 1, 50)
    """Training snapshots averaged into the first history h_0 (J in method (b))."""


@dataclass(frozen=True)
class UncertaintySettings:
    """How the network's answers over the rounds become a history and an uncertainty (method (b))."""

    momentum: float = bounded(0.25, 0.0, 0.999)
    """How much of the history stays when a round adds its answer: b in h_t = b h_{t-1} + (1-b) p_t.

    Method (b) has 0.5. Networks that gain much in a round make an old history worse than today's answer: in round 2 on 15 left atria the
    history had a Dice of 0.866 with 0.5 and 0.872 with 0.25, today's answer 0.874; on hippocampi 0.884 each (TRIED.md)."""


@dataclass(frozen=True)
class KeyFrameSettings:
    """Which slices are sure enough to prompt SAM2 on (method (c), (d))."""

    count: int = bounded(3, 1, 32)
    """K: equal parts of a class's axial extent, one key frame each at most."""
    minimum_quality: float = bounded(0.35, 0.0, 1.0)
    """Slices of a lower quality Q are no key frames; a class's best slice is one however low, as long as it may be prompted at all."""
    margin: int = bounded(3, 0, 50)
    """Pixels by which a mask is dilated before its uncertainty is summed, relative to the mask's area."""
    minimum_confidence: float = bounded(0.7, 0.0, 1.0)
    """A slice needs one component whose mean probability exceeds this."""
    minimum_area: int = bounded(8, 1, 100_000)
    """Pixels below which a slice is too small to prompt."""


@dataclass(frozen=True)
class PromptSettings:
    """What SAM2 is told on a key frame (method (e))."""

    positive_points: int = bounded(3, 0, 32)
    negative_points: int = bounded(3, 0, 32)
    box: bool = True
    dense: DensePrompt = "everywhere"
    """Where the network's own logits go along as a prompt that SAM2 may still refine: on all slices, on key frames only ("refinable"), or
    nowhere ("none")."""


@dataclass(frozen=True)
class MemorySettings:
    """Which memories SAM2 attends to on a slice (method (f)): of labelled cases, of key frames, of the slices just passed."""

    mode: MemoryMode = "G1+G2"
    support: int = bounded(2, 0, 4)
    key: int = bounded(2, 0, 4)
    recent: int = bounded(3, 0, 6)
    compete: bool = True
    """Classes compete for each pixel before they enter memory."""


@dataclass(frozen=True)
class FoundationSettings:
    """The SAM2 model: a preset's name, or a local checkpoint file of the official format."""

    weights: str = "compact"
    """A preset's name, "adapted" for the project's own (made by ``adapt``), or the path of a checkpoint file."""
    adaptation_steps: int = bounded(150, 0, 100_000)
    """Before round 0 compact weights are adapted to the labelled cases in so many steps, and the result is used only if it helps on a
    labelled case that it did not see; 0: never."""
    decay: float = bounded(5.0, 0.1, 1000.0)
    """Slices over which a key frame's influence falls to 1/e when passes are averaged (method (g))."""


@dataclass(frozen=True)
class PseudoLabelSettings:
    """How SAM2's answer and the network's history become a pseudo-label (method (h))."""

    foundation_share: float = bounded(0.5, 0.0, 1.0)
    """Weight of SAM2 against the network's history in the fused probabilities where both err alike; the one that errs less weighs more."""
    trusted_probability: float = bounded(0.8, 0.0, 1.0)
    """Where SAM2 and the history disagree, a voxel is learned from only if their mean is surer of its class than this."""


@dataclass(frozen=True)
class KnowledgeMiningSettings:
    """The method "knowledge_mining" alone."""

    acceptance: float = bounded(0.5, 0.0, 1.0)
    """Least IoU of SAM2's mask with the piece of the network's mask that prompted it; below it the network's own piece is kept."""


@dataclass(frozen=True)
class Settings:
    """All of a project's settings, as they stand in ``project.toml``."""

    format_version: int = FORMAT_VERSION
    name: str = ""
    method: str = "ifdl"
    device: str = "auto"
    seed: int = bounded(0, 0, 2**31 - 1)
    labels: tuple[Label, ...] = ()
    rounds: RoundSettings = RoundSettings()
    dedicated: DedicatedSettings = DedicatedSettings()
    uncertainty: UncertaintySettings = UncertaintySettings()
    key_frames: KeyFrameSettings = KeyFrameSettings()
    prompts: PromptSettings = PromptSettings()
    memory: MemorySettings = MemorySettings()
    foundation: FoundationSettings = FoundationSettings()
    pseudo_label: PseudoLabelSettings = PseudoLabelSettings()
    knowledge_mining: KnowledgeMiningSettings = KnowledgeMiningSettings()

    def __post_init__(self) -> None:
        """Labels stand in the order of their values, whatever the file's: trained networks know them by their place."""
        object.__setattr__(self, "labels", tuple(sorted(self.labels, key=lambda label: label.value)))

    @property
    def values(self) -> tuple[int, ...]:
        """The label values in class order: class c (1..C) is stored as ``values[c - 1]``."""
        return tuple(label.value for label in self.labels)


def from_table(kind: type[Settings_], table: Mapping[str, Any], where: str) -> Settings_:
    """Build a frozen dataclass from a parsed TOML or JSON table, strictly.

    Args:
        kind: the dataclass; nested dataclasses, tuples, literals and plain types are understood.
        table: what the file holds; absent keys take their defaults.
        where: the file's name, for messages.

    Raises:
        SettingsError: an unknown key (the nearest known one is named), a wrong type, a value out of range.
    """
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise SettingsError(f"unknown setting '{key}'.", where=where, cure=_cure_for_unknown(key, kind))
    values = {key: _converted(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    for key, value in values.items():
        _check_range(value, known[key].metadata, f"{where}: {key}")
    return kind(**values)


def to_table(settings: Any) -> dict[str, Any]:
    """The reverse of ``from_table``: plain dicts, lists and scalars."""
    return typing.cast(dict[str, Any], _plain(settings))


def replaced(settings: Settings, dotted: str, value: Any) -> Settings:
    """A copy with one setting changed, e.g. ``replaced(s, "memory.mode", "G1")``; strict as ``from_table``."""
    table = to_table(settings)
    inner = table
    *path, last = dotted.split(".")
    for name in path:
        if not isinstance(inner.get(name), dict):
            raise SettingsError(f"unknown setting '{dotted}'.", cure=f"Sections are: {', '.join(to_table(Settings()))}.")
        inner = inner[name]
    inner[last] = value
    return from_table(Settings, table, dotted)


def merged(theirs: Settings_, before: Settings_, after: Settings_) -> Settings_:
    """``theirs`` with what changed from ``before`` to ``after``, setting by setting; labels count as one setting."""
    changes: dict[str, Any] = {}
    for f in dataclasses.fields(typing.cast(Any, theirs)):
        old, new = getattr(before, f.name), getattr(after, f.name)
        if dataclasses.is_dataclass(old) and type(old) is type(new):
            changes[f.name] = merged(getattr(theirs, f.name), old, new)
        elif new != old:
            changes[f.name] = new
    return typing.cast(Settings_, dataclasses.replace(typing.cast(Any, theirs), **changes))


def _cure_for_unknown(key: str, kind: type) -> str:
    """The nearest name here; else the section of ``project.toml`` that the name belongs to; else all names here."""
    known = [f.name for f in dataclasses.fields(kind)]
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f"Did you mean '{near[0]}'?"
    sections = {f.name: f.default for f in dataclasses.fields(Settings) if dataclasses.is_dataclass(f.default)}
    if kind is Settings or kind in map(type, sections.values()):
        for name, section in sections.items():
            near = difflib.get_close_matches(key, to_table(section), n=1)
            if near:
                return f"Did you mean '{name}.{near[0]}', which stands under [{name}]?"
    return f"Known are: {', '.join(known)}."


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value


def _converted(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise SettingsError(f"must be a table, not {value!r}.", where=where)
        return from_table(typing.cast(type, hint), value, where)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise SettingsError(f"{value!r} is not one of {', '.join(map(str, typing.get_args(hint)))}.", where=where)
        return value
    if origin is tuple:
        return _converted_tuple(typing.get_args(hint), value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
        return _converted(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise SettingsError(f"must be {hint.__name__}, not {value!r}.", where=where)
    return value


def _converted_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise SettingsError(f"must be a list, not {value!r}.", where=where)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_converted(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if len(value) != len(arguments):
        raise SettingsError(f"must have {len(arguments)} entries, not {len(value)}.", where=where)
    return tuple(_converted(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(arguments, value, strict=True)))


def _check_range(value: Any, limits: Mapping[str, Any], where: str) -> None:
    low, high = limits.get("low"), limits.get("high")
    if isinstance(value, tuple):
        if len(value) < limits.get("least", 0):
            raise SettingsError(f"has {len(value)} values.", where=where, cure=f"Give at least {limits['least']}.")
        for item in value:
            _check_range(item, limits, where)
    elif not ((low is None or value >= low) and (high is None or value <= high)):  # so that NaN is refused too
        raise SettingsError(f"{value} is out of range [{'-∞' if low is None else low}, {'∞' if high is None else high}].", where=where)
