"""Labels going out keep their values, names, colours and place, in files that Slicer itself reads."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from small_cases import OBLIQUE, small_labels
from test_review import propose
from tiny_sam2 import full_disk

from SAM2IterativeLib.errors import ProjectError, ResourceError
from SAM2IterativeLib.exchange import export_labels, write_slicer_segmentation
from SAM2IterativeLib.exchange.exporting import ExportFormat
from SAM2IterativeLib.exchange.terminology import Code, codes_of, tag_of
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.project.settings_file import write_settings
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.settings import Label
from SAM2IterativeLib.volumes import Geometry, LabelMap, read_label_map

KIDNEY = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure~SCT^64033007^Kidney~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)
LABELS = (Label(3, "left | kidney", (10, 20, 255), KIDNEY), Label(17, "Drüse", (255, 0, 0)), Label(40, "absent"))


def test_nifti(project: Project, tmp_path: Path) -> None:
    propose(project, "b")
    Review(project).correct(project.case("c"), small_labels(2), reviewer="Ada")
    report = export_labels(project, tmp_path / "out", "nifti")
    assert [p.name for p in report.written] == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    image = nibabel.Nifti1Image.from_filename(tmp_path / "out" / "c.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj).T, small_labels(2).array)
    assert np.allclose(image.affine, OBLIQUE.ijk_to_ras(), atol=1e-4)
    header: Any = image.header
    assert not header["descrip"].item() and not header["db_name"].item() and not header.extensions


def test_only_what_a_person_vouches_for(project: Project, tmp_path: Path) -> None:
    propose(project, "b")
    propose(project, "c")
    Review(project).reject(project.case("c"), reviewer="Ada")
    report = export_labels(project, tmp_path / "out", "nrrd", pseudo_labels=False)
    assert [p.name for p in report.written] == ["a.seg.nrrd"]
    assert "no person vouches" in dict(report.refused)["b"] and "was rejected" in dict(report.refused)["c"]


def test_a_rejected_case_is_named_where_only_its_image_goes_along(project: Project, tmp_path: Path) -> None:
    propose(project, "b")
    propose(project, "c")
    Review(project).reject(project.case("c"), reviewer="Ada")
    report = export_labels(project, tmp_path / "out", "nnunet")
    assert report.refused == (("c", "c: its pseudo-label was rejected. Its image is in imagesTs. Correct it in the review."),)
    assert [p.name for p in report.written if p.parent.name == "imagesTs"] == ["c_0000.nii.gz"]


@pytest.mark.parametrize("format", ["nrrd", "nifti", "nnunet"])
def test_a_full_disk_leaves_nothing_half_exported(project: Project, tmp_path: Path, format: ExportFormat) -> None:
    propose(project, "b")
    whole = export_labels(project, tmp_path / "whole", format).written
    with full_disk(max(p.stat().st_size for p in whole) - 1), pytest.raises(ResourceError):
        export_labels(project, tmp_path / "out", format)
    assert not any((tmp_path / "out").iterdir())
    assert len(export_labels(project, tmp_path / "out", format).written) == len(whole)


def test_a_part_that_a_person_decided_is_no_signature_under_the_whole(project: Project, tmp_path: Path) -> None:
    propose(project, "b")
    Review(project).accept(project.case("b"), reviewer="Ada", slices=[2])
    export_labels(project, tmp_path / "out", "nrrd")
    image = sitk.ReadImage(str(tmp_path / "out" / "b.seg.nrrd"))
    tags = image.GetMetaData("Segment0_Tags")
    assert "Segmentation.Status:inprogress|" in tags and "Reviewer" not in tags


def test_nothing_is_overwritten(project: Project, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.nii.gz").write_bytes(b"mine")
    with pytest.raises(ProjectError, match="not empty"):
        export_labels(project, tmp_path / "out", "nifti")
    assert (tmp_path / "out" / "a.nii.gz").read_bytes() == b"mine"
    with pytest.raises(ProjectError, match="'docx' is no export format"):
        export_labels(project, tmp_path / "other", "docx")  # type: ignore[arg-type]


def test_a_changed_file_does_not_stop_the_others(project: Project, tmp_path: Path) -> None:
    propose(project, "b")
    propose(project, "c")
    project.artefact(1, "b", "pseudo_label.nii.gz").write_bytes(b"short")
    report = export_labels(project, tmp_path / "out", "nifti")
    assert [p.name for p in report.written] == ["a.nii.gz", "c.nii.gz"]
    assert "missing or was changed" in dict(report.refused)["b"]


@pytest.mark.parametrize("format", ["nrrd", "nifti"])
def test_a_label_that_the_project_has_lost_is_named(project: Project, tmp_path: Path, format: ExportFormat) -> None:
    kept, lost = project.settings.labels
    write_settings(project.folder / "project.toml", replace(project.settings, labels=(kept,)))  # by hand: the project itself would refuse
    with Project.open(project.folder) as edited:
        report = export_labels(edited, tmp_path / "out", format)
    assert not report.written
    assert f"holds ({lost.value}); known labels are ({kept.value})" in dict(report.refused)["a"]


def test_export_works_when_reading_only(project: Project, tmp_path: Path) -> None:
    with Project.open(project.folder) as second:
        assert export_labels(second, tmp_path / "out", "nrrd").written


def test_the_header_is_slicers(tmp_path: Path) -> None:
    path = tmp_path / "x.seg.nrrd"
    write_slicer_segmentation(path, small_labels(values=(3, 17)), LABELS, status="completed", reviewer="A|da:")
    image = sitk.ReadImage(str(path))
    keys = {name: image.GetMetaData(name) for name in image.GetMetaDataKeys() if name.startswith("Segment")}
    assert keys["Segment0_LabelValue"] == "3" and keys["Segment1_LabelValue"] == "17"
    assert keys["Segment0_Extent"] == "1 2 2 7 1 4" and keys["Segment2_Extent"] == "0 -1 0 -1 0 -1"
    assert "TerminologyEntry:" + KIDNEY + "|" in keys["Segment0_Tags"]
    assert "|Segmentation.Status:completed|SAM2Iterative.Reviewer:A da |" in keys["Segment0_Tags"]
    assert np.array_equal(read_label_map(path).array, small_labels(values=(3, 17)).array)


def test_terminology_codes() -> None:
    assert codes_of(KIDNEY)[1] == Code("SCT", "64033007", "Kidney")
    assert codes_of("") == codes_of("nonsense") == (Code("SCT", "85756007", "Tissue"),) * 2
    assert tag_of("").startswith("Segmentation category and type")


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A MRML scene of Slicer's own classes (package slicer-core)."""
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
    pytest.importorskip("slicer.util")
    made = slicer.vtkMRMLScene()
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(made)
    application.GetColorLogic().SetMRMLScene(made)
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(made)
    logic.SetMRMLApplicationLogic(application)
    monkeypatch.setattr(slicer, "mrmlScene", made, raising=False)
    module = types.SimpleNamespace(logic=lambda: logic)
    monkeypatch.setattr(slicer, "modules", types.SimpleNamespace(segmentations=module), raising=False)
    yield made
    made.Clear(True)


