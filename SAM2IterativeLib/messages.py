"""What a run tells its watchers, and what they ask of it: one JSON object a line, typed and versioned.

The same lines are printed by ``run --events``, spoken by the worker over its pipes, and turned into progress by the Slicer
module.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .errors import SAM2IterativeError

PROTOCOL = 1


class MessageError(SAM2IterativeError):
    """A line is no message of this protocol."""


@dataclass(frozen=True)
class Message:
    """Base of all messages; the class name is the ``type`` on the wire."""

    kinds: ClassVar[dict[str, type[Message]]] = {}

    def __init_subclass__(cls) -> None:
        Message.kinds[cls.__name__] = cls


Reporter = Callable[[Message], None]
"""Where a run sends its messages."""


@dataclass(frozen=True)
class Ready(Message):
    """The worker is up: its library version, the device it would use, and why that one."""

    version: str
    device: str
    reason: str = ""


@dataclass(frozen=True)
class RunStarted(Message):
    """``cases`` to label, ``device`` in words, ``rounds`` from ``first`` on (0 is the training on the labelled cases).

    ``first_steps`` and ``round_steps``: training steps of round 0 and of each later round, as planned. ``stages``: what a round passes,
    in this order; "adaptation" stands before them where round 0 begins with it, and is passed only there.
    """

    rounds: int
    cases: int
    device: str
    first: int = 0
    first_steps: int = 0
    round_steps: int = 0
    stages: tuple[str, ...] = ()

    @property
    def last(self) -> int:
        """The last round that is asked for."""
        return self.first + self.rounds - 1


@dataclass(frozen=True)
class StageStarted(Message):
    """A unit of work begins; ``case`` is None where a stage works on all. ``done`` of ``total`` units were finished before."""

    round: int
    stage: str
    case: str | None
    done: int
    total: int


@dataclass(frozen=True)
class StageFinished(Message):
    """A unit of work is in the journal."""

    round: int
    stage: str
    case: str | None
    seconds: float


@dataclass(frozen=True)
class Progress(Message):
    """``fraction`` (0-1) of a stage; ``seconds_left`` of the whole run, None where unknown."""

    round: int
    stage: str
    fraction: float
    seconds_left: float | None = None
    text: str = ""


@dataclass(frozen=True)
class RoundFinished(Message):
    """A round's numbers, as they stand in the journal."""

    round: int
    numbers: dict[str, Any]


@dataclass(frozen=True)
class CaseSetAside(Message):
    """A case cannot be used; the others go on."""

    case: str
    sentence: str


@dataclass(frozen=True)
class Warned(Message):
    """Something a person should know, and nothing stopped."""

    sentence: str


@dataclass(frozen=True)
class RunFinished(Message):
    """The run ended as it should: converged, all rounds done, or stopped by a person (``reason``).

    A prediction that was stopped ends so too; ``request`` is the type of what was asked for ("StartRun", ...).
    """

    rounds: int
    converged: bool
    reason: str
    request: str = ""


@dataclass(frozen=True)
class RunFailed(Message):
    """What was asked for ended with an error.

    ``kind`` is the error's class name, ``details`` are for the log, ``request`` is the type of the request ("StartRun", ...).
    """

    sentence: str
    kind: str
    details: str = ""
    request: str = ""


@dataclass(frozen=True)
class Refused(Message):
    """The worker did not begin what was asked for, and why; what is under way goes on."""

    request: str
    sentence: str


@dataclass(frozen=True)
class CorrectionPropagated(Message):
    """Answer to ``PropagateCorrection``: the proposed label map, a path inside the project folder.

    ``slices`` are those that changed, counted as in the request.
    """

    case: str
    label_map: str
    seconds: float
    slices: tuple[int, ...] = ()


@dataclass(frozen=True)
class Needs(Message):
    """Answer to ``EstimateNeeds``: what a run would take, and what there is. Memory and disk in bytes; None: unknown.

    ``memory`` is the run's peak on the device, ``seconds`` the time of the rounds asked for; ``remarks`` are sentences for a person.
    """

    device: str
    device_memory: int | None
    device_memory_free: int | None
    memory: int | None
    disk: int
    disk_free: int
    seconds: float | None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class FolderPredicted(Message):
    """Answer to ``PredictFolder``: how many label maps were written, and the files left out with the sentence why."""

    written: int
    set_aside: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Log(Message):
    """A line for the log."""

    text: str


