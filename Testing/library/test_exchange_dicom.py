"""DICOM series in, segmentation objects out, and no patient in between."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import SLICES, Change, write_file, write_series
from pydicom.fileset import FileSet

from SAM2IterativeLib.errors import DataError
from SAM2IterativeLib.exchange import export_labels, import_any
from SAM2IterativeLib.exchange.dicom import read_series
from SAM2IterativeLib.exchange.dicom_series import find_series
from SAM2IterativeLib.exchange.importing import unusable_files
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.volumes import LabelMap, write_label_map


@pytest.fixture
def imported(project: Project, tmp_path: Path) -> Project:
    import_any(project, write_series(tmp_path / "Jane Doe"))
    return project


def _labels(project: Project) -> LabelMap:
    image = project.read_case_image(project.case("case_0001"))
    array = np.zeros(image.array.shape, np.uint8)
    array[1:4, 2:6, 3:8] = 1
    array[2, 6, 1:3] = 2
    return LabelMap(array, image.geometry)


def test_a_series_becomes_a_volume_in_slice_order(tmp_path: Path) -> None:
    (series,) = find_series(write_series(tmp_path / "s"))
    volume = read_series(series, "x")
    assert np.array_equal(volume.array[:, 0, 0], [1000 * k - 1000 for k in range(SLICES)])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "s")))
    image = reader.Execute()
    assert np.array_equal(volume.array, sitk.GetArrayFromImage(image))
    assert np.allclose(volume.geometry.spacing, image.GetSpacing()[::-1])
    assert np.allclose(volume.geometry.origin, image.GetOrigin())
    assert np.allclose(volume.geometry.direction, image.GetDirection(), atol=1e-7)


def test_the_real_series(real_data: Path, project: Project) -> None:
    report = import_any(project, real_data / "dicom_brain")
    (case,) = report.added
    image = project.read_case_image(case)
    assert image.array.shape[0] == 32 and image.geometry.spacing == (1.0, 1.0, 1.0)
    identity = pydicom.dcmread(next((real_data / "dicom_brain").rglob("*.dcm")), stop_before_pixels=True)
    for path in (p for p in project.folder.rglob("*") if p.is_file()):
        assert str(identity.PatientName).encode() not in path.read_bytes()


def test_several_series_and_other_files(project: Project, tmp_path: Path) -> None:
    write_series(tmp_path / "all" / "one")
    write_series(tmp_path / "all" / "two")
    (tmp_path / "all" / "README").write_text("no image")
    report = import_any(project, tmp_path / "all")
    assert [(c.id, c.role) for c in report.added] == [("case_0001", "unlabelled"), ("case_0002", "unlabelled")]
    assert import_any(project, tmp_path / "all").known == ("case_0001", "case_0002")
    assert len(project.cases()) == 5


def test_slopes_that_differ_between_slices(tmp_path: Path) -> None:
    def slope(k: int, data: pydicom.Dataset) -> None:
        data.RescaleSlope, data.RescaleIntercept = 1 + k, 0

    volume = read_series(find_series(write_series(tmp_path / "s", slope))[0], "x")
    assert np.array_equal(volume.array[:, 0, 1], [(1000 * k + 1) * (1 + k) for k in range(SLICES)])


def _missing(folder: Path) -> None:
    paths = {int(pydicom.dcmread(p).InstanceNumber): p for p in folder.iterdir()}
    paths[3].unlink()


def test_a_missing_slice_is_told(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    _missing(folder)
    with pytest.raises(DataError, match=r"uneven: 5\.00 mm after slice 2, 2\.50 mm elsewhere"):
        read_series(find_series(folder)[0], "x")


def _double(k: int, data: pydicom.Dataset) -> None:
    data.ImagePositionPatient = [-20.0, 5.0, 2.5 * (k // 2)]


def _tilt(k: int, data: pydicom.Dataset) -> None:
    data.ImagePositionPatient = [-20.0, 5.0 + k, 2.5 * k]


def _other_size(k: int, data: pydicom.Dataset) -> None:
    if k == 2:
        data.Rows, data.Columns = 10, 8


def _nowhere(k: int, data: pydicom.Dataset) -> None:
    del data.ImagePositionPatient


def _colour(k: int, data: pydicom.Dataset) -> None:
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.PixelData = 7, 0, bytes(8 * 10 * 3)


def _without(name: str) -> Change:
    def change(k: int, data: pydicom.Dataset) -> None:
        delattr(data, name)

    return change


def _with(**values: object) -> Change:
    def change(k: int, data: pydicom.Dataset) -> None:
        for name, value in values.items():
            setattr(data, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_double, "in the same place"),
        (_other_size, "its slices differ in Rows: 10, 8"),
        (_nowhere, "do not say where they lie"),
        (_colour, "in colour"),
        (_without("PixelSpacing"), r"does not say its PixelSpacing"),
        (_with(PixelSpacing=None), r"does not say its PixelSpacing"),
        (_with(PixelSpacing=[0.7]), r"not sound"),
        (_with(ImageOrientationPatient=[1.0, 0.0, 0.0]), r"not sound"),
        (_with(ImagePositionPatient=[1.0, 2.0]), r"not sound"),
        (_with(ImagePositionPatient=None), r"not sound"),
        (_with(Rows=None), r"does not say its Rows"),
    ],
)
def test_series_that_are_no_volume(tmp_path: Path, change: Change, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_series(find_series(write_series(tmp_path / "s", change))[0], "x")


def test_gantry_tilt_is_refused_with_a_cure_that_works(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gantry tilt.*Acquisition geometry regularization"):
        read_series(find_series(write_series(tmp_path / "s", _tilt))[0], "x")


def test_a_bad_series_does_not_stop_the_others(project: Project, tmp_path: Path) -> None:
    write_series(tmp_path / "all" / "bad", _double)
    write_series(tmp_path / "all" / "good")
    report = import_any(project, tmp_path / "all")
    assert len(report.added) == 1 and "in the same place" in report.set_aside[0][1]


def test_a_bad_series_is_named_by_its_files(project: Project, tmp_path: Path) -> None:
    write_series(tmp_path / "all" / "bad", _with(PixelSpacing=[0.7]))
    write_series(tmp_path / "all" / "good")
    report = import_any(project, tmp_path / "all")
    assert len(report.added) == 1
    [(name, sentence)] = report.set_aside
    assert name == "DICOM series of bad/00.dcm (6 files)" and sentence.startswith(name)


def test_a_slice_that_breaks_off_is_named(project: Project, tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    last = max(folder.iterdir(), key=lambda p: pydicom.dcmread(p).ImagePositionPatient[2])
    last.write_bytes(last.read_bytes()[:200])
    report = import_any(project, folder)
    assert len(report.added) == 1
    assert [name for name, _ in report.set_aside] == [f"s/{last.name}"] and "is damaged" in report.set_aside[0][1]


@pytest.mark.parametrize("change", [lambda data: data[:1083], lambda data: data.replace(b"US\x02\x00\x08\x00", b"US\x01\x00\x08", 1)])
def test_a_slice_that_pydicom_cannot_read_is_named(project: Project, tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    """A header that ends within a field, and a number that is half as long as it must be."""
    folder = write_series(tmp_path / "s")
    last = max(folder.iterdir(), key=lambda p: pydicom.dcmread(p).ImagePositionPatient[2])
    last.write_bytes(change(last.read_bytes()))
    report = import_any(project, folder)
    assert len(report.added) == 1
    assert [name for name, _ in report.set_aside] == [f"s/{last.name}"] and "is damaged" in report.set_aside[0][1]


def test_the_list_of_contents_of_a_disc_is_no_broken_slice(project: Project, tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    contents = FileSet()
    for path in sorted(folder.iterdir()):
        contents.add(path)
    contents.write(tmp_path / "disc")
    assert (tmp_path / "disc" / "DICOMDIR").is_file()
    report = import_any(project, tmp_path / "disc")
    assert len(report.added) == 1 and not report.set_aside


def test_copies_of_a_slice_and_numbers_with_more_digits_do_no_harm(tmp_path: Path) -> None:
    def more_digits(k: int, data: pydicom.Dataset) -> None:
        data.PixelSpacing = [0.70000001, 0.9] if k % 2 else [0.7, 0.9]

    folder = write_series(tmp_path / "s", more_digits)
    shutil.copy(folder / "00.dcm", folder / "copy.dcm")
    assert read_series(find_series(folder)[0], "x").array.shape == (SLICES, 8, 10)


def _shared_ids(patient: str = "", brighter: int = 0) -> Change:
    """Headers as de-identifiers leave them: the same ids in every file of every patient."""

    def change(k: int, data: pydicom.Dataset) -> None:
        data.PatientID, data.StudyInstanceUID, data.SeriesInstanceUID, data.SOPInstanceUID = patient, "1.2.3", "1.2.4", ""
        data.PixelData = (np.frombuffer(data.PixelData, np.int16) + np.int16(brighter)).tobytes()

    return change


@pytest.mark.parametrize("id", ["", "1.2.5"])
def test_slices_that_share_an_id_are_no_copies(tmp_path: Path, id: str) -> None:
    (series,) = find_series(write_series(tmp_path / "s", _with(SOPInstanceUID=id)))
    assert len(series.files) == SLICES and read_series(series, "x").array.shape == (SLICES, 8, 10)


@pytest.mark.parametrize("patients", [("one", "two"), ("", "")])
def test_patients_who_share_all_other_ids_are_two_cases(project: Project, tmp_path: Path, patients: tuple[str, str]) -> None:
    """Told apart by who they are, or else by their folders, since both show the same stretch of the body."""
    for n, patient in enumerate(patients):
        write_series(tmp_path / "all" / f"p{n}", _shared_ids(patient, 100 * n))
    report = import_any(project, tmp_path / "all")
    assert not report.set_aside and [case.id for case in report.added] == ["case_0001", "case_0002"]
    lowest = [int(project.read_case_image(case).array.min()) for case in report.added]
    assert lowest == [-1000, -900]
    assert [("other folders" in sentence) for _, sentence in report.remarks] == ([] if patients[0] else [True, True])


def test_what_may_be_one_series_or_several_is_refused(project: Project, tmp_path: Path) -> None:
    """Slices without ids of their own, one folder each: a volume, or as many patients as folders."""
    whole = write_series(tmp_path / "s", _shared_ids())
    for path in sorted(whole.iterdir()):
        (tmp_path / "all" / path.stem).mkdir(parents=True)
        shutil.copy(path, tmp_path / "all" / path.stem)
    report = import_any(project, tmp_path / "all")
    assert not report.added and "nobody can tell whether that is one series" in report.set_aside[0][1]
    assert len(import_any(project, whole).added) == 1


def test_a_copy_with_another_header_is_a_copy(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    data = pydicom.dcmread(folder / "00.dcm")
    data.Manufacturer = "Other maker"
    write_file(folder / "copy.dcm", data)
    assert len(find_series(folder)[0].files) == SLICES


def test_slices_with_one_id_make_no_segmentation(project: Project, tmp_path: Path) -> None:
    import_any(project, write_series(tmp_path / "s", _with(SOPInstanceUID="1.2.5")))
    Review(project).correct(project.case("case_0001"), _labels(project), reviewer="Ada")
    assert "bear the same id" in dict(export_labels(project, tmp_path / "out", "dicom").refused)["case_0001"]


@pytest.mark.parametrize("name", ["slice.dcm", "IM0099"])
@pytest.mark.parametrize("length", [0, 100, 500])
def test_a_file_too_short_to_be_a_slice_is_named(project: Project, tmp_path: Path, name: str, length: int) -> None:
    folder = write_series(tmp_path / "s")
    for path in folder.iterdir():
        path.rename(folder / (f"IM{path.stem}" if name == "IM0099" else path.name))
    (folder / name).write_bytes(bytes(length))
    (folder / "README").write_text("no slice")
    (folder / "._IM0001.dcm").write_bytes(bytes(length))
    report = import_any(project, folder)
    assert len(report.added) == 1 and [name for name, _ in report.set_aside] == [f"s/{name}"]
    assert ("0 bytes" if length == 0 else "is damaged") in report.set_aside[0][1]


def test_a_folder_of_empty_slices_says_so(project: Project, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "00.dcm").touch()
    with pytest.raises(DataError, match=r"no whole DICOM file in or below it\. s/00\.dcm: it is empty"):
        import_any(project, tmp_path / "s")


def test_a_link_to_a_slice_that_is_not_here_is_named(project: Project, tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    (folder / "99.dcm").symlink_to("nowhere")
    (folder / ".git").mkdir()
    shutil.copy(folder / "00.dcm", folder / ".git" / "object.dcm")
    report = import_any(project, folder)
    ((name, sentence),) = report.set_aside
    assert name == "s/99.dcm" and "a link to a file that is not here. Fetch it first" in sentence
    assert "s/00.dcm" in find_series(folder)[0].files[0].as_posix()


def test_a_repaired_series_counts_as_imported(project: Project, tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    paths = {int(pydicom.dcmread(p).InstanceNumber): p for p in folder.iterdir()}
    content = paths[3].read_bytes()
    paths[3].write_bytes(b"")
    for _ in range(2):
        import_any(project, folder)
    assert len(unusable_files(project)) == 2, "the slice, and its series, each once"
    paths[3].write_bytes(content)
    assert len(import_any(project, folder).added) == 1 and unusable_files(project) == []


def test_files_without_the_bytes_before_the_header(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    whole = read_series(find_series(folder)[0], "x")
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        del data.file_meta
        data.preamble = None
        write_file(path, data, bare=True)
        assert path.read_bytes()[128:132] != b"DICM"
    assert np.array_equal(read_series(find_series(folder)[0], "x").array, whole.array)


def test_pictures_beside_a_series_do_not_hide_it(project: Project, tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((20, 20), np.uint8)), str(folder / "preview.jpg"))
    with pytest.raises(DataError, match="both image files and DICOM series"):
        import_any(project, folder)


def test_label_maps_join_series_by_the_id_of_their_case(project: Project, tmp_path: Path) -> None:
    series = [write_series(tmp_path / "scans" / name) for name in ("first", "second")]
    before = len(project.cases())
    added = import_any(project, tmp_path / "scans").added
    assert len(added) == len(series) and not any(case.label for case in added)
    grid = project.read_case_image(added[1]).geometry
    drawn = np.zeros(grid.size, np.uint8)
    drawn[2, 2:5, 3:7] = project.values[0]
    write_label_map(tmp_path / "labels" / f"{added[1].id}.nii.gz", LabelMap(drawn, grid))
    write_label_map(tmp_path / "labels" / "nobody.nii.gz", LabelMap(drawn, grid))
    report = import_any(project, tmp_path / "scans", tmp_path / "labels")
    assert [case.id for case in report.completed] == [added[1].id] and report.ignored == ("nobody.nii.gz",)
    assert len(project.cases()) == before + 2
    assert np.array_equal(project.read_case_label(project.case(added[1].id)).array, drawn)
    shutil.rmtree(tmp_path / "scans" / "first")
    write_series(tmp_path / "scans" / "third")
    (new,) = import_any(project, tmp_path / "scans", tmp_path / "labels").added
    assert new.role == "unlabelled" and new.id not in {case.id for case in added}, "a label map of another case is none of its own"


def test_the_identity_appears_nowhere(imported: Project) -> None:
    """The one local file that maps cases to paths apart, nothing in the project knows the patient."""
    case = imported.case("case_0001")
    Review(imported).correct(case, _labels(imported), reviewer="Ada")
    secrets = (b"Doe", b"Jane", b"ID-4711", b"19700101", b"ACC-0815", b"Doc^Tor")
    for path in (p for p in imported.folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        found = [s for s in secrets if s in content and not (path.name == "journal.sqlite" and s in (b"Doe", b"Jane"))]
        assert not found, f"{path.name} holds {found}"


def test_segmentation_objects(imported: Project, tmp_path: Path) -> None:
    labels = _labels(imported)
    Review(imported).correct(imported.case("case_0001"), labels, reviewer="Ada")
    report = export_labels(imported, tmp_path / "out", "dicom")
    assert [p.name for p in report.written] == ["case_0001.seg.dcm"]
    assert dict(report.refused)["a"] == "a: the case did not come from DICOM. Export it as NIfTI or seg.nrrd."
    segmentation = pydicom.dcmread(report.written[0])
    source = pydicom.dcmread(next((tmp_path / "Jane Doe").iterdir()))
    assert segmentation.Modality == "SEG" and segmentation.SegmentationType == "BINARY"
    assert segmentation.StudyInstanceUID == source.StudyInstanceUID and segmentation.PatientID == source.PatientID
    assert segmentation.FrameOfReferenceUID == source.FrameOfReferenceUID
    names = [(s.SegmentNumber, s.SegmentLabel, s.SegmentAlgorithmType) for s in segmentation.SegmentSequence]
    assert names == [(1, "anterior", "SEMIAUTOMATIC"), (2, "posterior", "SEMIAUTOMATIC")]
    assert _as_label_map(report.written[0], imported).tolist() == labels.array.tolist()
    again = export_labels(imported, tmp_path / "again", "dicom")
    assert pydicom.dcmread(again.written[0]).SOPInstanceUID == segmentation.SOPInstanceUID


def _as_label_map(path: Path, project: Project) -> np.ndarray:
    """Place each frame by its position in the patient, as a viewer would."""
    segmentation = pydicom.dcmread(path)
    geometry = project.read_case_image(project.case("case_0001")).geometry
    array = np.zeros(geometry.size, np.uint8)
    for frame, groups in zip(segmentation.pixel_array, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=float) * (-1, -1, 1)
        k, j, i = np.rint(geometry.kji_of(position)).astype(int)
        assert (j, i) == (0, 0)
        array[k][frame > 0] = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    return array


def _de_identified(k: int, data: pydicom.Dataset) -> None:
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
        if name in data:
            delattr(data, name)


def test_a_segmentation_of_files_that_name_nobody(project: Project, tmp_path: Path) -> None:
    (case,) = import_any(project, write_series(tmp_path / "s", _de_identified)).added
    Review(project).correct(case, _labels(project), reviewer="Ada")
    report = export_labels(project, tmp_path / "out", "dicom")
    segmentation = pydicom.dcmread(report.written[0])
    assert (segmentation.PatientName, segmentation.PatientBirthDate, segmentation.StudyDate) == ("", "", "")


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SOPClassUID", "FrameOfReferenceUID"])
def test_a_series_that_lacks_what_a_segmentation_refers_to_is_left_out(project: Project, tmp_path: Path, name: str) -> None:
    import_any(project, write_series(tmp_path / "all" / "s", _without(name)))
    import_any(project, write_series(tmp_path / "all" / "t", _without("SliceThickness")))
    for case in ("case_0001", "case_0002"):
        Review(project).correct(project.case(case), _labels(project), reviewer="Ada")
    report = export_labels(project, tmp_path / "out", "dicom")
    assert f"does not say its {name}" in dict(report.refused)["case_0001"]
    (written,) = report.written
    thickness = pydicom.dcmread(written).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness
    assert float(thickness) == pytest.approx(2.5), "the distance of the slices says it"


def _umlaut(k: int, data: pydicom.Dataset) -> None:
    data.SpecificCharacterSet, data.PatientName = "ISO_IR 100", "Müller^Jörg"


def test_names_beyond_ascii(project: Project, tmp_path: Path) -> None:
    import_any(project, write_series(tmp_path / "s", _umlaut))
    first, second = project.settings.labels
    project.change_settings(replace(project.settings, labels=(replace(first, name="Drüse 腺"), second)))
    Review(project).correct(project.case("case_0001"), _labels(project), reviewer="Ada")
    written = pydicom.dcmread(export_labels(project, tmp_path / "out", "dicom").written[0])
    assert written.SegmentSequence[0].SegmentLabel == "Drüse 腺"
    assert str(written.PatientName) == "Müller^Jörg"


def test_an_empty_segmentation(imported: Project, tmp_path: Path) -> None:
    empty = LabelMap(np.zeros_like(_labels(imported).array), _labels(imported).geometry)
    Review(imported).correct(imported.case("case_0001"), empty, reviewer="Ada")
    report = export_labels(imported, tmp_path / "out", "dicom")
    assert not pydicom.dcmread(report.written[0]).pixel_array.any()


def test_a_series_that_moved_away_is_told(imported: Project, tmp_path: Path) -> None:
    Review(imported).correct(imported.case("case_0001"), _labels(imported), reviewer="Ada")
    shutil.move(tmp_path / "Jane Doe", tmp_path / "elsewhere")
    report = export_labels(imported, tmp_path / "out", "dicom")
    assert not report.written
    assert f"{SLICES} of the {SLICES} files of its series are no longer where they were" in dict(report.refused)["case_0001"]
