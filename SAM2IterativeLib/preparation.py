"""What must be sound before rounds begin, and the plan that they follow. A case that cannot be used is set aside and named."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from .dedicated.cases import require_channels
from .dedicated.fingerprint import Fingerprint, distances_to_labelled, fingerprint_of
from .dedicated.plan import Plan, read_plan, write_plan
from .dedicated.planning import make_plan
from .dedicated.resampling import planned_size
from .device import Device, full_memory, release_memory
from .errors import DataError, ProjectError, SettingsError
from .files import require_space
from .geometry import values_text
from .messages import CaseSetAside, Reporter, Warned
from .methods import load_method
from .project import Case, Project, Role
from .review import Review
from .settings import Settings

SPACE_PER_VOXEL = 12
"""Bytes of artefacts per voxel and round: a generous bound, probabilities compress well."""
SPACE_FOR_NETWORKS = 300 * 10**6
"""Bytes of a round's network, its snapshots and its unfinished training: a generous bound without a GPU."""
STRANGE = 0.25
"""Contrast distance to the nearest labelled case (see ``fingerprint``) beyond which a case is named. Of 66 left atria (4 labelled) two lie
beyond it, 0.50 and 0.38; a network of those four labels found next to nothing in these (Dice 0.03), in the others 0.83."""
_NAMED = 5


