"""A case in Slicer's scene, with the real MRML: geometry, labels, layers, markups, undo, and what the views show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pytest
from generated_case import ARTERY, LABELS, VALUES, GeneratedCase, generated_case
from seen_layers import marked_as_locked, prompts_seen, reviewer_of, uncertainty_seen

from SAM2IterativeLib.errors import DataError, GeometryError, ProjectError
from SAM2IterativeLib.guidance.prompts import reviewed_prompt
from SAM2IterativeLib.volumes import Geometry, LabelMap, Volume

_TISSUE = "SCT^85756007^Tissue~SCT^85756007^Tissue"


@pytest.fixture(scope="session")
def case() -> GeneratedCase:
    return generated_case()


@pytest.fixture
def shown(scene: Any, case: GeneratedCase) -> Iterator[Any]:
    """A CaseScene with the case's image."""
    from SAM2IterativeGUI.scene import CaseScene

    made = CaseScene(LABELS)
    made.show("case_003", case.image, "phantom")
    yield made
    made.remove()


@pytest.fixture
def reviewing(shown: Any, case: GeneratedCase) -> Any:
    """The same with a proposal."""
    shown.show_layer("proposal", case.truth)
    return shown


@pytest.fixture
def view(shown: Any) -> Iterator[Any]:
    made = harness.SliceView("Red", (400, 400))
    made.fit()
    yield made
    made.close()


def _our_nodes(scene: Any) -> list[str]:
    nodes = [scene.GetNthNode(number) for number in range(scene.GetNumberOfNodes())]
    return [node.GetName() for node in nodes if node.GetAttribute("SAM2Iterative.Part")]


def _segment_id(node: Any, value: int) -> str:
    from SAM2IterativeGUI.scene.segmentations import segment_id_of

    found = segment_id_of(node, value)
    assert found is not None
    return found


def _voxels(node: Any) -> np.ndarray:
    import slicer.util

    return slicer.util.arrayFromVolume(node)


def _middle_of(mask: np.ndarray, k: int) -> tuple[int, int, int]:
    """The pixel of slice k that lies deepest in a mask."""
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(mask[k], 1))[1:-1, 1:-1]
    j, i = np.unravel_index(int(depth.argmax()), depth.shape)
    return k, int(j), int(i)


def _colour_at(view: Any, geometry: Geometry, kji: tuple[float, float, float], picture: np.ndarray) -> np.ndarray:
    return picture[view.pixel_of(geometry.ras_of(kji))].astype(int)


class TestImage:
    def test_the_image_lies_where_its_geometry_says(self, shown: Any, case: GeneratedCase) -> None:
        import slicer.util
        import vtk

        matrix = vtk.vtkMatrix4x4()
        shown.image_node().GetIJKToRASMatrix(matrix)
        np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), case.image.geometry.ijk_to_ras(), atol=1e-9)
        np.testing.assert_array_equal(_voxels(shown.image_node()), case.image.array)
        off_diagonal = case.image.geometry.ijk_to_ras()[:3, :3] / case.image.geometry.spacing[::-1]
        assert np.abs(off_diagonal).max(axis=0).min() < 0.999, "the case must be oblique for this test to mean something"

    def test_a_colour_picture_is_shown_in_colour(self, scene: Any) -> None:
        from SAM2IterativeGUI.scene import CaseScene

        pixels = np.zeros((1, 20, 30, 3), np.uint8)
        pixels[:, :, :15, 0] = 200
        pixels[:, :, 15:, 2] = 150
        shown = CaseScene(LABELS)
        node = shown.show("picture", Volume(pixels, Geometry((1, 20, 30), planar=True)))
        assert node.IsA("vtkMRMLVectorVolumeNode")
        np.testing.assert_array_equal(_voxels(node), pixels)
        view = harness.SliceView("Red", (200, 200))
        view.fit()
        picture = view.picture()
        assert _colour_at(view, shown.geometry, (0, 10, 5), picture).tolist() == [200, 0, 0]
        assert _colour_at(view, shown.geometry, (0, 10, 25), picture).tolist() == [0, 0, 150]
        view.close()

    @pytest.mark.parametrize("kind", [np.int16, np.uint8, np.int32, np.float32, bool])
    def test_every_kind_of_voxel_can_be_shown(self, scene: Any, kind: type) -> None:
        from SAM2IterativeGUI.scene import CaseScene

        voxels: np.ndarray = (np.arange(60).reshape(3, 4, 5) % 7).astype(kind)
        node = CaseScene(LABELS).show("kinds", Volume(voxels, Geometry((3, 4, 5))))
        np.testing.assert_array_equal(_voxels(node), voxels)

    def test_the_next_case_replaces_the_one_before(self, reviewing: Any, case: GeneratedCase, scene: Any) -> None:
        reviewing.show_uncertainty(case.uncertainty)
        reviewing.show_prompts(case.prompts)
        reviewing.show("case_004", case.image)
        assert _our_nodes(scene) == ["case_004"]
        assert reviewing.case == "case_004"