@pytest.mark.skipif(sys.platform == "win32", reason="slicer-core is tested on Linux")
def test_slicer_reads_it(scene: Any, tmp_path: Path) -> None:
    import slicer
    import vtk
    from vtk.util import numpy_support

    path = tmp_path / "x.seg.nrrd"
    labels = small_labels(values=(3, 17))
    write_slicer_segmentation(path, labels, LABELS, status="completed", reviewer="Ada")
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(path))
    assert storage.ReadData(node) == 1
    segmentation = node.GetSegmentation()
    assert segmentation.GetNumberOfSegments() == 3 and segmentation.GetNumberOfLayers() <= 2
    for n, label in enumerate(LABELS):
        segment = segmentation.GetNthSegment(n)
        assert segment.GetName() == label.name
        assert segment.GetLabelValue() == label.value
        assert np.allclose(np.array(segment.GetColor()) * 255, label.colour, atol=0.01)
        assert slicer.vtkSlicerSegmentationsModuleLogic.GetSegmentStatus(segment) == 2, "completed"
        tag = vtk.reference("")
        segment.GetTag("TerminologyEntry", tag)
        assert str(tag) == tag_of(label.terminology)
    oriented = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(segmentation.GetNthSegmentID(1), oriented)
    extent = oriented.GetExtent()
    mask = numpy_support.vtk_to_numpy(oriented.GetPointData().GetScalars())
    mask = mask.reshape(extent[5] - extent[4] + 1, extent[3] - extent[2] + 1, extent[1] - extent[0] + 1)
    matrix = vtk.vtkMatrix4x4()
    oriented.GetImageToWorldMatrix(matrix)
    world = np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])
    points = np.argwhere(mask)[:, ::-1] + (extent[0], extent[2], extent[4])
    found = points @ world[:3, :3].T + world[:3, 3]
    expected = OBLIQUE.ras_of(np.argwhere(labels.array == 17))
    assert np.allclose(found, expected, atol=1e-3)


def test_flat_labels_become_one_slice_in_slicer(tmp_path: Path) -> None:
    flat = LabelMap(np.ones((1, 5, 6), np.uint8), Geometry((1, 5, 6), planar=True))
    write_slicer_segmentation(tmp_path / "x.seg.nrrd", flat, (Label(1, "polyp"),))
    assert sitk.ReadImage(str(tmp_path / "x.seg.nrrd")).GetSize() == (6, 5, 1)
