"""What the review shows of a case, read from the project folder; nothing here knows Slicer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from SAM2IterativeLib.errors import ProjectError
from SAM2IterativeLib.guidance.prompts import Prompt
from SAM2IterativeLib.orientation import orientation_of, source_axes
from SAM2IterativeLib.project import Case, Project
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.round_files import COARSE, PROPAGATED, KeyFramePrompt, RoundFiles
from SAM2IterativeLib.volumes import Geometry, LabelMap, Volume


@dataclass(frozen=True)
class Material:
    """A case as the review shows it.

    Attributes:
        round: the newest one that worked on the case; 0 for none.
        reviewer: whose review it is; "" for nobody's.
        start: what the person sees to review first: their own decisions laid over the proposal.
        proposal: the round's pseudo-label, or the labels that came with the case; None where there is neither.
        coarse, propagated: label maps of the round; None where it made none.
        uncertainty: (k, j, i) in [0, 1]; None where the round made none.
        prompts: what SAM2 was told, in ``prompt_geometry``.
        prompt_geometry: the case's grid with the axis along which SAM2 saw the slices first.
    """

    case: Case
    reviewer: str
    round: int
    image: Volume
    start: LabelMap
    proposal: LabelMap | None
    coarse: LabelMap | None
    propagated: LabelMap | None
    uncertainty: np.ndarray | None
    prompts: tuple[Prompt, ...]
    prompt_geometry: Geometry

    @property
    def structures(self) -> np.ndarray:
        """(k, j, i) bool: what the round found of any label, in and around which doubt counts."""
        found = [mask.array > 0 for mask in (self.coarse, self.proposal) if mask is not None]
        return np.logical_or.reduce(found) if found else np.zeros(self.image.geometry.size, bool)


def read_material(project: Project, case: Case, reviewer: str) -> Material:
    """Read everything that the newest round left of a case, and what this reviewer made of it.

    Raises:
        ProjectError: a file is missing or was changed; the sentence says which and what to do.
    """
    review, files = Review(project), RoundFiles(project)
    image, round = project.read_case_image(case), review.proposal_round(case) or 0
    proposal = _proposal(project, review, case)
    coarse, propagated = (files.label_map(round, case, name) if round else None for name in (COARSE, PROPAGATED))
    doubt = files.uncertainty(round, case) if round else None
    told = files.prompts(round, case) if round else ()
    geometry, prompts = on_grid(told, image.geometry, project.values, propagated, _orientation(project))
    start = proposal or _nothing(project, image.geometry)
    material = Material(case, reviewer, round, image, start, proposal, coarse, propagated, doubt, prompts, geometry)
    return replace(material, start=starting_map(review, material, reviewer))


def _proposal(project: Project, review: Review, case: Case) -> LabelMap | None:
    """What is there to review: the labels that came with the case, else the newest pseudo-label."""
    if case.has_own_labels:
        return project.read_case_label(case)
    return review.proposal(case)[1] if review.proposal_round(case) is not None else None


@dataclass(frozen=True)
class Others:
    """The other reviewers of a case.

    Attributes:
        names: who vouched for labels of it; the one who decided last comes first.
        seen: whether this reviewer may see their masks: only who has decided about the whole case is not swayed by them.
    """

    names: tuple[str, ...] = ()
    seen: bool = False


def others_of(review: Review, case: Case, reviewer: str) -> Others:
    """Who else reviewed a case; who rejected it has no mask of it."""
    decisions = review.decisions(case)
    names = dict.fromkeys(decision.reviewer for decision in reversed(decisions) if decision.reviewer != reviewer and decision.label_file)
    vouched = tuple(name for name in names if review.status(case, name) != "rejected")
    return Others(vouched, seen=bool(reviewer) and not review.is_open(case, reviewer))


def mask_of(review: Review, case: Case, reviewer: str) -> LabelMap:
    """What a reviewer vouched for; nothing elsewhere.

    Raises:
        ProjectError: a file is missing or was changed.
    """
    said = review.training_labels(case, reviewer)
    if said is None:
        raise ProjectError(f"{reviewer} has decided nothing about it.", where=case.id, cure="Open the case again.")
    return LabelMap(np.where(said.reviewed, said.labels.array, 0).astype(said.labels.array.dtype), said.labels.geometry)


def starting_map(review: Review, material: Material, reviewer: str) -> LabelMap:
    """What this reviewer sees to review on opening a case: their decisions laid over the proposal, or over nothing."""
    below = material.proposal or _nothing(review.project, material.image.geometry)
    rejected = review.status(material.case, reviewer) == "rejected"  # what was decided before need not be read then
    said = review.training_labels(material.case, reviewer) if reviewer and not rejected else None
    if said is None or said.rejected:
        return below
    merged, weights = said.over(below.array, np.ones(below.array.shape, np.float32))
    kind = np.promote_types(below.array.dtype, said.labels.array.dtype)
    return LabelMap(np.where(weights > 0, merged, 0).astype(kind), below.geometry)


def on_grid(
    prompts: Sequence[KeyFramePrompt], geometry: Geometry, values: Sequence[int], propagated: LabelMap | None, orientation: str
) -> tuple[Geometry, tuple[Prompt, ...]]:
    """Prompts given in RAS mm, in voxel indices of the case's grid turned so that SAM2's slices come first.

    Args:
        prompts: as the round's file has them.
        geometry: the case's own grid.
        values: the project's label values, in class order.
        propagated: SAM2's result, in which reviewed slices stand as the person drew them.
        orientation: the body directions of SAM2's k, j, i; "" for the case's own.
    """
    own = orientation_of(geometry.direction)
    wanted = orientation or own
    axis = source_axes(own, wanted)[0]
    mirrored = own[axis] != wanted[0]
    along = _with_first(geometry, axis)
    made = []
    for prompt in prompts:
        k = along.slices - 1 - prompt.slice_index if mirrored else prompt.slice_index
        mask = _slice_mask(propagated, axis, k, prompt.label, along) if prompt.reviewed else None
        made.append(_prompt(prompt, k, along, values.index(prompt.label) + 1, mask))
    return along, tuple(made)


def _prompt(prompt: KeyFramePrompt, k: int, along: Geometry, class_index: int, mask: np.ndarray | None) -> Prompt:
    corners = along.kji_of(prompt.box)[:, 1:] + 0.5  # the file has pixel edges as a grid counts them
    box = (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()) if len(corners) else None
    inside, outside = (along.kji_of(points)[:, 1:].astype(np.float32) for points in (prompt.positive, prompt.negative))
    return Prompt(k, class_index, box, inside, outside, mask=mask)


def _slice_mask(propagated: LabelMap | None, axis: int, k: int, value: int, along: Geometry) -> np.ndarray:
    if propagated is None:
        return np.zeros(along.size[1:], bool)
    return np.asarray(np.moveaxis(propagated.array, axis, 0)[k] == value)


def _with_first(geometry: Geometry, axis: int) -> Geometry:
    """The same grid with one of its axes (0: k) first, the others in their order."""
    if axis == 0:
        return geometry
    order = [axis, *(other for other in range(3) if other != axis)]
    columns = np.asarray(geometry.direction, dtype=float).reshape(3, 3)[:, ::-1][:, order][:, ::-1]
    size, spacing = tuple(geometry.size[n] for n in order), tuple(geometry.spacing[n] for n in order)
    return Geometry(size, spacing, geometry.origin, tuple(float(v) for v in columns.ravel()))  # type: ignore[arg-type]


def _nothing(project: Project, geometry: Geometry) -> LabelMap:
    kind = np.uint8 if max(project.values, default=0) < 256 else np.uint16
    return LabelMap(np.zeros(geometry.size, kind), geometry)


def _orientation(project: Project) -> str:
    """In which orientation the project's rounds work; "" before the first round planned it."""
    from SAM2IterativeLib.dedicated.plan import read_plan  # needs no torch

    return read_plan(project.plan_path).orientation if project.plan_path.is_file() else ""
