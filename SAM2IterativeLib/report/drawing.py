"""Slices as pictures and vector outlines that lie exactly over each other.

A picture is an embedded PNG; outlines, boxes and points are SVG paths over it, sharp at every size. Both share a coordinate system from
the crop's upper left corner that is proportional to millimetres, so that pixels that are not square are shown in their true shape.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from contourpy import contour_generator
from PIL import Image
from scipy import ndimage

from ..round_files import KeyFramePrompt
from .view import SliceView

_MOST_PIXELS = 320
"""Longest side of an embedded picture: more is not seen on a page, and the file shall stay small."""
_LEAST_PIXELS = 24
_LONGEST = 200.0
"""Longer side of a drawing in its own units."""
_MARGIN = 0.25
"""Share of the structures' extent that is shown around them."""
_COARSENESS = 4
"""Steps of 1/255 of the uncertainty that share a colour."""


@dataclass(frozen=True)
class Shape:
    """A closed SVG path ``d`` in the CSS colour ``colour``, with the label's name for those who cannot tell colours apart."""

    d: str
    colour: str
    name: str


@dataclass(frozen=True)
class Point:
    """A point prompt at (x, y), inside or outside of the structure."""

    x: float
    y: float
    inside: bool
    colour: str
    name: str


@dataclass(frozen=True)
class Crop:
    """The part of all slices that is shown: rows ``top`` to ``bottom`` and columns ``left`` to ``right``, ends exclusive.

    ``pixel`` is the height and width of a pixel in mm.
    """

    top: int
    bottom: int
    left: int
    right: int
    pixel: tuple[float, float]

    @classmethod
    def around(cls, structures: np.ndarray, view: SliceView) -> Crop:
        """Around everything that any label map marks, ``structures`` (k, j, i) bool as shown; the whole slice where nothing is marked."""
        marked = np.asarray(structures.any(axis=0))
        rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
        height, width = marked.shape
        if not rows.size:
            return cls(0, height, 0, width, view.pixel)
        spans = [(rows[-1] + 1 - rows[0]) * view.pixel[0], (columns[-1] + 1 - columns[0]) * view.pixel[1]]
        side = max(*spans, _LEAST_PIXELS * min(view.pixel)) * (1 + 2 * _MARGIN)
        top, bottom = _span((rows[0] + rows[-1] + 1) / 2, side / view.pixel[0], height)
        left, right = _span((columns[0] + columns[-1] + 1) / 2, side / view.pixel[1], width)
        return cls(top, bottom, left, right, view.pixel)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, the longer one ``_LONGEST``."""
        return round((self.right - self.left) * self._unit[1], 2), round((self.bottom - self.top) * self._unit[0], 2)

    def of(self, plane: np.ndarray) -> np.ndarray:
        """The crop of a (j, i) or (j, i, 3) slice."""
        return plane[self.top : self.bottom, self.left : self.right]

    def xy(self, pixels: np.ndarray) -> np.ndarray:
        """(n, 2) x and y in the drawing of row and column (n, 2), where a pixel's centre is a whole number."""
        places = (np.asarray(pixels, dtype=float) + 0.5 - (self.top, self.left)) * self._unit
        return places[:, ::-1]

    @property
    def _unit(self) -> tuple[float, float]:
        """Height and width of a pixel in the drawing."""
        height, width = self.pixel
        scale = _LONGEST / max((self.bottom - self.top) * height, (self.right - self.left) * width)
        return height * scale, width * scale


def grey_picture(plane: np.ndarray, low: float, high: float) -> str:
    """A slice (j, i), or (j, i, 3) uint8 colour, as a PNG; ``low`` is black, ``high`` white."""
    if plane.ndim == 2:
        plane = np.rint(np.clip((plane - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(plane))
    image.thumbnail((_MOST_PIXELS, _MOST_PIXELS), Image.Resampling.LANCZOS)
    return _data_uri(image)


def uncertainty_picture(plane: np.ndarray) -> str:
    """u (j, i) as a see-through PNG: the surer the network, the more the image below shows."""
    image = Image.fromarray(np.rint(plane * 255).astype(np.uint8))
    image.thumbnail((_MOST_PIXELS, _MOST_PIXELS), Image.Resampling.LANCZOS)
    # A palette keeps noise small: a byte a pixel, and the opacity once for each of its colours.
    levels = Image.fromarray(np.asarray(image) // _COARSENESS)
    values = np.arange(0, 256, _COARSENESS) / 255
    levels.putpalette(_heat(values).ravel().tolist())
    opacity = np.rint(np.clip(1.6 * values, 0, 0.9) * 255).astype(np.uint8)
    return _data_uri(levels, transparency=opacity.tobytes())


def uncertainty_scale(steps: int = 5) -> list[str]:
    """CSS colours of the uncertainty from 0 to 1, for the legend."""
    return [f"rgb({r} {g} {b})" for r, g, b in _heat(np.linspace(0, 1, steps))]


def _heat(values: np.ndarray) -> np.ndarray:
    """(n, 3) uint8 colours of uncertainties (n,); even the surest is not black, so that it differs from the image."""
    return np.rint(matplotlib.colormaps["inferno"](0.15 + 0.85 * values)[:, :3] * 255).astype(np.uint8)


def _data_uri(image: Image.Image, **options: Any) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True, **options)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def outlines(labels: np.ndarray, crop: Crop, styles: Mapping[int, tuple[str, str]]) -> list[Shape]:
    """The outlines of every label on a slice.

    Args:
        labels: (j, i) label values of the whole slice.
        crop: the part that is shown.
        styles: label value -> CSS colour and name.
    """
    shapes = []
    for value, (colour, name) in styles.items():
        d = _outline(crop.of(labels == value), crop)
        if d:
            shapes.append(Shape(d, colour, name))
    return shapes


def boxes(prompts: Sequence[KeyFramePrompt], view: SliceView, crop: Crop, styles: Mapping[int, tuple[str, str]]) -> list[Shape]:
    """The boxes of a slice's prompts."""
    return [Shape(_path(crop.xy(view.pixels_of(p.box))), *styles[p.label]) for p in prompts if len(p.box)]


def points(prompts: Sequence[KeyFramePrompt], view: SliceView, crop: Crop, styles: Mapping[int, tuple[str, str]]) -> list[Point]:
    """The points of a slice's prompts."""
    return [
        Point(round(float(x), 2), round(float(y), 2), inside, *styles[prompt.label])
        for prompt in prompts
        for inside, places in ((True, prompt.positive), (False, prompt.negative))
        for x, y in crop.xy(view.pixels_of(places))
    ]


def _outline(mask: np.ndarray, crop: Crop) -> str:
    """Around the pixels of a mask, smoothed a little so that the eye follows the border and not the grid."""
    if not mask.any():
        return ""
    soft = ndimage.gaussian_filter(np.pad(mask, 2).astype(np.float32), 0.5)
    corner = (crop.top - 2, crop.left - 2)  # of the padded crop in the slice
    lines: list[np.ndarray] = contour_generator(z=soft).lines(0.5)  # type: ignore[assignment]
    return "".join(_path(crop.xy(line[:, ::-1] + corner)) for line in lines)


def _path(xy: np.ndarray) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in xy) + "Z"


def _span(centre: float, length: float, available: int) -> tuple[int, int]:
    """A range of about ``length`` around ``centre`` that stays within 0 to ``available``."""
    length = min(int(np.ceil(length)), available)
    start = int(np.clip(round(centre - length / 2), 0, available - length))
    return start, start + length
