"""Cases coming in: one bad file is set aside and named, the others go on.

The formats (``folders``, ``nnunet``, ``decathlon``, ``dicom``) say which files make a case; what is done with them is the same
for all and stands here.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk

from ..errors import DataError, GeometryError, ProjectError, SAM2IterativeError
from ..intake import NotOrthonormalError
from ..project import Case, Project, Role, label_of, labels_of_names, opaque_case_id
from ..settings import Label
from ..volumes import Geometry, LabelMap, Volume, read_label_map, read_volume, resampled_orthonormal
from .known_images import KnownImages, digest_of, require_no_leak
from .masks import is_mask, labelled_mask
from .names import composed
from .slicer_segmentation import by_name, segments_of

OnMismatch = Literal["refuse", "copy geometry", "resample"]
OnCase = Callable[[int, int, str], None]
"""Called before each case with: cases done, cases in all, name."""


_LEAST_MM, _MOST_MM = 1.0, 3000.0
_SET_ASIDE, _TAKEN = "set aside", "taken after all"
"""How the journal calls what an import could not use, and what a later one could."""
_COUNT = re.compile(r" \(\d+ files?\)$")


@dataclass(frozen=True)
class Candidate:
    """Files that make a case.

    Attributes:
        identity: tells the same source apart from others; the file's SHA-256 if empty.
        name: wanted case id.
        title: how messages call the case where it has no id yet; ``name`` if empty.
        files: names of the files of a series, by which a format calls those that it finds wanting.
        ignore: the value of label maps that marks voxels which nobody labelled (nnU-Net's "ignore"); None if there is none.
        image: the image's file, or the folder of a series.
        label: the label map's file, if there is one.
        role: None: labelled where a label map is, else unlabelled.
        details: kept with the case for exporters.
        read_image: reads the image; the plain file reader unless a format brings its own.
    """

    name: str
    image: Path
    label: Path | None = None
    role: Role | None = None
    details: dict[str, Any] = field(default_factory=dict)
    read_image: Callable[[Path], Volume] | None = None
    identity: str = ""
    title: str = ""
    ignore: int | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImportReport:
    """What became of an import. Names are file names without their paths; sentences are meant for people.

    Attributes:
        added: the new cases.
        completed: known cases that got a label map.
        known: names that were in the project already, unchanged.
        set_aside: (name, sentence): cannot be used; nothing of it is in the project.
        remarks: (name, sentence): used, but worth knowing.
        ignored: files that are no images.
    """

    added: tuple[Case, ...] = ()
    completed: tuple[Case, ...] = ()
    known: tuple[str, ...] = ()
    set_aside: tuple[tuple[str, str], ...] = ()
    remarks: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImportOptions:
    """What the person allows.

    Attributes:
        resample_sheared: make right-angled copies of images whose axes are sheared, instead of setting them aside.
        on_mismatch: what to do with a label map that does not lie on its image's grid.
        opaque_ids: name cases ``case_0001`` instead of after their files.
        channel: which of several channels to take, where images have nnU-Net's channel numbers (``x_0000``, ``x_0001``).
    """

    resample_sheared: bool = False
    on_mismatch: OnMismatch = "refuse"
    opaque_ids: bool = False
    channel: int | None = None


def import_candidates(
    project: Project,
    candidates: Sequence[Candidate],
    *,
    label_names: Sequence[str] = (),
    options: ImportOptions | None = None,
    ignored: Sequence[str] = (),
    unusable: Sequence[tuple[str, str]] = (),
    remarks: Sequence[tuple[str, str]] = (),
    on_case: OnCase | None = None,
) -> ImportReport:
    """Add candidates to a project.

    ``ignored`` are files that are no images, ``unusable`` (name, sentence) those that a format already found wanting, ``remarks``
    (name, sentence) what it found worth knowing.

    A project without labels takes them from ``label_names`` and from the values found in the files; one that has labels keeps
    exactly those, and a case with others is set aside.

    Raises:
        SettingsError: the label names do not fit the values found.
        ResourceError: the disk is full; what was added stays.
    """
    project.require_writable()
    intake = _Intake(project, options or ImportOptions(), unusable, remarks)
    intake.settle_labels(candidates, label_names)
    for done, candidate in enumerate(candidates):
        if on_case:
            on_case(done, len(candidates), candidate.name)
        intake.take(candidate)
    return intake.report(ignored)


class _Intake:
    """One import at work."""

    def __init__(
        self, project: Project, options: ImportOptions, unusable: Sequence[tuple[str, str]], remarks: Sequence[tuple[str, str]]
    ) -> None:
        self.project = project
        self.options = options
        self._added: list[Case] = []
        self._completed: list[Case] = []
        self._known: list[str] = []
        self._set_aside = list(unusable)
        self._remarks = list(remarks)
        self._taken: set[str] = set()
        self._images = KnownImages(project)

    def report(self, ignored: Sequence[str]) -> ImportReport:
        """The outcome; the journal too remembers what was set aside, and what came in after all."""
        for name in unusable_files(self.project):
            if name in self._taken - {_file_of(name) for name, _ in self._set_aside}:
                self.project.journal.note(_TAKEN, name)
        for name, sentence in self._set_aside:
            self.project.journal.note(_SET_ASIDE, f"{name}: {sentence}")
        return ImportReport(
            added=tuple(self._added),
            completed=tuple(self._completed),
            known=tuple(self._known),
            set_aside=tuple(self._set_aside),
            remarks=tuple(self._remarks),
            ignored=tuple(ignored),
        )

    def settle_labels(self, candidates: Sequence[Candidate], names: Sequence[str]) -> None:
        """Give a project without labels those that the names and the files tell of."""
        if self.project.values:
            return
        found, segments = _labels_found(candidates, self.options.resample_sheared)
        values = sorted({value for held in found for value in held if held != (255,)}) or ([1] if (255,) in found else [])
        labels = labels_of_names(names, values) if names else _labels_of(values, segments)
        if labels:
            self.project.add_labels(labels)
        named = {segment.name.casefold() for segment in segments}
        for label in labels if found else ():
            if label.value not in values and label.name.casefold() not in named:
                self._remarks.append(("labels", f"label {label.value} ({label.name}) occurs in no label map; are the names in order?"))
        for value in values if len(found) >= 5 else ():
            if sum(value in held for held in found) == 1:
                self._remarks.append(("labels", f"label {value} occurs in only one of {len(found)} label maps; is it meant?"))

    def take(self, candidate: Candidate) -> None:
        """Add one candidate, or say why not. A full disk or a lost project ends the import; a bad file does not."""
        name = candidate.title or candidate.name
        try:
            self._take(candidate)
        except (DataError, ProjectError) as error:
            self._set_aside.append((name, error.sentence))
        else:
            self._taken |= {_file_of(name), *candidate.files}

    def _take(self, candidate: Candidate) -> None:
        digest = candidate.identity or digest_of(candidate.image)
        twins = self._images.of_bytes(digest)
        source = composed(candidate.image.name)
        known = next((t for t in twins if candidate.identity or self.options.opaque_ids or composed(t.source) == source), None)
        if known is not None:
            self._complete(known, candidate)
            return
        if candidate.label is None and candidate.role in ("labelled", "validation"):
            raise DataError(f"a {candidate.role} case needs a label map, and there is none.", where=candidate.image.name)
        image = self._image(candidate)
        namesakes = [] if candidate.identity else self._images.of_name(candidate.image.name)
        known = next((case for case in namesakes if self._images.shows(case, image)), None)
        if known is not None:  # compressed anew, say: other bytes, the same image
            self._complete(known, candidate)
            return
        label = self._label(candidate, image) if candidate.label else None
        role: Role = candidate.role or ("unlabelled" if label is None else "labelled")
        require_no_leak(twins, role, candidate.image.name)
        case = self.project.add_case(
            self._wanted_id(candidate),
            image,
            label,
            role=role,
            source=candidate.image.name,
            details={**candidate.details, "source": digest},
        )
        self._added.append(case)
        self._images.remember(case)
        self._remarks.extend((case.id, remark) for remark in (*image.remarks, *implausible(image.geometry)))
        if twins:
            self._remarks.append((case.id, f"its image is the same as that of case {twins[0].id}; keep only one of them."))
        elif namesakes:
            self._remarks.append((case.id, f"case {namesakes[0].id} came from a file of the same name that shows something else."))
        if label is not None and not label.values:
            self._remarks.append((case.id, "its label map is empty: taken as 'nothing there'."))

    def _complete(self, case: Case, candidate: Candidate) -> None:
        """The image is in the project; perhaps its label map is new, or what it is to be used for."""
        if case.role == "excluded":
            self._known.append(candidate.name)
            self._remarks.append((case.id, "a person excluded it, and it stays so; give it another role to use it again."))
            return
        self._complete_label(case, candidate)
        now = self.project.case(case.id)
        if candidate.role is not None and candidate.role != now.role:
            self.project.set_role(now, candidate.role)
            self._remarks.append((now.id, f"it was in the project as {now.role} and is {candidate.role} from now on."))

    def _complete_label(self, case: Case, candidate: Candidate) -> None:
        if candidate.label is None:
            self._known.append(candidate.name)
            return
        label = self._label(candidate, self.project.read_case_image(case))
        if case.label is None:
            self._completed.append(self.project.add_label(case, label))
        elif np.array_equal(self.project.read_case_label(case).array, label.array):
            self._known.append(candidate.name)
        else:
            sentence = "it already has another label map, which stays; bring the new one in as a correction in the review."
            self._remarks.append((case.id, sentence))

    def _image(self, candidate: Candidate) -> Volume:
        try:
            return (candidate.read_image or read_volume)(candidate.image)
        except NotOrthonormalError:
            if not self.options.resample_sheared or candidate.read_image:
                raise
            return resampled_orthonormal(candidate.image)

    def _label(self, candidate: Candidate, image: Volume) -> LabelMap:
        assert candidate.label is not None
        labels = self.project.settings.labels
        label = by_name(_label_map(candidate.label, self.options.resample_sheared), candidate.label, labels)
        if candidate.ignore in label.values:
            what = f"it holds nnU-Net's label 'ignore' ({candidate.ignore}), which marks what nobody labelled and is not supported."
            cure = "Give these voxels the labels that they show, 0 where there is nothing, or import the image without its label map."
            raise DataError(what, where=candidate.label.name, cure=cure)
        label = self._on_grid(label, image.geometry, candidate.label.name)
        if is_mask(label, labels) and len(labels) == 1:
            self._remarks.append(
                (candidate.label.name, f"a 0/255 mask: 128 and more was taken as label {labels[0].value} ({labels[0].name}).")
            )
        return labelled_mask(label, labels, candidate.label.name)

    def _on_grid(self, label: LabelMap, grid: Geometry, name: str) -> LabelMap:
        if label.geometry.mismatch(grid) is None:
            return replace(label, geometry=grid)
        if self.options.on_mismatch == "copy geometry" and label.geometry.size == grid.size:
            self._remarks.append((name, "the label map took over its image's geometry."))
            return replace(label, geometry=grid)
        if self.options.on_mismatch == "resample":
            self._remarks.append((name, "the label map was resampled to its image's grid (nearest neighbour)."))
            return resampled_label_map(label, grid)
        raise GeometryError(
            f"the label map does not lie on its image: {label.geometry.mismatch(grid)}.",
            where=name,
            cure="Export it again with the image as reference, or allow resampling.",
        )

    def _wanted_id(self, candidate: Candidate) -> str:
        return opaque_case_id([c.id for c in self.project.cases()]) if self.options.opaque_ids else candidate.name


def implausible(grid: Geometry) -> list[str]:
    """Sizes that no image of a patient has: most likely the file means another unit than mm."""
    lengths = [n * mm for n, mm in zip(grid.size, grid.spacing, strict=True)]
    if grid.planar or _LEAST_MM <= max(lengths) <= _MOST_MM:
        return []
    size = " × ".join(f"{mm:.3g}" for mm in lengths)
    return [f"it measures {size} mm; if its file means another unit than mm, mend its spacing."]


def resampled_label_map(label: LabelMap, grid: Geometry) -> LabelMap:
    """A label map on another grid, nearest neighbour, 0 outside its own."""
    source = sitk.GetImageFromArray(label.array)
    replace(label.geometry, planar=False).apply_to(source)
    reference = sitk.Image(list(grid.size[::-1]), source.GetPixelID())
    replace(grid, planar=False).apply_to(reference)
    copy = sitk.Resample(source, reference, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return LabelMap(sitk.GetArrayFromImage(copy), grid)


def unusable_files(project: Project) -> list[str]:
    """The names of what imports set aside and none has taken since, each once, the oldest first."""
    found: dict[str, None] = {}
    for event in project.journal.events():
        if event.kind == _SET_ASIDE:
            found[_file_of(event.text.partition(": ")[0])] = None
        elif event.kind == _TAKEN:
            found.pop(event.text, None)
    return list(found)


def _file_of(name: str) -> str:
    """What identifies a set-aside file: a DICOM series stays the same when a missing slice joins it."""
    return _COUNT.sub("", name)


def _label_map(path: Path, resample_sheared: bool) -> LabelMap:
    try:
        return read_label_map(path)
    except NotOrthonormalError:
        if not resample_sheared:
            raise
        copy = resampled_orthonormal(path, label=True)
        return LabelMap(copy.array, copy.geometry)


def _labels_found(candidates: Sequence[Candidate], resample_sheared: bool) -> tuple[list[tuple[int, ...]], list[Label]]:
    """The values of each label map, and of Slicer segmentations in their place the segments that show a voxel.

    What cannot be read is named when its case is taken.
    """
    values: list[tuple[int, ...]] = []
    segments: list[Label] = []
    for path in (c.label for c in candidates if c.label):
        with contextlib.suppress(SAM2IterativeError):
            shown, named = _label_map(path, resample_sheared).values, segments_of(path)
            if named:
                segments += [segment for segment in named if segment.value in shown]
            else:
                values.append(shown)
    return values, segments


def _labels_of(values: Sequence[int], segments: Sequence[Label]) -> tuple[Label, ...]:
    """A label for each value, and one for each segment name, with the first segment's value where that is still free."""
    labels = {value: label_of(value) for value in values}
    named: dict[str, Label] = {}
    for segment in segments:
        if segment.name.casefold() not in named:
            free = next(v for v in itertools.chain([segment.value], itertools.count(1)) if v not in labels)
            named[segment.name.casefold()] = labels[free] = replace(segment, value=free)
    return tuple(labels.values())
