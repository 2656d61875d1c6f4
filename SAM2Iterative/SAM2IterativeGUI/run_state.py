"""How far a project's rounds are, read from its journal: the same whether they go on, wait, or were cut off yesterday."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from slicer.i18n import tr as _

from SAM2IterativeLib.errors import SAM2IterativeError
from SAM2IterativeLib.messages import (
    CaseSetAside,
    Log,
    Message,
    RoundFinished,
    RunFailed,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    Warned,
    WorkerEnded,
    from_line,
)
from SAM2IterativeLib.project import Project

_LOG_LINES = 400


@dataclass(frozen=True)
class RunState:
    """Where the rounds stand.

    Attributes:
        finished: the last finished round; None: not even round 0.
        target: the last round that a started run goes to; None where no run is unfinished.
        steps: units of the unfinished round that are done.
        verdict: what the last round said about convergence.
    """

    finished: int | None
    target: int | None
    steps: int
    verdict: str

    @property
    def unfinished(self) -> bool:
        """Whether a run was begun and did not come to its end."""
        return self.target is not None

    @property
    def sentence(self) -> str:
        """The state for a person, while nothing runs."""
        if self.target is not None:
            now = 0 if self.finished is None else self.finished + 1
            if not self.steps:
                place = _("the first training") if now == 0 else _("round {now}").format(now=now)
                return _("Waiting before {place}, {target} rounds in all. 'Continue' goes on there.").format(
                    place=place, target=self.target
                )
            text = _("Waiting in round {now} of {target}, of which {steps} steps are done. 'Continue' goes on there.")
            return text.format(now=now, target=self.target, steps=self.steps)
        if self.finished is None:
            return _("No round was done yet.")
        text = _("The first training is done.") if self.finished == 0 else _("Round {finished} is done.").format(finished=self.finished)
        return f"{text} {self.verdict[:1].upper()}{self.verdict[1:]}"


def run_state(project: Project) -> RunState:
    """Read it from the journal."""
    rounds = project.journal.rounds()
    finished = max(rounds, default=None)
    now = 0 if finished is None else finished + 1
    events = project.journal.events("run")
    target = int(events[-1].text) if events and events[-1].text.isdigit() and int(events[-1].text) >= now else None
    steps = len(project.journal.units(now)) if target is not None else 0
    verdict = str(rounds[finished].get("verdict", "")) if finished is not None else ""
    return RunState(finished, target, steps, verdict)


def stage_text(stage: str) -> str:
    """A stage's name for a person."""
    return {
        "adaptation": _("adapting SAM2 to your labels"),
        "training": _("training the network"),
        "coarse": _("network marks the cases"),
        "propagation": _("SAM2 labels the cases"),
        "pseudo_label": _("new labels are made of both"),
    }.get(stage, stage.replace("_", " "))


def log_text(message: Message) -> str:
    """A message as a line of the log; "" for what the log leaves out."""
    if isinstance(message, RunStarted):
        text = _("Run of rounds {first} to {last} on {cases} cases. {device}")
        return text.format(first=message.first, last=message.last, cases=message.cases, device=message.device)
    if isinstance(message, StageStarted) and message.case is None:
        return _("Round {round}: {stage}").format(round=message.round, stage=stage_text(message.stage))
    if isinstance(message, StageFinished):
        what = f"{stage_text(message.stage)}, {message.case}" if message.case else stage_text(message.stage)
        return _("Round {round}: {what}: done in {seconds} s").format(round=message.round, what=what, seconds=f"{message.seconds:.1f}")
    if isinstance(message, RoundFinished):
        return _("Round {round} is done; {verdict}").format(round=message.round, verdict=message.numbers.get("verdict", ""))
    if isinstance(message, RunFinished):
        return _("The run ended: {reason}").format(reason=message.reason)
    if isinstance(message, CaseSetAside):
        return _("Case {case} was set aside: {sentence}").format(case=message.case, sentence=message.sentence)
    if isinstance(message, (Warned, RunFailed, WorkerEnded)):
        details = getattr(message, "details", "")
        return "\n".join(filter(None, (message.sentence, details)))
    return message.text if isinstance(message, Log) else ""


def old_log(project: Project) -> list[str]:
    """The last lines of the project's log for a person; empty where there is none."""
    if not project.log_path.is_file():
        return []
    with open(project.log_path, encoding="utf-8", errors="replace") as file:
        lines = deque(file, maxlen=_LOG_LINES)
    return [text for line in lines if (text := _old_line(line.strip()))]


def _old_line(line: str) -> str:
    try:
        return log_text(from_line(line))
    except SAM2IterativeError:
        return "" if _is_json(line) else line


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def dice_of(numbers: dict[str, Any], name: str = "pseudo_label") -> float | None:
    """Mean Dice of the validation cases in a round's numbers."""
    found = (numbers.get("validation") or {}).get(name) or {}
    value = found.get("dice")
    return None if value is None else float(value)
