"""What a reader sees of one case: a few slices with every stage's answer beside each other, and where along the case they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..doubtful_slices import doubt_per_slice
from ..errors import DataError, ProjectError
from ..project import Case, Project
from ..review import PROPOSAL
from ..round_files import COARSE, PROPAGATED, KeyFramePrompt, RoundFiles
from ..round_method import method_of_round
from ..settings import Label
from ..vocabulary import method_words
from ..volumes import LabelMap
from ..wording import listed
from .drawing import Crop, Point, Shape, boxes, grey_picture, outlines, points, uncertainty_picture
from .surface import surface_picture
from .view import SliceView
from .wording import unpathed

_MOST_KEY_FRAMES = 3
"""Key frames shown per case; the strip along the slices marks all of them."""


@dataclass(frozen=True)
class SliceRow:
    """One slice: an image, and over it what each stage said. ``reviewed``: a person's own mask was the prompt."""

    title: str
    why: str
    image: str
    uncertainty: str
    coarse: list[Shape]
    boxes: list[Shape]
    points: list[Point]
    reviewed: bool
    propagated: list[Shape] | None
    pseudo_label: list[Shape] | None
    reference: list[Shape]


@dataclass(frozen=True)
class StripLabel:
    """One label along the slices: its area as a share of its largest (0-1, per slice) and its key frames."""

    name: str
    colour: str
    areas: list[float]
    key_frames: list[int]


@dataclass(frozen=True)
class Strip:
    """The whole case along its slices: doubt per slice (0-1, share of the largest), labels, the slices shown, and all slices in words."""

    doubt: list[float]
    labels: list[StripLabel]
    shown: list[int]
    numbers: list[int]
    places: list[str]


@dataclass(frozen=True)
class CasePictures:
    """Everything drawn of a case; with a ``note`` and nothing else where its files cannot be read."""

    round: int
    note: str = ""
    size: tuple[float, float] = (1.0, 1.0)
    edges: tuple[str, str, str, str] = ("", "", "", "")
    rows: list[SliceRow] = field(default_factory=list)
    strip: Strip | None = None
    surface: str = ""


def css_colour(label: Label) -> str:
    """A label's colour as CSS writes it."""
    return f"rgb({' '.join(map(str, label.colour))})"


def case_pictures(
    project: Project, files: RoundFiles, round: int, case: Case, orientation: str, reference: LabelMap | None = None
) -> CasePictures:
    """Draw a case as ``round`` left it.

    Args:
        project: for image, labels and settings.
        files: the rounds' files.
        round: a finished round that labelled the case.
        case: which.
        orientation: the plan's, such as "SPL"; empty for the case's own.
        reference: what the case truly shows, on its grid, to be outlined; a validation case has its own.
    """
    try:
        return _Artist(project, files, round, case, orientation, reference).pictures()
    except (DataError, ProjectError) as error:
        return CasePictures(round, note=unpathed(error.sentence))


