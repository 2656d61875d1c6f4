"""Rounds until nothing changes: train, then label every case stage by stage; stop at any moment, continue with the same command.

The unit of work is (round, stage, case). It is done when the journal has its row and its files still have the content they had then; it is
redone or kept, never half. A case that cannot be used is set aside and named; the others go on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from .dedicated.plan import Plan
from .dedicated.planning import overruled
from .device import Device, full_memory, is_out_of_memory
from .errors import DataError, ResourceError, SAM2IterativeError, Stopped
from .guidance.convergence import Verdict, judge
from .learning import TRAINING, validation_remarks
from .messages import (
    Progress,
    Reporter,
    RoundFinished,
    RunFailed,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    Warned,
)
from .methods import load_method
from .methods.method import Method, RunContext
from .pace import Pace
from .preparation import Preparation, setting_aside
from .pretraining.adaptation import adapt_before_rounds, adapts_before_rounds
from .project import Case, Project
from .review import Review
from .round_method import note_method, require_method
from .round_numbers import round_numbers

Result = TypeVar("Result")

ADAPTATION = "adaptation"
_RUN, _ENDED = "run", "ended"
"""Journal events of this kind: the number of a run's last round when it begins, this word when it ends by itself."""
_LEARNED = "learned"
"""Events of this kind, one a training: what it knew of, see ``_known``."""