class Preparation:
    """A project on its way to the next rounds.

    Args:
        device: that the rounds will compute on; the plan depends on it.
        report: receives what a person should know.
        settings: wishes that are not the project's yet; None: the project's.
    """

    def __init__(self, project: Project, device: Device, report: Reporter, settings: Settings | None = None) -> None:
        self._project = project
        self._settings = settings
        self._device = device
        self._report = report

    def ready(self) -> Plan:
        """Check everything, plan, and give the plan.

        Raises:
            DataError: nothing to learn from, or nothing to label.
            SettingsError: label maps hold values that are no labels, or the plan is not sound.
            ResourceError: the disk does not suffice.
        """
        self._require_ready()
        plan = self.plan()
        self._require_fitting(plan)
        return plan

    def _usable(self, *roles: Role) -> tuple[Case, ...]:
        return self._project.cases(*roles, usable=True)

    def cases_to_label(self) -> tuple[Case, ...]:
        """Unlabelled cases, and validation cases, whose label maps the rounds never see."""
        return self._usable("unlabelled", "validation")

    def plan(self) -> Plan:
        """The plan of ``plan.toml``, made from the data if there is none."""
        if not self._project.plan_path.is_file():
            fingerprints = self._fingerprints()
            plan = self._planned(fingerprints)
            write_plan(self._project.plan_path, plan)
            if plan.normalisation.scheme == "zscore":
                self._name_strangers(fingerprints)
        return read_plan(self._project.plan_path, classes=len(self._project.values))

    def planned(self) -> Plan:
        """The plan of ``plan.toml``, or the one that the project would get; no file is written."""
        if self._project.plan_path.is_file():
            return read_plan(self._project.plan_path)
        return self._planned(self._fingerprints())

    def _fingerprints(self) -> dict[str, Fingerprint]:
        """Of every case that the plan is made for, by its id."""
        fingerprints: dict[str, Fingerprint] = {}
        for case in self._usable("labelled", "unlabelled"):
            with setting_aside(self._project, case, self._report):
                volume = self._project.read_case_image(case)
                fingerprints[case.id] = fingerprint_of(volume.array, volume.geometry, self._whole_labels(case))
        return fingerprints

    def _whole_labels(self, case: Case) -> np.ndarray | None:
        """The class indices of a case that is labelled, or that a reviewer decided as a whole."""
        if case.role == "labelled":
            return self._project.read_case_label(case).classes(self._project.values)
        said = Review(self._project).training_labels(case)
        return said.labels.classes(self._project.values) if said is not None and said.complete else None

    def _planned(self, fingerprints: Mapping[str, Fingerprint]) -> Plan:
        settings = self._settings or self._project.settings
        wishes = settings.dedicated
        if wishes.network == "auto":
            wishes = replace(wishes, network=load_method(settings.method).network)
        return make_plan(list(fingerprints.values()), len(self._project.values), wishes, self._device, self._project.label_names)

    def _name_strangers(self, fingerprints: Mapping[str, Fingerprint]) -> None:
        """Say which cases look unlike every labelled one: what is learned from those may fail there."""
        distances = dict(zip(fingerprints, distances_to_labelled(list(fingerprints.values())), strict=True))
        far = [name for name, seen in fingerprints.items() if seen.pieces is None and distances[name] > STRANGE]
        far.sort(key=lambda name: -distances[name])
        if far:
            named = ", ".join(far[:_NAMED]) + (f" and {len(far) - _NAMED} more" if len(far) > _NAMED else "")
            cure = "Look at the proposals there first; one of them with a label map helps most."
            self._report(Warned(f"The contrast of {named} is unlike that of every labelled case, so labels may fail there. {cure}"))

    def _require_ready(self) -> None:
        if not self._project.values:
            raise DataError("the project has no labels.", cure="Import a labelled case, or name the labels in project.toml.")
        self._take_back()
        voxels, channels = 0, read_plan(self._project.plan_path).channels if self._project.plan_path.is_file() else None
        review = Review(self._project)
        for case in (*self._usable("labelled"), *self._usable("unlabelled", "validation")):
            with setting_aside(self._project, case, self._report):
                self._project.require_whole(case)
                grid, its_channels = self._project.read_case_header(case)
                channels = channels or its_channels  # the first labelled case's, where no plan knows better
                require_channels(its_channels, channels, case.id)
                review.require_whole(case)
                voxels += math.prod(grid.size)
        for case in self._usable("labelled", "validation"):
            with setting_aside(self._project, case, self._report):
                self._require_known_labels(case)
        for case in self._usable("labelled", "unlabelled"):
            with setting_aside(self._project, case, self._report):
                self._require_known_decisions(case)
        self._require_cases()
        require_space(self._project.folder, SPACE_PER_VOXEL * voxels + SPACE_FOR_NETWORKS)

    def _require_cases(self) -> None:
        review = Review(self._project)
        if next(review.vouched(1), None) is None:
            cure = "Import at least one case with its label map, or correct one in the review as a whole."
            raise DataError("no labelled case shows a label." if review.has_labels() else "no labelled case is usable.", cure=cure)
        if not self.cases_to_label():
            raise DataError("there is no case to label.", cure="Import images without label maps.")

    def _require_fitting(self, plan: Plan) -> None:
        """Set aside what no memory would hold on the plan's grid."""
        for case in self._usable("labelled", "unlabelled", "validation"):
            with setting_aside(self._project, case, self._report):
                planned_size(self._project.read_case_header(case)[0], plan)
        self._require_cases()

    def _take_back(self) -> None:
        """Use again what was set aside because a file was missing or changed, and is whole now; what is still wrong shows itself again."""
        for case in self._project.cases("labelled", "unlabelled", "validation"):
            if case.set_aside:
                try:
                    self._project.require_whole(case)
                except (DataError, ProjectError):
                    continue
                self._project.set_aside(case, "")

    def _require_known_labels(self, case: Case) -> None:
        """A label map of unknown values is no fault of the case: the labels were edited, and its voxels must not become background."""
        try:
            self._project.read_case_label(case).classes(self._project.values)
        except DataError as error:
            cure = "In project.toml give the labels the values that the label maps hold."
            raise SettingsError(f"{case.id}: {error.what}", where="project.toml", cure=cure) from error

    def _require_known_decisions(self, case: Case) -> None:
        """As a label map, for what people decided; but a decision can be taken back, so its case alone waits for the label."""
        review = Review(self._project)
        said = review.training_labels(case) if review.decisions(case) else None
        unknown = sorted(set(said.labels.values) - set(self._project.values)) if said is not None else []
        if unknown:
            raise DataError(
                f"what people decided about it holds {values_text(unknown)}; known labels are {values_text(self._project.values)}.",
                where=case.id,
                cure="Give project.toml these labels back, or take the decision back.",
            )


@contextmanager
def setting_aside(project: Project, case: Case, report: Reporter) -> Iterator[None]:
    """Name and leave out a case whose data cannot be used, or that memory does not suffice for; other errors are faults and go up."""
    try:
        yield
    except DataError as error:
        reason = error.sentence
    except ProjectError as error:
        if error.where != case.id:
            raise
        reason = error.sentence
    except (MemoryError, RuntimeError) as error:
        cure = "Close other programs, and the next run tries it again; or cut it to the part that matters."
        reason = f"{case.id}: {full_memory(error)} does not suffice for this case. {cure}"
    else:
        return
    release_memory()
    project.set_aside(case, reason)
    report(CaseSetAside(case.id, reason))