@dataclass(frozen=True)
class Heartbeat(Message):
    """The worker lives; seconds since it started."""

    seconds: float


@dataclass(frozen=True)
class WorkerEnded(Message):
    """The worker's process is gone. Told by the client at its end of the pipe, never sent over it.

    ``expected``: it was asked to go. ``details`` are the last lines it wrote to its standard error.
    """

    expected: bool
    sentence: str
    details: str = ""


@dataclass(frozen=True)
class Hello(Message):
    """First request of the GUI; ``process`` is its process id, on whose behalf the worker may write to a locked project."""

    version: str
    process: int


@dataclass(frozen=True)
class StartRun(Message):
    """Run ``rounds`` more rounds of a project."""

    project: str
    rounds: int
    until_converged: bool = False


@dataclass(frozen=True)
class StopRun(Message):
    """Stop at the next safe point."""


@dataclass(frozen=True)
class PropagateCorrection(Message):
    """Carry a correction from ``slices`` to the rest of a case.

    ``label_map`` is the name, below the project folder, of the map that holds the corrected slices; ``values`` are the label values to
    carry, empty for all. ``before`` names the map as it was before the correction: with it only what the person changed is carried.
    Slices count along array axis ``axis`` (0: k). ``reach``: slices to go from a corrected one at most; 0: as far as it takes.
    """

    project: str
    case: str
    label_map: str
    slices: tuple[int, ...]
    values: tuple[int, ...] = field(default=())
    before: str = ""
    axis: int = 0
    reach: int = 0


@dataclass(frozen=True)
class EstimateNeeds(Message):
    """Say what ``rounds`` further rounds of a project would take."""

    project: str
    rounds: int


@dataclass(frozen=True)
class PredictFolder(Message):
    """Label the images of a folder with the project's trained network."""

    project: str
    images: str
    output: str


@dataclass(frozen=True)
class Shutdown(Message):
    """Finish the unit at hand and exit."""


def to_line(message: Message) -> str:
    """One JSON line without its line feed; numbers that are NaN or infinite become null, so that every reader takes it."""
    table = {"protocol": PROTOCOL, "type": type(message).__name__, **dataclasses.asdict(message)}
    return json.dumps(_plain(table), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def from_line(line: str) -> Message:
    """The reverse of ``to_line``, strictly.

    Raises:
        MessageError: no JSON object, another protocol version, an unknown type, a missing or unknown field, a wrong type.
    """
    try:
        table = json.loads(line)
    except ValueError as error:
        raise MessageError(f"not a message: {line[:200]!r}.") from error
    if not isinstance(table, dict) or table.pop("protocol", None) != PROTOCOL:
        raise MessageError(
            f"not a message of protocol {PROTOCOL}: {line[:200]!r}.", cure="Use the same version of SAM2Iterative on both sides."
        )
    kind = Message.kinds.get(str(table.pop("type", None)))
    if kind is None:
        raise MessageError(f"unknown type of message: {line[:200]!r}.", cure="Use the same version of SAM2Iterative on both sides.")
    return _built(kind, table)


def _built(kind: type[Message], table: Mapping[str, Any]) -> Message:
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = set(table) - set(fields)
    missing = {name for name, f in fields.items() if f.default is dataclasses.MISSING} - set(table)
    if unknown or missing:
        raise MessageError(f"{kind.__name__}: unknown {sorted(unknown)}, missing {sorted(missing)}.")
    return kind(**{name: _converted(hints[name], value, f"{kind.__name__}.{name}") for name, value in table.items()})


def _converted(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _converted(arguments[0], value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_converted(arguments[0], v, where) for v in value)
    if origin is float and (isinstance(value, int) and not isinstance(value, bool)):
        return float(value)
    if not isinstance(value, origin) or (origin is int and isinstance(value, bool)):
        raise MessageError(f"must be {origin.__name__}, not {value!r}.", where=where)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if hasattr(value, "item") and callable(value.item):  # a numpy scalar
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