class Iteration:
    """The rounds of one project.

    Args:
        report: receives every message.
        stop_asked: asked at every safe point.
    """

    def __init__(
        self,
        project: Project,
        device: Device,
        report: Reporter,
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> None:
        project.require_writable()
        self.project = project
        self.device = device
        self.report = report
        self.stop_asked = stop_asked
        self.preparation = Preparation(project, device, report)
        self._pace: Pace | None = None

    def run(self, rounds: int, *, until_converged: bool = False) -> Verdict:
        """Do up to ``rounds`` further rounds; the first ever includes round 0, the training on the labelled cases alone.

        A run that was stopped, killed or failed is continued to where it was going, whatever ``rounds`` says now.

        Args:
            rounds: how many, at least 1.
            until_converged: stop earlier when the pseudo-labels stand still, and do not go past ``rounds.maximum``; but whatever stands
                still, cases and decisions that are new since the last training get their round.

        Returns:
            Whether and why the rounds may end there.

        Raises:
            Stopped: ``stop_asked`` said so; everything finished is kept.
            DataError: nothing to learn from.
            ResourceError: disk or memory does not suffice.
        """
        require_method(self.project, self.project.settings.method)
        plan = self.preparation.ready()
        run = RunContext(self.project, plan, self.device, self.report, self.stop_asked)
        method = load_method(self.project.settings.method)(run)
        method.require_ready()
        finished = self.project.journal.rounds()
        first = max(finished, default=-1) + 1
        last = self._target(first, rounds)
        steps = run.plan.first_steps, run.plan.round_steps
        stages = (TRAINING, *method.stages)
        passed = (ADAPTATION, *stages) if first == 0 and adapts_before_rounds(self.project) else stages
        self.report(RunStarted(last - first + 1, len(self.preparation.cases_to_label()), self.device.sentence, first, *steps, passed))
        for sentence in overruled(self.project.settings.dedicated, run.plan):
            self.report(Warned(sentence))
        wished = self.project.settings.dedicated.network
        if method.network not in ("auto", run.plan.network) and wished == "auto":
            cure = "To have it, remove plan.toml before round 0, or begin a new project."
            name = self.project.settings.method
            self.report(Warned(f"{name} has a {method.network}, but plan.toml was made for a {run.plan.network}, which counts. {cure}"))
        for case, sentence in validation_remarks(self.project):
            self.report(Warned(f"{case}: {sentence}"))
        self._pace = Pace(self.project.journal, stages, lambda round: steps[min(round, 1)], last)
        verdict, news = self.verdict(), self._has_news()
        done = first - 1
        self._clear(method, done - 1)  # unless a kill came between the end of a round and its clearing
        for round in range(first, last + 1):
            if until_converged and round > 0 and verdict.finished and not news:
                break
            self._one_round(method, round)
            done, verdict, news = round, self.verdict(), False
        self.project.journal.note(_RUN, _ENDED)
        reason = verdict.reason if verdict.finished and until_converged else f"round {done} is done; {verdict.reason}"
        self.report(RunFinished(done + 1, verdict.converged, reason))
        return verdict

    def _has_news(self) -> bool:
        """Whether there are cases, label maps or decisions that the last training did not know of."""
        trainings = self.project.journal.events(_LEARNED)
        return bool(trainings) and trainings[-1].text != self._known()

    def _known(self) -> str:
        """A fingerprint of the cases, their roles and label maps, and of the standing decisions."""
        cases = [(case.id, case.role, case.label_sha256) for case in self.project.cases()]
        decisions = [decision.number for decision in Review(self.project).decisions()]
        return hashlib.sha256(json.dumps([cases, decisions]).encode()).hexdigest()

    def _target(self, first: int, rounds: int) -> int:
        """The last round of this run; that of an unfinished run where there is one."""
        events = self.project.journal.events(_RUN)
        if events and events[-1].text != _ENDED and int(events[-1].text) >= first:
            return int(events[-1].text)
        last = first + rounds - (0 if first == 0 else 1)
        self.project.journal.note(_RUN, str(last))
        return last

    def verdict(self) -> Verdict:
        """Whether the finished rounds have converged (method (j))."""
        rounds = self.project.journal.rounds()
        return self._judged(max(rounds, default=0), rounds.get(max(rounds, default=0), {}))

    def _judged(self, round: int, numbers: Mapping[str, Any]) -> Verdict:
        """The verdict after ``round``, whose numbers need not be in the journal yet."""
        if numbers.get("cases") and numbers.get("open_cases") == 0:
            return Verdict(True, True, "people have decided on every case.")
        rounds = {**self.project.journal.rounds(), round: numbers}
        stability = [rounds[n]["stability"] for n in sorted(rounds) if n <= round and rounds[n].get("stability") is not None]
        return judge(stability, round, self.project.settings.rounds)

    def plan(self) -> Plan:
        """The plan of ``plan.toml``, made from the data if there is none."""
        return self.preparation.plan()

    # One round

    def _one_round(self, method: Method, round: int) -> None:
        note_method(self.project, round)
        if round == 0 and adapts_before_rounds(self.project):
            self._unit(round, ADAPTATION, None, 0, 1, self._adapted)
        self._unit(round, TRAINING, None, 0, 1, partial(self._trained, method, round))
        # What joins from now on waits for the next round: it would lack what the stages before made.
        taking_part = frozenset(case.id for case in self.preparation.cases_to_label())
        for stage in method.stages:
            self._stage(method, round, stage, taking_part)
        cases = [case for case in self.preparation.cases_to_label() if case.id in taking_part]
        numbers = round_numbers(method.run, round, cases, method.scored)
        numbers["seconds"] = sum(unit.seconds for unit in self.project.journal.units(round))
        verdict = self._judged(round, numbers)
        numbers |= {"verdict": verdict.reason, "converged": verdict.converged}
        self.project.journal.finish_round(round, numbers)
        self.report(RoundFinished(round, numbers))
        self._clear(method, round - 1)

    def _adapted(self) -> tuple[list[Path], dict[str, float | None]]:
        """SAM2 adapted to the labelled cases, where that helps."""
        tell = partial(self._tell, 0, ADAPTATION)
        result = adapt_before_rounds(self.project, self.device, tell, self.stop_asked)
        if result is not None:
            tell(1.0, result.sentence)
        return [], {}

    def _trained(self, method: Method, round: int) -> tuple[list[Path], dict[str, float | None]]:
        self.project.journal.note(_LEARNED, self._known())
        return list(method.train(round, partial(self._tell, round, TRAINING))), {}

    def _stage(self, method: Method, round: int, stage: str, taking_part: Collection[str]) -> None:
        cases = [case for case in self.preparation.cases_to_label() if case.id in taking_part]
        waiting = [case for case in cases if not self.project.journal.unit_done(round, stage, case.id)]
        if not waiting:
            return
        method.begin_stage(round, stage)
        try:
            for done, case in enumerate(waiting, len(cases) - len(waiting)):
                with setting_aside(self.project, case, self.report):
                    self._unit(round, stage, case, done, len(cases), partial(self._processed, method, round, stage, case))
                self._tell(round, stage, (done + 1) / len(cases))
        finally:
            method.end_stage()
        if not any(case.id in taking_part for case in self.preparation.cases_to_label()):
            raise DataError("no case is left to label: all were set aside.", cure="'status' says why; mend that, then run again.")

    def _processed(self, method: Method, round: int, stage: str, case: Case) -> tuple[list[Any], dict[str, float | None]]:
        outcome = method.process(round, stage, case)
        return list(outcome.files), dict(outcome.numbers)

    def _unit(self, round: int, stage: str, case: Case | None, done: int, total: int, work: Callable[[], tuple[Any, Any]]) -> None:
        """Do one unit unless the journal has it."""
        name = case.id if case else ""
        if self.project.journal.unit_done(round, stage, name):
            return
        if self.stop_asked():
            raise Stopped
        self.report(StageStarted(round, stage, case.id if case else None, done, total))
        began = time.monotonic()
        files, numbers = work()
        seconds = time.monotonic() - began
        self.project.journal.finish_unit(round, stage, name, files, seconds, numbers)
        self.report(StageFinished(round, stage, case.id if case else None, seconds))

    def _tell(self, round: int, stage: str, fraction: float, text: str = "") -> None:
        left = self._pace.seconds_left(round, stage, fraction) if self._pace else None
        self.report(Progress(round, stage, fraction, left, text))

    def _clear(self, method: Method, round: int) -> None:
        """Delete what no later round reads, so that the folder does not grow without bound."""
        if round < 0:
            return
        for case in self.project.cases():
            for pattern in method.no_longer_needed(round):
                for path in sorted(self.project.artefact(round, case, ".").glob(pattern)):
                    path.unlink(missing_ok=True)


def run_safely(action: Callable[[], Result], report: Reporter) -> Result | None:
    """Run, and turn what goes wrong into messages: a stop is no error, ours are told in their own sentence; faults go up.

    Returns:
        None where the run stopped or failed.
    """
    failure: SAM2IterativeError
    try:
        return action()
    except Stopped:
        report(RunFinished(0, False, "stopped; the same command continues."))
        return None
    except SAM2IterativeError as error:
        failure = error
    except (MemoryError, RuntimeError) as error:
        full = full_memory(error)
        lower = "lower batch or patch in plan.toml, choose smaller SAM2 weights, or set device = 'cpu'"
        cure = f"Close other programs that use it, {lower if is_out_of_memory(error) else 'or use fewer cases'}."
        failure = ResourceError(f"{full} does not suffice.", cure=cure)
    report(RunFailed(failure.sentence, type(failure).__name__))
    return None
