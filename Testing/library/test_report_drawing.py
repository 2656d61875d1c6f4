"""The parts of the report: what is drawn lies where it belongs, what is written reads well."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from small_cases import OBLIQUE

from SAM2IterativeLib.orientation import opposite, orientation_of, turn, turned_indices, turned_spacing
from SAM2IterativeLib.project import label_of
from SAM2IterativeLib.report.charts import curves, dots, scatter
from SAM2IterativeLib.report.drawing import Crop, boxes, grey_picture, outlines, points, uncertainty_picture
from SAM2IterativeLib.report.surface import surface_picture, surfaces_available
from SAM2IterativeLib.report.view import SliceView
from SAM2IterativeLib.report.wording import file_name, plain, unpathed
from SAM2IterativeLib.round_files import KeyFramePrompt
from SAM2IterativeLib.volumes import Geometry, LabelMap
from SAM2IterativeLib.wording import duration, listed

MIRRORED = Geometry((4, 6, 8), (3.0, 2.0, 1.0), (5.0, -7.0, 11.0), (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
"""Sagittal slices, with i along P, j along S and k along R."""
STYLES = {1: ("rgb(1 2 3)", "organ")}


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))


def area(d: str) -> float:
    """The area that closed SVG paths enclose (shoelace formula)."""
    total = 0.0
    for part in d.strip("Z").split("ZM"):
        xy = np.array([[float(v) for v in pair.split()] for pair in part.lstrip("M").split("L")])
        total += float(np.sum(xy[:, 0] * np.roll(xy[:, 1], -1) - np.roll(xy[:, 0], -1) * xy[:, 1])) / 2
    return abs(total)


def extent(d: str) -> tuple[float, float, float, float]:
    """Least and largest x, least and largest y of an SVG path."""
    xs, ys = np.array([[float(v) for v in pair.split()] for pair in re.split("[MLZ]", d) if pair]).T
    return xs.min(), xs.max(), ys.min(), ys.max()


# Orientation


def test_orientation_names_the_directions_in_which_the_axes_grow() -> None:
    assert orientation_of(Geometry((1, 1, 1)).direction) == "SPL"
    assert orientation_of(MIRRORED.direction) == "RSP"
    assert opposite("R") == "L" and opposite("S") == "I"


def test_a_single_slice_that_runs_the_other_way_can_be_taken_by_torch() -> None:
    turned = np.ascontiguousarray(turn(np.zeros((1, 4, 5)), "IPL", "SPL"))
    assert min(turned.strides) > 0
    assert min(np.ascontiguousarray(turn(np.zeros((2, 1, 4, 5)), "IAL", "SPL")).strides) > 0


@pytest.mark.parametrize("wanted", ["SPL", "RSP", "IAR", "PSL"])
def test_turning_moves_voxels_spacing_and_indices_alike(wanted: str) -> None:
    array = np.arange(np.prod(MIRRORED.size)).reshape(MIRRORED.size)
    turned = turn(array, "RSP", wanted)
    index = np.array([1.0, 4.0, 6.0])
    moved = tuple(turned_indices(index, MIRRORED.size, "RSP", wanted).astype(int))
    assert turned[moved] == array[1, 4, 6]
    assert np.array_equal(turn(turned, wanted, "RSP"), array)
    assert sorted(turned_spacing(MIRRORED.spacing, "RSP", wanted)) == [1.0, 2.0, 3.0]
    assert np.allclose(turned_indices(np.array(moved, float), turned.shape, wanted, "RSP"), index)


# Views


@pytest.mark.parametrize("geometry", [OBLIQUE, MIRRORED])
@pytest.mark.parametrize("orientation", ["", "SPL", "RSP"])
def test_a_point_in_space_is_shown_on_its_voxel(geometry: Geometry, orientation: str) -> None:
    marked = np.zeros(geometry.size)
    marked[1, 4, 2] = 1
    view = SliceView.of(geometry, orientation)
    _, j, i = (int(n[0]) for n in np.nonzero(view.turned(marked)))
    assert view.turned(marked).shape == view.size
    assert np.allclose(view.pixels_of(geometry.ras_of(np.array([[1, 4, 2]]))), [[j, i]])


def test_a_view_names_its_edges_and_places() -> None:
    view = SliceView.of(MIRRORED, "SPL")
    assert view.edges == ("A", "L", "P", "R")
    assert view.pixel == (1.0, 3.0)
    assert view.position(0) == "S 11.0 mm"
    assert view.position(5) == "S 21.0 mm"
    assert SliceView.of(MIRRORED, "SAR").edges == view.edges, "slices are turned as clinicians look at them"
    assert SliceView.of(MIRRORED, "PLS").edges == ("S", "L", "I", "R")
    assert SliceView.of(MIRRORED, "RAS").edges == ("S", "P", "I", "A")
    assert SliceView.of(MIRRORED).position(0) == "L 5.0 mm"
    assert SliceView.of(MIRRORED).position(3) == "R 4.0 mm"


def test_a_picture_has_no_edges_and_no_place() -> None:
    view = SliceView.of(Geometry((1, 5, 5), planar=True), "SPL")
    assert view.edges == ("", "", "", "")
    assert view.position(0) == ""


# Drawings


def test_a_crop_holds_all_structures_and_stays_in_the_image() -> None:
    marked = np.zeros((3, 100, 80), bool)
    marked[0, 90:99, 0:30] = True
    marked[2, 40:50, 10:20] = True
    crop = Crop.around(marked, SliceView.of(Geometry((3, 100, 80))))
    assert crop.top <= 40 and crop.bottom == 100
    assert crop.left == 0 and 30 <= crop.right <= 80


def test_without_structures_the_whole_slice_is_shown() -> None:
    crop = Crop.around(np.zeros((2, 10, 12), bool), SliceView.of(Geometry((2, 10, 12))))
    assert (crop.top, crop.bottom, crop.left, crop.right) == (0, 10, 0, 12)


def test_pixels_that_are_not_square_keep_their_shape() -> None:
    crop = Crop(0, 10, 0, 10, (1.0, 2.0))
    assert crop.size == (200.0, 100.0)


def test_an_outline_encloses_its_mask() -> None:
    labels = np.zeros((60, 60), np.uint8)
    labels[20:40, 10:50] = 1
    crop = Crop(10, 50, 0, 60, (1.0, 1.0))
    (shape,) = outlines(labels, crop, STYLES)
    unit = 200 / 60
    assert area(shape.d) == pytest.approx(20 * 40 * unit**2, rel=0.01)
    assert extent(shape.d) == pytest.approx((10 * unit, 50 * unit, 10 * unit, 30 * unit), abs=0.2)


def test_a_single_pixel_and_the_edge_of_the_image_have_outlines_and_nothing_has_none() -> None:
    labels = np.zeros((9, 9), np.uint8)
    crop = Crop(0, 9, 0, 9, (1.0, 1.0))
    assert outlines(labels, crop, STYLES) == []
    labels[4, 4] = 1
    assert area(outlines(labels, crop, STYLES)[0].d) > 0
    labels[:] = 1
    assert area(outlines(labels, crop, STYLES)[0].d) == pytest.approx(200.0**2, rel=0.02)


@pytest.mark.parametrize("geometry", [OBLIQUE, MIRRORED])
def test_prompts_are_drawn_where_they_were_given(geometry: Geometry) -> None:
    corners = np.array([(1, 0.5, 1.5), (1, 0.5, 4.5), (1, 3.5, 4.5), (1, 3.5, 1.5)])  # pixels 1-3 by 2-4, edges
    inside = np.array([(1, 2.0, 3.0)])
    prompt = KeyFramePrompt(1, 1, False, geometry.ras_of(corners), geometry.ras_of(inside), np.empty((0, 3)))
    view = SliceView.of(geometry)
    labels, middle = np.zeros(geometry.size, np.uint8), np.zeros(geometry.size, bool)
    labels[1, 1:4, 2:5] = 1
    middle[1, 2, 3] = True
    crop = Crop(0, view.size[1], 0, view.size[2], view.pixel)
    (box,) = boxes([prompt], view, crop, STYLES)
    (mask,) = outlines(view.turned(labels)[1], crop, STYLES)
    assert extent(box.d) == pytest.approx(extent(mask.d), abs=0.5)
    (point,) = points([prompt], view, crop, STYLES)
    assert (point.x, point.y) == pytest.approx(tuple(crop.xy(np.argwhere(view.turned(middle)[1]))[0]), abs=0.01)
    assert point.inside


def test_a_large_slice_becomes_a_small_picture_between_black_and_white() -> None:
    picture = opened(grey_picture(np.linspace(-100, 500, 900 * 700).reshape(900, 700), 0, 400))
    assert max(picture.size) <= 320
    assert picture.mode == "L"
    assert (np.asarray(picture).min(), np.asarray(picture).max()) == (0, 255)
    assert opened(grey_picture(np.full((4, 4), 7.0), 7.0, 7.0)).size == (4, 4)


def test_certainty_is_transparent_and_doubt_is_not() -> None:
    u = np.zeros((8, 8), np.float32)
    u[2:6, 2:6] = 1.0
    opacity = np.asarray(opened(uncertainty_picture(u)).convert("RGBA"))[..., 3]
    assert opacity[0, 0] == 0
    assert opacity[3, 3] > 200


@pytest.mark.skipif(not surfaces_available(), reason="vtk is not installed")
@pytest.mark.parametrize("geometry", [Geometry((20, 20, 20)), Geometry((20, 20, 20), direction=(-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))])
def test_a_surface_is_drawn_in_its_labels_colour_lit_from_outside(geometry: Geometry) -> None:
    ball = (np.linalg.norm(np.indices((20, 20, 20)) - 9.5, axis=0) < 7).astype(np.uint8)
    label = label_of(1)
    picture = np.asarray(opened(surface_picture(LabelMap(ball, geometry), (label,))).convert("RGBA")).astype(float)
    solid = picture[..., 3] > 250
    assert 0.2 < solid.mean() < 0.9
    colour = picture[..., :3][solid]
    assert np.abs(colour.max(axis=0) - label.colour).max() < 30
    upper, lower = picture[: len(picture) // 2], picture[len(picture) // 2 :]
    assert upper[upper[..., 3] > 250][:, 0].mean() > lower[lower[..., 3] > 250][:, 0].mean() + 20


def test_no_surface_of_nothing_or_of_a_single_slice() -> None:
    empty = np.zeros((5, 5, 5), np.uint8)
    assert surface_picture(LabelMap(empty, Geometry((5, 5, 5))), (label_of(1),)) == ""
    assert surface_picture(LabelMap(empty[:1] + 1, Geometry((1, 5, 5))), (label_of(1),)) == ""


# Charts


def test_curves_rise_with_their_values_and_skip_what_is_unknown() -> None:
    chart = curves("t", "Dice", {"a": {0: 0.5, 1: 0.9}, "b": {0: None, 1: 0.7}, "c": {0: None}})
    assert chart is not None
    assert [series.name for series in chart.series] == ["a", "b"]
    first, second = chart.series[0].marks
    assert first.y > second.y and first.x < second.x
    assert all(chart.top <= mark.y <= chart.bottom for series in chart.series for mark in series.marks)
    assert chart.y_ticks[-1].text == "1.0" and chart.y_ticks[-1].at == chart.top
    assert curves("t", "Dice", {"a": {0: None}}) is None


def test_dots_show_every_case_and_the_median() -> None:
    chart = dots("t", "u", {0: {"a": 0.1, "b": 0.2, "c": 0.6}, 1: {}})
    assert chart is not None
    cases, median = chart.series
    assert len(cases.marks) == 3
    assert median.marks[0].text == "median of round 0: 0.200"
    assert dots("t", "u", {0: {}}) is None


def test_a_scatter_needs_three_cases() -> None:
    values = {"a": (0.1, 0.9), "b": (0.2, 0.8), "c": (0.3, 0.0)}
    chart = scatter("t", "u", "Dice", values)
    assert chart is not None
    xs, ys = zip(*((mark.x, mark.y) for mark in chart.series[0].marks), strict=True)
    assert sorted(xs) == list(xs) and sorted(ys) == list(ys)
    assert scatter("t", "u", "Dice", {"a": (0.1, 0.9)}) is None


# Words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot read /home/ada/Jane Doe/scan.nii.gz now", "cannot read scan.nii.gz now"),
        (r"C:\Users\Jane Doe\a.nrrd: bad", "a.nrrd: bad"),
        (r"\\server\share\a.nrrd", "a.nrrd"),
        ("~/w.pt", "w.pt"),
        ("2 / 3 slices, k/j/i, 0.5/1", "2 / 3 slices, k/j/i, 0.5/1"),
        ("<b>x</b>", "<b>x</b>"),
    ],
)
def test_paths_are_cut_to_file_names(text: str, expected: str) -> None:
    assert unpathed(text) == expected


def test_words_for_numbers_and_lists() -> None:
    assert [duration(s) for s in (4.4, 59.7, 3600, 7500)] == ["4 s", "1 min", "1 h 00 min", "2 h 05 min"]
    assert [listed(n) for n in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert [plain(v) for v in (True, 0.5, (1, 2), ((1, 2),), ())] == ["yes", "0.5", "1, 2", "(1, 2)", "none"]
    assert file_name(r"D:\w\a.pt") == file_name("/w/a.pt") == "a.pt"
    assert file_name("compact") == "compact"
