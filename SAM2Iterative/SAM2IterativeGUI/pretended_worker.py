"""A worker that pretends: it answers like the real one, at once and without torch, and its labels are simple thresholds.

For the self test within Slicer, where nothing may be installed: tables, plots, review and export get something to show.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage

from SAM2IterativeLib import __version__
from SAM2IterativeLib.messages import (
    CorrectionPropagated,
    EstimateNeeds,
    Message,
    Needs,
    PropagateCorrection,
    Ready,
    RoundFinished,
    RunFinished,
    RunStarted,
    Shutdown,
    StageFinished,
    StageStarted,
    StartRun,
    StopRun,
    WorkerEnded,
)
from SAM2IterativeLib.project import Case, Project
from SAM2IterativeLib.review import PROPOSAL
from SAM2IterativeLib.round_files import COARSE, PROPAGATED, UNCERTAINTY
from SAM2IterativeLib.volumes import LabelMap, Volume, read_label_map, write_label_map, write_volume

DEVICE = "pretended device"


class PretendedClient:
    """Stands in for ``worker_client.WorkerClient``: one unit of work each time it is polled."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self.running = False
        self.unresponsive = False
        self._messages: deque[Message] = deque()
        self._job: Iterator[Message] | None = None
        self._stopping = False

    @property
    def busy(self) -> bool:
        """Whether a job goes on."""
        return self._job is not None

    def start(self) -> None:
        """Be ready."""
        self.running = True
        self._messages.append(Ready(__version__, DEVICE, "Nothing is computed."))

    def send(self, request: Message) -> None:
        """Take a request."""
        if isinstance(request, StartRun):
            self._stopping, self._job = False, self._run(request)
        elif isinstance(request, PropagateCorrection):
            self._job = self._propagate(request)
        elif isinstance(request, EstimateNeeds):
            self._job = iter([Needs(DEVICE, None, None, 10**9, 10**8, 10**11, 60.0)])
        elif isinstance(request, StopRun):
            self._stopping = True
        elif isinstance(request, Shutdown):
            self.end()

    def poll(self) -> list[Message]:
        """What there is to say, with one more unit of work."""
        if self._job is not None:
            message = next(self._job, None)
            if message is None:
                self._job = None
            else:
                self._messages.append(message)
                if isinstance(message, (Needs, CorrectionPropagated, RunFinished)):
                    self._job = None
        found = list(self._messages)
        self._messages.clear()
        return found

    def stop_run(self) -> None:
        """Stop before the next unit."""
        self._stopping = True

    def end(self, polite: float = 0.0, terminate: float = 0.0) -> bool:
        """Go."""
        if self.running:
            self.running, self._job = False, None
            self._messages.append(WorkerEnded(True, "The worker has ended."))
        return True

    def _run(self, request: StartRun) -> Iterator[Message]:
        with Project.open(request.project, shared_with=os.getpid()) as project:
            cases = project.cases("unlabelled", usable=True)
            first = max(project.journal.rounds(), default=-1) + 1
            last = first + request.rounds - (0 if first == 0 else 1)
            project.journal.note("run", str(last))
            yield RunStarted(last - first + 1, len(cases), DEVICE, first, stages=("pseudo_label",))
            for round in range(first, last + 1):
                for done, case in enumerate(cases):
                    if self._stopping:
                        yield RunFinished(round, False, "stopped; the same command continues.")
                        return
                    if not project.journal.unit_done(round, "pseudo_label", case.id):
                        yield StageStarted(round, "pseudo_label", case.id, done, len(cases))
                        label_case(project, case, round)
                        yield StageFinished(round, "pseudo_label", case.id, 0.1)
                numbers = {"cases": len(cases), "uncertainty": 0.4 / (round + 1), "agreement": 0.7, "seconds": 1.0, "verdict": "pretended."}
                numbers["stability"] = None if round == 0 else 0.9
                project.journal.finish_round(round, numbers)
                yield RoundFinished(round, numbers)
            project.journal.note("run", "ended")
        yield RunFinished(last + 1, False, "pretended.")

    def _propagate(self, request: PropagateCorrection) -> Iterator[Message]:
        with Project.open(request.project, shared_with=os.getpid()) as project:
            corrected = read_label_map(project.folder / request.label_map)
            name = f"cache/corrections/{request.case}/pretended.nrrd"
            write_label_map(project.folder / name, corrected)
        yield CorrectionPropagated(request.case, name, 0.1, request.slices)


def label_case(project: Project, case: Case, round: int) -> None:
    """Write what a round leaves: the brightest tenth becomes the first label, its border is uncertain."""
    image = project.read_case_image(case)
    smooth = ndimage.gaussian_filter(image.array.astype(np.float32), (0, 1, 1))
    mask = smooth > np.quantile(smooth, 0.9)
    grown = ndimage.binary_dilation(mask, iterations=2)
    doubt = np.where(grown & ~mask, 0.8, np.where(mask, 0.2, 0.0)).astype(np.float32)
    files = []
    for name, found in ((COARSE, mask), (PROPAGATED, grown), (PROPOSAL, mask)):
        files.append(project.artefact(round, case, name))
        write_label_map(files[-1], LabelMap((found * project.values[0]).astype(np.uint8), image.geometry))
    files.append(project.artefact(round, case, UNCERTAINTY))
    write_volume(files[-1], Volume(doubt, image.geometry))
    numbers = {"uncertainty": float(doubt[doubt > 0].mean()) if doubt.any() else 0.0}
    project.journal.finish_unit(round, "pseudo_label", case.id, files, numbers=numbers)