class _Artist:
    """One case at work; every array is turned to the orientation that is shown."""

    def __init__(self, project: Project, files: RoundFiles, round: int, case: Case, orientation: str, reference: LabelMap | None) -> None:
        image = project.read_case_image(case)
        self.round = round
        self.settings = project.settings
        self.words = method_words(method_of_round(project, round))
        self.styles = {label.value: (css_colour(label), label.name) for label in self.settings.labels}
        self.view = view = SliceView.of(image.geometry, orientation)
        self.image = view.turned(image.array)
        maps = {name: files.label_map(round, case, name) for name in (COARSE, PROPAGATED, PROPOSAL)}
        self.maps = {name: None if found is None else view.turned(found.array) for name, found in maps.items()}
        doubt = files.uncertainty(round, case)
        self.doubt = np.zeros(view.size, np.float32) if doubt is None else view.turned(doubt)
        self.prompts = tuple(p for p in files.prompts(round, case) if p.label in self.styles and p.slice_index < view.size[0])
        if case.role == "validation":
            reference = project.read_case_label(case)
        self.reference = None if reference is None else view.turned(reference.array)
        self._final = maps[PROPOSAL]
        found = [array > 0 for name in (COARSE, PROPOSAL) if (array := self.maps[name]) is not None]
        structures = np.logical_or.reduce(found) if found else np.zeros(view.size, bool)
        self.doubt_per_slice = doubt_per_slice(self.doubt, structures)

    def pictures(self) -> CasePictures:
        """The whole of it."""
        known = [array > 0 for array in self.maps.values() if array is not None]
        crop = Crop.around(np.logical_or.reduce(known) if known else np.zeros(self.view.size, bool), self.view)
        shown = self._shown_slices()
        low, high = np.percentile(crop.of(np.moveaxis(self.image[list(shown)], 0, 2)), (0.5, 99.5))
        rows = [self._row(z, why, crop, float(low), float(high)) for z, why in shown.items()]
        surface = surface_picture(self._final, self.settings.labels) if self._final is not None else ""
        return CasePictures(self.round, "", crop.size, self.view.edges, rows, self._strip(list(shown)), surface)

    def _shown_slices(self) -> dict[int, str]:
        """Slice -> why it is shown: key frames spread over the case, and the slice with most doubt."""
        frames = sorted({p.slice_index for p in self.prompts})
        picked = [frames[n] for n in np.linspace(0, len(frames) - 1, min(len(frames), _MOST_KEY_FRAMES)).round().astype(int)]
        why = {z: f"{self.words.prompted_slice} of {listed(self._names(self._on(z)))}" for z in picked}
        if self.view.size[0] == 1:
            return why or {0: "nothing here prompted SAM2"}
        doubtful = int(self.doubt_per_slice.argmax())
        why[doubtful] = f"{why[doubtful]}, and the slice with most doubt" if doubtful in why else "the slice with most doubt"
        return dict(sorted(why.items()))

    def _on(self, slice_index: int) -> list[KeyFramePrompt]:
        return [p for p in self.prompts if p.slice_index == slice_index]

    def _names(self, prompts: Sequence[KeyFramePrompt]) -> list[str]:
        return [self.styles[value][1] for value in dict.fromkeys(p.label for p in prompts)]

    def _row(self, z: int, why: str, crop: Crop, low: float, high: float) -> SliceRow:
        prompts = self._on(z)
        place = self.view.place(z)
        return SliceRow(
            title=place[0].upper() + place[1:] if self.view.size[0] > 1 else "The whole picture",
            why=why,
            image=grey_picture(crop.of(self.image[z]), low, high),
            uncertainty=uncertainty_picture(crop.of(self.doubt[z])),
            coarse=self._outlines(self.maps[COARSE], z, crop) or [],
            boxes=boxes(prompts, self.view, crop, self.styles),
            points=points(prompts, self.view, crop, self.styles),
            reviewed=any(p.reviewed for p in prompts),
            propagated=self._outlines(self.maps[PROPAGATED], z, crop),
            pseudo_label=self._outlines(self.maps[PROPOSAL], z, crop),
            reference=self._outlines(self.reference, z, crop) or [],
        )

    def _outlines(self, labels: np.ndarray | None, z: int, crop: Crop) -> list[Shape] | None:
        return None if labels is None else outlines(labels[z], crop, self.styles)

    def _strip(self, shown: list[int]) -> Strip | None:
        labels = self.maps[PROPOSAL]
        if labels is None or self.view.size[0] == 1:
            return None
        rows = []
        for value, (colour, name) in self.styles.items():
            frames = sorted({p.slice_index for p in self.prompts if p.label == value})
            rows.append(StripLabel(name, colour, _shares((labels == value).sum(axis=(1, 2))), frames))
        everywhere = range(self.view.size[0])
        numbers, places = [self.view.number(z) for z in everywhere], [self.view.place(z) for z in everywhere]
        return Strip(_shares(self.doubt_per_slice), rows, shown, numbers, places)


def _shares(values: np.ndarray) -> list[float]:
    """Each value as a share of the largest, three digits."""
    largest = float(values.max(initial=0))
    return [round(float(value) / largest, 3) if largest else 0.0 for value in values]