class TestOwnership:
    def test_removing_leaves_the_persons_own_nodes(self, scene: Any, case: GeneratedCase) -> None:
        import slicer.util

        from SAM2IterativeGUI.scene import CaseScene

        own = slicer.util.addVolumeFromArray(np.ones((4, 5, 6), np.float32), name="own")
        slicer.util.setSliceViewerLayers(background=own)
        before = {scene.GetNthNode(number).GetID() for number in range(scene.GetNumberOfNodes())}
        shown = CaseScene(LABELS)
        shown.show("case_003", case.image)
        shown.show_layer("coarse", case.coarse)
        shown.show_layer("proposal", case.truth)
        shown.show_uncertainty(case.uncertainty)
        shown.show_prompts(case.prompts)
        shown.remove()
        after = {scene.GetNthNode(number).GetID() for number in range(scene.GetNumberOfNodes())}
        assert after == before
        layers = {node.GetBackgroundVolumeID() for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")}
        assert layers == {own.GetID()}

    def test_removing_turns_the_views_back(self, scene: Any, case: GeneratedCase) -> None:
        import slicer.util

        from SAM2IterativeGUI.scene import CaseScene

        def planes() -> dict[str, np.ndarray]:
            nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")
            return {node.GetLayoutName(): slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()) for node in nodes}

        before = planes()
        shown = CaseScene(LABELS)
        for name in ("case_003", "case_004"):
            shown.show(name, case.image)
        assert any(not np.allclose(plane, before[name]) for name, plane in planes().items()), "an oblique image turns them"
        shown.remove()
        assert before and all(np.allclose(plane, before[name]) for name, plane in planes().items())

    def test_nothing_of_ours_is_saved_with_the_scene(self, reviewing: Any, case: GeneratedCase, scene: Any) -> None:
        reviewing.show_uncertainty(case.uncertainty)
        reviewing.show_prompts(case.prompts)
        nodes = [scene.GetNthNode(number) for number in range(scene.GetNumberOfNodes())]
        ours = [node for node in nodes if node.GetAttribute("SAM2Iterative.Part")]
        displays = [
            node.GetNthDisplayNode(n) for node in ours if node.IsA("vtkMRMLDisplayableNode") for n in range(node.GetNumberOfDisplayNodes())
        ]
        assert ours and displays
        assert not any(node.GetSaveWithScene() for node in [*ours, *displays])

    def test_a_closed_scene_leaves_nothing_that_points_nowhere(self, reviewing: Any, case: GeneratedCase, scene: Any) -> None:
        reviewing.lock(1, True)
        scene.Clear(0)
        assert reviewing.case is None
        with pytest.raises(ProjectError, match="no case is shown"):
            reviewing.proposal()
        reviewing.forget()
        assert (reviewing.case, reviewing.locked(), uncertainty_seen()) == (None, (), False)
        reviewing.undo()
        reviewing.set_visible("coarse", True)
        reviewing.show("case_003", case.image)
        reviewing.show_layer("proposal", case.truth)
        np.testing.assert_array_equal(reviewing.proposal().array, case.truth.array)


