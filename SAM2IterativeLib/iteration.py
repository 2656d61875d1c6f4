"""Rounds until nothing changes: train, then label every case stage by stage; stop at any moment, continue with the same command.

The unit of work is (round, stage, case). It is done when the journal has its row and its files still have the content they had then; it is
redone or kept, never half. A case that cannot be used is set aside and named; the others go on.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from .dedicated.cases import require_channels
from .dedicated.fingerprint import Fingerprint, distances_to_labelled, fingerprint_of
from .dedicated.plan import Plan, read_plan, write_plan
from .dedicated.planning import make_plan, overruled
from .dedicated.resampling import planned_size
from .device import Device
from .errors import DataError, ProjectError, ResourceError, SAM2IterativeError, SettingsError, Stopped
from .files import require_space
from .guidance.convergence import Verdict, judge
from .learning import TRAINING, validation_remarks
from .messages import (
    CaseSetAside,
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
from .pretraining.adaptation import adapt_before_rounds, adapts_before_rounds
from .project import Case, Project
from .review import Review
from .round_numbers import round_numbers

Result = TypeVar("Result")

ADAPTATION = "adaptation"
_RUN, _ENDED = "run", "ended"
"""Journal events of this kind: the number of a run's last round when it begins, this word when it ends by itself."""
_LEARNED = "learned"
"""Events of this kind, one a training: what it knew of, see ``_known``."""
STRANGE = 0.25
"""Contrast distance to the nearest labelled case (see ``fingerprint``) beyond which a case is named. Of 66 left atria (4 labelled) two lie
beyond it, 0.50 and 0.38; a network of those four labels found next to nothing in these (Dice 0.03), in the others 0.83."""
_NAMED = 5
_FULL_MEMORY = "DefaultCPUAllocator"
"""In the RuntimeError by which torch says that the computer's memory is full."""
SPACE_PER_VOXEL = 12
"""Bytes of artefacts per voxel and round: a generous bound, probabilities compress well."""


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
        self._pace = _Pace()

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
        self._require_ready()
        plan = self.plan()
        self._require_fitting(plan)
        run = RunContext(self.project, plan, self.device, self.report, self.stop_asked)
        method = load_method(self.project.settings.method)(run)
        method.require_ready()
        finished = self.project.journal.rounds()
        first = max(finished, default=-1) + 1
        last = self._target(first, rounds)
        steps = run.plan.first_steps, run.plan.round_steps
        self.report(RunStarted(last - first + 1, len(self._cases_to_label()), self.device.sentence, first, *steps))
        for sentence in overruled(self.project.settings.dedicated, run.plan):
            self.report(Warned(sentence))
        for case, sentence in validation_remarks(self.project):
            self.report(Warned(f"{case}: {sentence}"))
        self._pace.start(rounds_left=last - first + 1)
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
        if not self.project.plan_path.is_file():
            fingerprints = self._fingerprints()
            plan = self._planned(fingerprints)
            write_plan(self.project.plan_path, plan)
            if plan.normalisation.scheme == "zscore":
                self._name_strangers(fingerprints)
        return read_plan(self.project.plan_path, classes=len(self.project.values))

    def planned(self) -> Plan:
        """The plan that the data and the settings of now ask for; no file is written."""
        return self._planned(self._fingerprints())

    def _fingerprints(self) -> dict[str, Fingerprint]:
        """Of every case that the plan is made for, by its id."""
        fingerprints: dict[str, Fingerprint] = {}
        for case in self._usable("labelled", "unlabelled"):
            with self._setting_aside(case):
                volume = self.project.read_case_image(case)
                fingerprints[case.id] = fingerprint_of(volume.array, volume.geometry, self._whole_labels(case))
        return fingerprints

    def _whole_labels(self, case: Case) -> np.ndarray | None:
        """The class indices of a case that is labelled, or that a reviewer decided as a whole."""
        if case.role == "labelled":
            return self.project.read_case_label(case).classes(self.project.values)
        said = Review(self.project).training_labels(case)
        return said.labels.classes(self.project.values) if said is not None and said.complete else None

    def _planned(self, fingerprints: Mapping[str, Fingerprint]) -> Plan:
        settings, values = self.project.settings, list(fingerprints.values())
        return make_plan(values, len(self.project.values), settings.dedicated, self.device, self.project.label_names)

    def _name_strangers(self, fingerprints: Mapping[str, Fingerprint]) -> None:
        """Say which cases look unlike every labelled one: what is learned from those may fail there."""
        distances = dict(zip(fingerprints, distances_to_labelled(list(fingerprints.values())), strict=True))
        far = [name for name, seen in fingerprints.items() if seen.pieces is None and distances[name] > STRANGE]
        far.sort(key=lambda name: -distances[name])
        if far:
            named = ", ".join(far[:_NAMED]) + (f" and {len(far) - _NAMED} more" if len(far) > _NAMED else "")
            cure = "Look at the proposals there first; one of them with a label map helps most."
            self.report(Warned(f"The contrast of {named} is unlike that of every labelled case, so labels may fail there. {cure}"))

    def _require_ready(self) -> None:
        if not self.project.values:
            raise DataError("the project has no labels.", cure="Import a labelled case, or name the labels in project.toml.")
        self._take_back()
        voxels, channels = 0, read_plan(self.project.plan_path).channels if self.project.plan_path.is_file() else None
        review = Review(self.project)
        for case in (*self._usable("labelled"), *self._usable("unlabelled", "validation")):
            with self._setting_aside(case):
                self.project.require_whole(case)
                grid, its_channels = self.project.read_case_header(case)
                channels = channels or its_channels  # the first labelled case's, where no plan knows better
                require_channels(its_channels, channels, case.id)
                review.require_whole(case)
                voxels += math.prod(grid.size)
        for case in self._usable("labelled", "validation"):
            with self._setting_aside(case):
                self._require_known_labels(case)
        self._require_cases()
        require_space(self.project.folder, SPACE_PER_VOXEL * voxels)

    def _require_cases(self) -> None:
        if not Review(self.project).has_labels():
            cure = "Import at least one case with its label map, or correct one in the review as a whole."
            raise DataError("no labelled case is usable.", cure=cure)
        if not self._cases_to_label():
            raise DataError("there is no case to label.", cure="Import images without label maps.")

    def _require_fitting(self, plan: Plan) -> None:
        """Set aside what no memory would hold on the plan's grid."""
        for case in self._usable("labelled", "unlabelled", "validation"):
            with self._setting_aside(case):
                planned_size(self.project.read_case_header(case)[0], plan)
        self._require_cases()

    def _take_back(self) -> None:
        """Use again what was set aside because a file was missing or changed, and is whole now; what is still wrong shows itself again."""
        for case in self.project.cases("labelled", "unlabelled", "validation"):
            if case.set_aside:
                try:
                    self.project.require_whole(case)
                except (DataError, ProjectError):
                    continue
                self.project.set_aside(case, "")

    def _require_known_labels(self, case: Case) -> None:
        """A label map of unknown values is no fault of the case: the labels were edited, and its voxels must not become background."""
        try:
            self.project.read_case_label(case).classes(self.project.values)
        except DataError as error:
            cure = "In project.toml give the labels the values that the label maps hold."
            raise SettingsError(f"{case.id}: {error.what}", where="project.toml", cure=cure) from error

    def _usable(self, *roles: Any) -> tuple[Case, ...]:
        return self.project.cases(*roles, usable=True)

    def _cases_to_label(self) -> tuple[Case, ...]:
        """Unlabelled cases, and validation cases, whose label maps the rounds never see."""
        return self._usable("unlabelled", "validation")

    # One round

    def _one_round(self, method: Method, round: int) -> None:
        if round == 0 and adapts_before_rounds(self.project):
            self._unit(round, ADAPTATION, None, 0, 1, self._adapted)
        self._unit(round, TRAINING, None, 0, 1, partial(self._trained, method, round))
        # What joins from now on waits for the next round: it would lack what the stages before made.
        taking_part = frozenset(case.id for case in self._cases_to_label())
        for stage in method.stages:
            self._stage(method, round, stage, taking_part)
        cases = [case for case in self._cases_to_label() if case.id in taking_part]
        numbers = round_numbers(method.run, round, cases, method.scored)
        numbers["seconds"] = sum(unit.seconds for unit in self.project.journal.units(round))
        verdict = self._judged(round, numbers)
        numbers |= {"verdict": verdict.reason, "converged": verdict.converged}
        self.project.journal.finish_round(round, numbers)
        self.report(RoundFinished(round, numbers))
        self._pace.round_finished()
        self._clear(method, round - 1)

    def _adapted(self) -> tuple[list[Path], dict[str, float | None]]:
        """SAM2 adapted to the labelled cases, where that helps."""
        tell = self._fraction(0, ADAPTATION)
        result = adapt_before_rounds(self.project, self.device, tell, self.stop_asked)
        if result is not None:
            tell(1.0, result.sentence)
        return [], {}

    def _trained(self, method: Method, round: int) -> tuple[list[Path], dict[str, float | None]]:
        self.project.journal.note(_LEARNED, self._known())
        return list(method.train(round, self._fraction(round, TRAINING))), {}

    def _stage(self, method: Method, round: int, stage: str, taking_part: Collection[str]) -> None:
        cases = [case for case in self._cases_to_label() if case.id in taking_part]
        waiting = [case for case in cases if not self.project.journal.unit_done(round, stage, case.id)]
        if not waiting:
            return
        method.begin_stage(round, stage)
        try:
            for done, case in enumerate(waiting, len(cases) - len(waiting)):
                with self._setting_aside(case):
                    self._unit(round, stage, case, done, len(cases), partial(self._processed, method, round, stage, case))
                self.report(Progress(round, stage, (done + 1) / len(cases), self._pace.seconds_left()))
        finally:
            method.end_stage()
        if not any(case.id in taking_part for case in self._cases_to_label()):
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

    def _fraction(self, round: int, stage: str) -> Callable[[float, str], None]:
        def tell(fraction: float, text: str) -> None:
            self.report(Progress(round, stage, fraction, self._pace.seconds_left(), text))

        return tell

    @contextmanager
    def _setting_aside(self, case: Case) -> Iterator[None]:
        """Name and leave out a case whose data cannot be used; other errors are faults of the run and go up."""
        try:
            yield
        except DataError as error:
            reason = error.sentence
        except ProjectError as error:
            if error.where != case.id:
                raise
            reason = error.sentence
        else:
            return
        self.project.set_aside(case, reason)
        self.report(CaseSetAside(case.id, reason))

    def _clear(self, method: Method, round: int) -> None:
        """Delete what no later round reads, so that the folder does not grow without bound."""
        if round < 0:
            return
        for case in self.project.cases():
            for pattern in method.no_longer_needed(round):
                for path in sorted(self.project.artefact(round, case, ".").glob(pattern)):
                    path.unlink(missing_ok=True)


class _Pace:
    """How long the rest will take, from what is done: each round as long as the last one."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._rounds_left = 0
        self._round_seconds: list[float] = []

    def start(self, rounds_left: int) -> None:
        self._began = time.monotonic()
        self._rounds_left = rounds_left

    def round_finished(self) -> None:
        now = time.monotonic()
        self._round_seconds.append(now - self._began - sum(self._round_seconds))
        self._rounds_left -= 1

    def seconds_left(self) -> float | None:
        """None until a round is done."""
        if not self._round_seconds:
            return None
        since = time.monotonic() - self._began - sum(self._round_seconds)
        return max(0.0, self._rounds_left * self._round_seconds[-1] - since)


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
    except torch.OutOfMemoryError:
        cure = "Close other programs that use it, lower batch or patch in plan.toml, or set device = 'cpu'."
        failure = ResourceError("the memory of the device does not suffice.", cure=cure)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and _FULL_MEMORY not in str(error):
            raise
        failure = ResourceError("the memory of this computer does not suffice.", cure="Close other programs, or use fewer cases.")
    report(RunFailed(failure.sentence, type(failure).__name__))
    return None
