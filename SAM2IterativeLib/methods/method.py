"""What every method is: how it trains a round, how it labels a case, stage by stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ..dedicated.plan import Plan
from ..device import Device
from ..errors import Stopped
from ..messages import Reporter
from ..project import Case, Project
from ..review import Review
from ..settings import NetworkKind, Settings

SUPPORT_CASES = 16
"""Labelled cases that SAM2 is shown at most, as memories and for adapting; more add cost, hardly anything new. The last one judges."""
FractionDone = Callable[[float, str], None]
"""Told how far the unit at hand is (0..1), and in a few words what it does."""


@dataclass
class RunContext:
    """What a method works with; one per run.

    Attributes:
        report: where messages go.
        stop_asked: whether a person asked to stop.
    """

    project: Project
    plan: Plan
    device: Device
    report: Reporter
    stop_asked: Callable[[], bool] = lambda: False

    @property
    def settings(self) -> Settings:
        """The project's settings."""
        return self.project.settings

    @property
    def class_count(self) -> int:
        """C."""
        return len(self.project.values)

    @property
    def review(self) -> Review:
        """What people decided."""
        return Review(self.project)

    def check_stop(self) -> None:
        """Raise ``Stopped`` at a safe point if a person asked for it."""
        if self.stop_asked():
            raise Stopped


@dataclass(frozen=True)
class Outcome:
    """What one stage made of one case: files that are complete on disk, and numbers for the journal."""

    files: Sequence[Path]
    numbers: Mapping[str, float | None] = field(default_factory=dict)


class Method(ABC):
    """One published system. Stages are run in order, each over all cases, so a stage's model is loaded once a round.

    Every stage may be repeated: it depends only on files of earlier stages and rounds, on the settings and on what people decided until
    then, and makes the same files again from these.
    """

    stages: ClassVar[tuple[str, ...]]
    """The stages that every unlabelled and validation case passes in a round, after the training."""
    scored: ClassVar[Mapping[str, str]]
    """Label maps that a round leaves per case, for evaluation and report: name in tables -> file name."""
    network: ClassVar[NetworkKind] = "auto"
    """The dedicated network where the settings leave it open; "auto": as the plan sees fit."""
    adapts: ClassVar[bool] = True
    """Whether compact SAM2 weights are adapted to the labelled cases before round 0."""
    looks: ClassVar[int] = 2
    """How often SAM2 looks at each slice for each class in a round, about; for estimates."""
    has_history: ClassVar[bool] = True
    """Whether round 0 predicts with every snapshot; for estimates."""

    def __init__(self, run: RunContext) -> None:
        self.run = run

    def require_ready(self) -> None:
        """Raise what would end the rounds later, before anything is computed: weights that are not there."""
        return None

    @abstractmethod
    def train(self, round: int, progress: FractionDone) -> Sequence[Path]:
        """Train the round's network; returns its files."""

    @abstractmethod
    def begin_stage(self, round: int, stage: str) -> None:
        """Get ready for a stage over many cases: load models, gather what all cases share."""

    @abstractmethod
    def process(self, round: int, stage: str, case: Case) -> Outcome:
        """Do one stage of one case."""

    @abstractmethod
    def no_longer_needed(self, round: int) -> Sequence[str]:
        """Glob patterns, below ``rounds/<n>/<case>/``, of a finished round's files that no later round will read."""

    def end_stage(self) -> None:
        """Let go of what ``begin_stage`` loaded."""
        return None