class TestMasks:
    def test_what_is_written_is_read_back(self, reviewing: Any, case: GeneratedCase) -> None:
        read = reviewing.proposal()
        np.testing.assert_array_equal(read.array, case.truth.array)
        assert read.values == VALUES
        assert read.geometry.mismatch(case.truth.geometry, 1e-9) is None

    def test_segments_bear_the_labels(self, reviewing: Any) -> None:
        import slicer

        from SAM2IterativeGUI.scene import segmentations

        segmentation = reviewing.node("proposal").GetSegmentation()
        segments = [segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments())]
        assert [segment.GetName() for segment in segments] == [label.name for label in LABELS]
        assert [segment.GetLabelValue() for segment in segments] == list(VALUES)
        for segment, label in zip(segments, LABELS, strict=True):
            np.testing.assert_allclose(np.array(segment.GetColor()) * 255, label.colour, atol=0.01)
        terms = [segmentations.tag(segment, slicer.vtkSegment.GetTerminologyEntryTagName()) for segment in segments]
        assert terms[2] == ARTERY
        assert all(_TISSUE in term for term in terms[:2])

    def test_a_label_that_is_not_on_the_image_has_an_empty_segment(self, shown: Any, case: GeneratedCase) -> None:
        only = LabelMap(np.where(case.truth.array == 7, 7, 0).astype(np.uint16), case.truth.geometry)
        node = shown.show_layer("proposal", only)
        assert node.GetSegmentation().GetNumberOfSegments() == 3
        assert shown.proposal().values == (7,)

    def test_a_mask_on_another_grid_is_refused(self, shown: Any, case: GeneratedCase) -> None:
        x, y, z = case.truth.geometry.origin
        moved = replace(case.truth.geometry, origin=(x + 2.0, y, z))
        with pytest.raises(GeometryError, match="origin"):
            shown.show_layer("coarse", LabelMap(case.truth.array, moved))
        with pytest.raises(GeometryError, match="case_003"):
            shown.show_uncertainty(case.uncertainty[:-1])

    def test_a_stroke_is_read_on_the_images_grid(self, reviewing: Any, case: GeneratedCase) -> None:
        node = reviewing.node("proposal")
        mask = np.zeros(case.truth.geometry.size, bool)
        mask[3, 10:14, 20:26] = True

        harness.paint_segment(node, _segment_id(node, 7), mask)
        expected = np.where(mask, 7, case.truth.array)
        np.testing.assert_array_equal(reviewing.proposal().array, expected)

    def test_edits_that_slicer_regrouped_are_read_under_their_labels(self, reviewing: Any, case: GeneratedCase) -> None:
        node = reviewing.node("proposal")
        for value in VALUES:
            node.GetSegmentation().SeparateSegmentLabelmap(_segment_id(node, value))
        mask = np.zeros(case.truth.geometry.size, bool)
        mask[3, 10:14, 20:26] = True
        harness.paint_segment(node, _segment_id(node, 300), mask)
        np.testing.assert_array_equal(reviewing.proposal().array, np.where(mask, 300, case.truth.array))

    def test_overlapping_segments_become_one_label_each(self, reviewing: Any, case: GeneratedCase) -> None:
        import slicer.util

        node = reviewing.node("proposal")
        both = np.zeros(case.truth.geometry.size, np.uint8)
        both[5, 20:30, 20:30] = 1
        for value in (1, 300):
            slicer.util.updateSegmentBinaryLabelmapFromArray(both, node, _segment_id(node, value))
        read = reviewing.proposal().array
        assert set(np.unique(read[both > 0])) == {300}, "the lower one in the list wins"

    @pytest.mark.parametrize("highest", [300, 40000])
    def test_whatever_slicer_makes_of_the_layers_is_read_as_the_segments_say(self, scene: Any, case: GeneratedCase, highest: int) -> None:
        """Layers of their own extents, renumbered, overlapping, with a person's own segment among them, or empty."""
        import slicer
        import slicer.util

        from SAM2IterativeGUI.scene import CaseScene
        from SAM2IterativeGUI.scene.volumes import labels_image

        labels = (*LABELS[:2], replace(LABELS[2], value=highest))
        values = [label.value for label in labels]
        shown = CaseScene(labels)
        shown.show("case_003", case.image)
        truth = LabelMap(np.where(case.truth.array == 300, highest, case.truth.array).astype(np.uint16), case.truth.geometry)
        node = shown.show_layer("proposal", truth)
        segmentation, logic = node.GetSegmentation(), slicer.vtkSlicerSegmentationsModuleLogic
        random, size = np.random.default_rng(5), np.array(truth.geometry.size)
        for step in range(12):
            name = f"segment_of_label_{values[step % 3]}"
            low = random.integers(0, size - 3)
            high = random.integers(low + 1, size)
            mask = np.zeros(size, np.uint8)
            mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1
            image = labels_image(mask, truth.geometry)
            extent = [int(v) for pair in zip(low[::-1], high[::-1] - 1, strict=True) for v in pair]
            if step == 4:
                segmentation.AddEmptySegment("mine", "Cyst")
                slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, "mine")
                segmentation.CollapseBinaryLabelmaps(False)
            mode = (logic.MODE_MERGE_MAX, logic.MODE_MERGE_MIN, logic.MODE_REPLACE)[step % 3 if step < 9 else 0]
            logic.SetBinaryLabelmapToSegment(image, node, name, mode, extent)
            if step == 7:
                segmentation.SeparateSegmentLabelmap("segment_of_label_1")
                segmentation.GetSegment("segment_of_label_1").GetRepresentation("Binary labelmap").SetExtent(0, -1, 0, -1, 0, -1)
            expected = np.zeros(size, int)
            for value in values:
                one = slicer.util.arrayFromSegmentBinaryLabelmap(node, f"segment_of_label_{value}")
                expected[(one if one is not None else np.zeros(size)) > 0] = value
            np.testing.assert_array_equal(shown.proposal(skip_foreign=True).array, expected, err_msg=str(step))

    def test_the_mask_is_read_again_only_where_it_changed(
        self, reviewing: Any, case: GeneratedCase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from SAM2IterativeGUI.scene import segmentations

        read, count = segmentations.read_labels, []

        def counted(*arguments: Any, **options: Any) -> LabelMap:
            count.append(1)
            return read(*arguments, **options)

        monkeypatch.setattr(segmentations, "read_labels", counted)
        reviewing.lock(300, True)
        for _again in range(3):
            assert not reviewing.restore_locked()
            np.testing.assert_array_equal(reviewing.proposal().array, case.truth.array)
        assert len(count) == 1
        node = reviewing.node("proposal")
        node.GetSegmentation().GetSegment("segment_of_label_7").SetTag("SAM2Iterative.LabelValue", "1")
        assert 7 not in reviewing.proposal().values
        assert len(count) == 2
        with pytest.raises(ValueError, match="read-only"):
            reviewing.proposal().array[0] = 1

    def test_a_segment_of_the_persons_own_is_refused_by_name(self, reviewing: Any) -> None:
        reviewing.node("proposal").GetSegmentation().AddEmptySegment("mine", "Cyst")
        with pytest.raises(DataError, match="'Cyst' belongs to none"):
            reviewing.proposal()

    def test_a_removed_segment_counts_as_absent_and_comes_back(self, reviewing: Any, case: GeneratedCase) -> None:

        node = reviewing.node("proposal")
        node.GetSegmentation().RemoveSegment(_segment_id(node, 7))
        assert reviewing.proposal().values == (1, 300)
        reviewing.write_result(case.truth)
        np.testing.assert_array_equal(reviewing.proposal().array, case.truth.array)

    def test_renaming_and_recolouring_do_not_change_what_a_segment_stands_for(self, reviewing: Any, case: GeneratedCase) -> None:
        segment = reviewing.node("proposal").GetSegmentation().GetNthSegment(0)
        segment.SetName("something else")
        segment.SetColor(0, 0, 1)
        np.testing.assert_array_equal(reviewing.proposal().array, case.truth.array)

    def test_masks_of_layers_are_switched_one_by_one(self, reviewing: Any, case: GeneratedCase) -> None:
        reviewing.show_layer("coarse", case.coarse)
        reviewing.set_visible("coarse", False)
        assert (reviewing.visible("coarse"), reviewing.visible("proposal"), reviewing.visible("propagated")) == (False, True, False)
        reviewing.show_layer("coarse", case.propagated)
        assert not reviewing.visible("coarse"), "a new round's mask keeps the switch"


class TestUndo:
    def test_one_undo_takes_a_result_back(self, reviewing: Any, case: GeneratedCase) -> None:
        reviewing.write_result(case.propagated)
        np.testing.assert_array_equal(reviewing.proposal().array, case.propagated.array)
        reviewing.undo()
        np.testing.assert_array_equal(reviewing.proposal().array, case.truth.array)
        reviewing.undo()
        np.testing.assert_array_equal(reviewing.proposal().array, case.truth.array)

    def test_undo_keeps_names_colours_status_and_tags(self, reviewing: Any, case: GeneratedCase) -> None:
        reviewing.mark({7: ("in progress", "Dr. A")})
        reviewing.write_result(case.propagated)
        reviewing.undo()
        assert (reviewing.status(7), reviewer_of(reviewing.node("proposal"), 7)) == ("in progress", "Dr. A")
        assert reviewing.proposal().values == VALUES

    def test_the_segment_editors_history_takes_strokes_and_results_back_alike(self, reviewing: Any, case: GeneratedCase) -> None:
        import slicer

        editor = slicer.qMRMLSegmentEditorWidget()
        editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
        editor.setSegmentationNode(reviewing.node("proposal"))
        reviewing.use_editor_history(editor)
        mask = np.zeros(case.truth.geometry.size, bool)
        mask[3, 10:14, 20:26] = True
        harness.paint_segment(reviewing.node("proposal"), _segment_id(reviewing.node("proposal"), 7), mask, editor)
        stroke = reviewing.proposal().array
        reviewing.write_result(case.propagated)
        editor.undo()
        np.testing.assert_array_equal(reviewing.proposal().array, stroke)
        reviewing.undo()
        np.testing.assert_array_equal(reviewing.proposal().array, case.truth.array)


class TestLocks:
    def test_a_result_leaves_locked_segments_alone(self, reviewing: Any, case: GeneratedCase) -> None:
        reviewing.lock(7, True)
        empty = LabelMap(np.zeros_like(case.truth.array), case.truth.geometry)
        reviewing.write_result(empty)
        np.testing.assert_array_equal(reviewing.proposal().array, np.where(case.truth.array == 7, 7, 0))
        everywhere = LabelMap(np.full_like(case.truth.array, 7), case.truth.geometry)
        reviewing.write_result(everywhere)
        np.testing.assert_array_equal(reviewing.proposal().array == 7, case.truth.array == 7)

    def test_strokes_over_a_locked_segment_do_not_count(self, reviewing: Any, case: GeneratedCase) -> None:

        reviewing.lock(7, True)
        assert not reviewing.restore_locked()
        node = reviewing.node("proposal")
        k, j, i = _middle_of(case.truth.array == 7, case.key_slice)
        mask = np.zeros(case.truth.geometry.size, bool)
        mask[k, j - 3 : j + 4, i - 3 : i + 4] = True
        harness.paint_segment(node, _segment_id(node, 1), mask)
        assert reviewing.proposal().array[k, j, i] == 7
        assert reviewing.restore_locked()
        assert not reviewing.restore_locked()

    def test_unlocking_lets_results_in_again(self, reviewing: Any, case: GeneratedCase) -> None:
        reviewing.lock(7, True)
        assert (reviewing.locked(), marked_as_locked(reviewing.node("proposal"), 7)) == ((7,), True)
        reviewing.lock(7, False)
        assert (reviewing.locked(), marked_as_locked(reviewing.node("proposal"), 7)) == ((), False)
        reviewing.write_result(case.propagated)
        np.testing.assert_array_equal(reviewing.proposal().array, case.propagated.array)


class TestStatus:
    @pytest.mark.parametrize("status", ["not started", "in progress", "completed", "flagged"])
    def test_status_is_what_slicers_table_shows(self, reviewing: Any, status: Any) -> None:
        import slicer

        reviewing.mark({7: (status, "Dr. A")})
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        segment = reviewing.node("proposal").GetSegmentation().GetNthSegment(1)
        shown = logic.GetSegmentStatusAsHumanReadableString(logic.GetSegmentStatus(segment))
        assert shown.lower() == status
        assert reviewing.status(7) == status
        assert (reviewing.status(1), reviewer_of(reviewing.node("proposal"), 1)) == ("not started", "")

    def test_a_whole_case_is_marked_at_once(self, reviewing: Any) -> None:
        reviewing.mark(dict.fromkeys(VALUES, ("completed", "Dr. B")))
        node = reviewing.node("proposal")
        assert [(reviewing.status(value), reviewer_of(node, value)) for value in VALUES] == [("completed", "Dr. B")] * 3

    def test_marking_what_is_so_already_changes_nothing(self, reviewing: Any) -> None:
        marks = {7: ("completed", "Dr. B")}
        reviewing.mark(marks)
        segmentation = reviewing.node("proposal").GetSegmentation()
        before = [segmentation.GetNthSegment(n).GetMTime() for n in range(3)]
        reviewing.mark(marks)
        assert [segmentation.GetNthSegment(n).GetMTime() for n in range(3)] == before
        reviewing.mark({})
        assert reviewing.status(7) == "not started"

    def test_a_lock_is_seen_after_an_undo_to_before_it(self, reviewing: Any, case: GeneratedCase) -> None:
        reviewing.write_result(case.propagated)
        reviewing.lock(7, True)
        reviewing.undo()
        assert (reviewing.locked(), marked_as_locked(reviewing.node("proposal"), 7)) == ((7,), True)


class TestUncertainty:
    def test_it_is_kept_in_floats_with_a_fixed_window(self, shown: Any, case: GeneratedCase) -> None:
        node = shown.show_uncertainty(case.uncertainty)
        assert _voxels(node).dtype == np.float32
        np.testing.assert_allclose(_voxels(node), case.uncertainty, atol=1e-7)
        display = node.GetDisplayNode()
        assert (display.GetWindowLevelMin(), display.GetWindowLevelMax(), display.GetAutoWindowLevel()) == (0, 1, 0)
        assert display.GetColorNode().IsA("vtkMRMLProceduralColorNode")

    def test_it_lies_in_the_foreground_and_is_switched(self, shown: Any, case: GeneratedCase) -> None:
        import slicer.util

        node = shown.show_uncertainty(case.uncertainty)
        composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        assert {c.GetForegroundVolumeID() for c in composites} == {node.GetID()}
        assert {c.GetBackgroundVolumeID() for c in composites} == {shown.image_node().GetID()}
        assert uncertainty_seen()
        shown.set_uncertainty_visible(False)
        assert not uncertainty_seen()
        assert {c.GetForegroundVolumeID() for c in composites} == {None}

    def test_it_has_one_legend_and_one_set_of_colours(self, shown: Any, case: GeneratedCase) -> None:
        import slicer.util

        shown.show_uncertainty(case.uncertainty)
        shown.show_uncertainty(1 - case.uncertainty)
        assert len(slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")) == 1
        names = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLProceduralColorNode")]
        assert names.count("Uncertainty") == 1


class TestSlices:
    def test_the_views_stand_along_the_slices_of_an_oblique_volume(self, shown: Any, case: GeneratedCase) -> None:
        from SAM2IterativeGUI.scene.slices import acquisition_views

        views = acquisition_views(case.image.geometry)
        assert [view.GetLayoutName() for view in views] == ["Red"]
        for k in (0, 5, 15):
            shown.jump_to_slice(k)
            assert shown.current_slice() == k

    def test_a_jump_beyond_the_volume_stops_at_its_end(self, shown: Any, case: GeneratedCase) -> None:
        shown.jump_to_slice(99)
        assert shown.current_slice() == case.image.geometry.slices - 1

    def test_a_jump_to_a_place_moves_all_views(self, shown: Any, case: GeneratedCase) -> None:
        import slicer.util

        shown.jump_to_place((4, 20, 30))
        place = case.image.geometry.ras_of((4, 20, 30))
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            to_ras = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
            assert abs((place - to_ras[:3, 3]) @ to_ras[:3, 2]) < 1e-6, node.GetLayoutName()
        assert shown.current_slice() == 4

    def test_a_sagittal_volume_is_followed_in_the_sagittal_view(self, scene: Any) -> None:
        from SAM2IterativeGUI.scene import CaseScene

        sagittal = Geometry((9, 20, 20), (4.0, 1.0, 1.0), direction=(0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
        shown = CaseScene(LABELS)
        shown.show("sagittal", Volume(np.zeros((9, 20, 20), np.int16), sagittal))
        from SAM2IterativeGUI.scene.slices import acquisition_views

        assert [view.GetLayoutName() for view in acquisition_views(sagittal)] == ["Yellow"]
        shown.jump_to_slice(7)
        assert shown.current_slice() == 7


class TestPrompts:
    def test_points_and_boxes_lie_where_the_prompts_say(self, shown: Any, case: GeneratedCase, scene: Any) -> None:
        import slicer.util

        shown.show_prompts(case.prompts)
        geometry = case.image.geometry
        boxes = [node for node in slicer.util.getNodesByClass("vtkMRMLMarkupsClosedCurveNode")]
        assert len(boxes) == len(case.prompts) == 3
        for box, prompt in zip(boxes, case.prompts, strict=True):
            corners = geometry.kji_of(slicer.util.arrayFromMarkupsControlPoints(box, world=True))
            assert prompt.box is not None
            j0, i0, j1, i1 = prompt.box
            np.testing.assert_allclose(corners[:, 0], prompt.slice_index, atol=1e-6)
            np.testing.assert_allclose([corners[:, 1].min(), corners[:, 1].max()], [j0 - 0.5, j1 - 0.5], atol=1e-5)
            np.testing.assert_allclose([corners[:, 2].min(), corners[:, 2].max()], [i0 - 0.5, i1 - 0.5], atol=1e-5)
        positive = slicer.util.getNode(f"{LABELS[0].name}: +")
        places = geometry.kji_of(slicer.util.arrayFromMarkupsControlPoints(positive, world=True))
        np.testing.assert_allclose(places[:, 1:], case.prompts[0].positive_points, atol=1e-5)

    def test_prompts_cannot_be_dragged_and_bear_the_labels_colour(self, shown: Any, case: GeneratedCase) -> None:
        import slicer.util

        shown.show_prompts(case.prompts)
        nodes = slicer.util.getNodesByClass("vtkMRMLMarkupsNode")
        assert nodes and all(node.GetLocked() for node in nodes)
        organ = [node for node in nodes if node.GetName().startswith(LABELS[0].name)]
        for node in organ:
            np.testing.assert_allclose(np.array(node.GetDisplayNode().GetSelectedColor()) * 255, LABELS[0].colour, atol=0.01)

    def test_new_prompts_replace_the_old_and_keep_the_switch(self, shown: Any, case: GeneratedCase) -> None:
        import slicer.util

        shown.show_prompts(case.prompts)
        shown.set_prompts_visible(False)
        shown.show_prompts(case.prompts[:1])
        nodes = slicer.util.getNodesByClass("vtkMRMLMarkupsNode")
        assert {node.GetName().partition(":")[0] for node in nodes} == {LABELS[0].name}
        assert not prompts_seen()
        assert not any(node.GetDisplayNode().GetVisibility() for node in nodes)
        shown.show_prompts([])
        assert slicer.util.getNodesByClass("vtkMRMLMarkupsNode") == []

    def test_what_a_reviewer_drew_is_named_so(self, shown: Any, case: GeneratedCase) -> None:
        import slicer.util

        mask = case.truth.array[4] == 1
        shown.show_prompts([reviewed_prompt(mask, 4, 1), reviewed_prompt(np.zeros_like(mask), 6, 1)])
        (node,) = slicer.util.getNodesByClass("vtkMRMLMarkupsNode")
        assert [node.GetNthControlPointLabel(number) for number in range(2)] == ["organ: reviewed"] * 2
        places = case.image.geometry.kji_of(slicer.util.arrayFromMarkupsControlPoints(node, world=True))
        np.testing.assert_allclose(places[:, 0], [4, 6], atol=1e-6)


class TestPictures:
    def test_a_filled_proposal_tints_the_image_in_the_labels_colour(
        self, reviewing: Any, case: GeneratedCase, view: Any, tmp_path: Path
    ) -> None:
        reviewing.jump_to_slice(case.key_slice)
        place = _middle_of(case.truth.array == 1, case.key_slice)
        tinted = _colour_at(view, case.image.geometry, place, view.picture())
        reviewing.set_visible("proposal", False)
        plain = _colour_at(view, case.image.geometry, place, view.picture())
        assert np.ptp(plain) <= 2, "the image itself is grey"
        np.testing.assert_allclose(tinted, 0.75 * plain + 0.25 * np.array(LABELS[0].colour), atol=4)
        reviewing.set_visible("proposal", True)
        reviewing.set_filled("proposal", False)
        np.testing.assert_allclose(_colour_at(view, case.image.geometry, place, view.picture()), plain, atol=2)

    def test_outlines_of_coarse_mask_and_sam2_result_differ(self, shown: Any, case: GeneratedCase, view: Any) -> None:
        shown.jump_to_slice(case.key_slice)
        seen = {}
        for layer, mask in (("coarse", case.coarse), ("propagated", case.propagated)):
            shown.show_layer(layer, mask)
            picture = view.picture().astype(int)
            shown.set_visible(layer, False)
            coloured = picture[np.ptp(picture, axis=2) > 40]
            seen[layer] = coloured[coloured.sum(axis=1).argmax()], len(coloured)
        assert seen["coarse"][1] > 100 and seen["propagated"][1] > 1.2 * seen["coarse"][1], "SAM2's outline is the thicker one"

        def organ(layer: str) -> bool:
            shown.set_visible(layer, True)
            found = np.abs(view.picture().astype(int) - LABELS[0].colour).max(axis=2).min() <= 3
            shown.set_visible(layer, False)
            return bool(found)

        assert organ("propagated")
        assert not organ("coarse"), "the coarse mask's outline is paler than the label"

    def test_high_uncertainty_is_magenta_middle_is_violet_low_is_not_shown(self, shown: Any, view: Any) -> None:
        geometry = shown.geometry
        values = np.zeros(geometry.size, np.float32)
        values[:, 10:20, 10:20], values[:, 10:20, 30:40], values[:, 40:50, 30:40] = 0.95, 0.4, 0.15
        shown.jump_to_slice(8)
        plain = view.picture()
        shown.show_uncertainty(values)
        picture = view.picture()

        def change(j: int, i: int) -> np.ndarray:
            return _colour_at(view, geometry, (8, j, i), picture) - _colour_at(view, geometry, (8, j, i), plain)

        magenta, violet, low, none = change(15, 15), change(15, 35), change(45, 35), change(50, 10)
        assert magenta[0] > magenta[1] + 60 and magenta[0] > magenta[2] + 30 and magenta[2] > magenta[1] + 30
        assert violet[2] > violet[0] + 10 and violet[0] > violet[1] + 30
        assert low.tolist() == none.tolist() == [0, 0, 0]
        shown.set_uncertainty_hidden_below(0.1)
        picture = view.picture()
        assert change(45, 35).any()
        shown.set_uncertainty_visible(False)
        np.testing.assert_array_equal(view.picture(), plain)

    def test_the_legend_comes_and_goes_with_the_overlay(self, shown: Any, view: Any) -> None:
        shown.jump_to_slice(8)
        corner = np.s_[220:390, 375:398]
        before = view.picture()[corner].astype(int)
        shown.show_uncertainty(np.zeros(shown.geometry.size, np.float32))
        assert np.ptp(view.picture()[corner].astype(int), axis=2).max() > 100, "the colours of the legend"
        shown.set_uncertainty_visible(False)
        np.testing.assert_array_equal(view.picture()[corner], before)

    def test_the_legend_also_comes_in_a_view_that_was_made_later(self, shown: Any) -> None:
        shown.show_uncertainty(np.zeros(shown.geometry.size, np.float32))
        later = harness.SliceView("Green", (400, 400))
        shown.set_uncertainty_visible(True)
        corner = later.picture()[220:390, 375:398].astype(int)
        assert np.ptp(corner, axis=2).max() > 100
        later.close()

    def test_prompts_are_seen_on_their_slice_only(self, shown: Any, case: GeneratedCase, view: Any) -> None:
        shown.show_prompts(case.prompts)

        def coloured() -> int:
            return int((np.ptp(view.picture().astype(int), axis=2) > 40).sum())

        shown.jump_to_slice(case.key_slice)
        assert coloured() > 300
        shown.jump_to_slice(case.key_slice + 3)
        assert coloured() == 0
        shown.jump_to_slice(case.key_slice)
        shown.set_prompts_visible(False)
        assert coloured() == 0

    def test_two_layers_side_by_side_each_in_its_view(self, shown: Any, case: GeneratedCase) -> None:
        import slicer

        from SAM2IterativeGUI.scene import layouts

        shown.show_layer("coarse", case.coarse)
        shown.show_layer("propagated", case.propagated)
        before = layouts.show_compare_layout()
        names = layouts.view_names()
        slicer.util.setSliceViewerLayers(background=shown.image_node())
        views = [harness.SliceView(name, (300, 300)) for name in names]
        for one in views:
            one.fit()
        shown.compare({names[0]: "coarse", names[1]: "propagated"})
        shown.jump_to_slice(case.key_slice)
        left, right = (one.picture().astype(int) for one in views)
        organ = [np.abs(picture - LABELS[0].colour).max(axis=2).min() for picture in (left, right)]
        assert organ[0] > 10 >= 3 >= organ[1], "only the right view shows SAM2's outline"
        assert (np.ptp(left, axis=2) > 25).sum() > 50
        normals = [one.node.GetSliceToRAS().GetElement(0, 2) for one in views]
        assert normals[0] == pytest.approx(normals[1])
        shown.compare({})
        layouts.restore_layout(before)
        assert slicer.app.layoutManager().layout == before.number
        for one in views:
            one.close()

    def test_the_image_is_whole_and_not_distorted_in_views_of_another_shape(self, shown: Any, case: GeneratedCase) -> None:
        import slicer

        from SAM2IterativeGUI.scene import layouts

        red = harness.SliceView("Red", (500, 200))
        red.fit()
        before = layouts.show_compare_layout()
        slicer.util.setSliceViewerLayers(background=shown.image_node())
        views = [harness.SliceView(name, (150, 400)) for name in layouts.view_names()]
        for one in views:
            one.picture()
        shown.compare({name: layer for name, layer in zip(layouts.view_names(), ("coarse", "propagated"), strict=True)})
        shown.jump_to_slice(case.key_slice)
        assert shown.current_slice() == case.key_slice
        for one in views:
            width, height = one.node.GetDimensions()[:2]
            seen_width, seen_height = one.node.GetFieldOfView()[:2]
            assert seen_width / seen_height == pytest.approx(width / height, rel=0.02)
            size = case.truth.geometry.size[1:]
            corners = [one.pixel_of(case.truth.geometry.ras_of((case.key_slice, j, i))) for j in (0, size[0] - 1) for i in (0, size[1] - 1)]
            assert all(0 <= row < 400 and 0 <= column < 150 for row, column in corners), corners
        layouts.restore_layout(before)
        for one in (red, *views):
            one.close()

    def test_a_view_that_fills_the_window_gives_way_and_comes_back(self, shown: Any) -> None:
        import slicer

        from SAM2IterativeGUI.scene import layouts

        node = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
        red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
        node.AddMaximizedViewNode(red)
        before = layouts.show_compare_layout()
        assert node.GetNumberOfMaximizedViewNodes() == 0
        node.AddMaximizedViewNode(slicer.app.layoutManager().sliceWidget(layouts.view_names()[0]).mrmlSliceNode())
        layouts.restore_layout(before)
        assert (node.GetNumberOfMaximizedViewNodes(), node.GetMaximizedViewNode(0)) == (1, red)
        node.RemoveAllMaximizedViewNodes()

    def test_the_two_views_move_together_and_leave_the_persons_own_alone(self, shown: Any) -> None:
        import slicer

        from SAM2IterativeGUI.scene import layouts

        before = layouts.show_compare_layout()
        groups = {
            name: slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode().GetViewGroup() for name in ("Red", *layouts.view_names())
        }
        left, right = layouts.view_names()
        assert groups[left] == groups[right] != groups["Red"]
        layouts.restore_layout(before)

    def test_surfaces_are_made_for_the_3d_view(self, reviewing: Any) -> None:
        node = reviewing.node("proposal")
        reviewing.show_3d(True)
        assert node.GetSegmentation().ContainsRepresentation("Closed surface")
        assert node.GetClosedSurfaceInternalRepresentation("segment_of_label_1").GetNumberOfPoints() > 100
        reviewing.show_3d(False)
        assert not node.GetDisplayNode().GetVisibility3D()

    def test_the_picture_for_the_readme_can_be_drawn(self, scene: Any, case: GeneratedCase, tmp_path: Path) -> None:
        import qt
        from screenshots import draw_review

        draw_review(tmp_path / "review.png", case, side=200)
        sheet = qt.QImage(str(tmp_path / "review.png"))
        assert (sheet.width(), sheet.height()) == (400, 460)
        quarters = [sheet.copy(x, y + 30, 200, 200) for y in (0, 230) for x in (0, 200)]
        assert len({qt.QByteArray(bytes(quarter.constBits())) for quarter in quarters}) == 4
        assert _our_nodes(scene) == []
