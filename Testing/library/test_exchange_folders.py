"""Folders of images come in: pairs by name, bad files set aside and named, labels settled once."""

from __future__ import annotations

import gzip
import unicodedata
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from small_cases import OBLIQUE, small_image, small_labels

from SAM2IterativeLib.errors import DataError, SettingsError
from SAM2IterativeLib.exchange import Candidate, ImportOptions, import_any, import_candidates, known_images, write_slicer_segmentation
from SAM2IterativeLib.exchange.folders import image_files, import_folder
from SAM2IterativeLib.exchange.importing import unusable_files
from SAM2IterativeLib.files import sha256_of
from SAM2IterativeLib.project import Project, label_of
from SAM2IterativeLib.settings import Label
from SAM2IterativeLib.volumes import Geometry, LabelMap, Volume, write_label_map, write_volume


@pytest.fixture
def empty(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "fresh")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """images/ with 001 to 004, labels/ for 001 and 002."""
    for n in range(1, 5):
        write_volume(tmp_path / "data" / "images" / f"{n:03d}.nii.gz", small_image(n))
    for n in (1, 2):
        write_label_map(tmp_path / "data" / "labels" / f"{n:03d}.nii.gz", small_labels())
    return tmp_path / "data"


def test_a_label_file_with_an_images_name_makes_a_case_labelled(empty: Project, folder: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    report = import_any(empty, folder / "images", folder / "labels", on_case=lambda *call: calls.append(call))
    assert [(c.id, c.role) for c in report.added] == [
        ("001", "labelled"),
        ("002", "labelled"),
        ("003", "unlabelled"),
        ("004", "unlabelled"),
    ]
    assert calls == [(0, 4, "001"), (1, 4, "002"), (2, 4, "003"), (3, 4, "004")]
    assert [(label.value, label.name) for label in empty.settings.labels] == [(1, "label 1"), (2, "label 2")]
    assert not report.set_aside and not report.remarks
    assert np.array_equal(empty.read_case_label(empty.case("001")).array, small_labels().array)


def test_sources_are_never_touched(empty: Project, folder: Path) -> None:
    before = {p: sha256_of(p) for p in folder.rglob("*") if p.is_file()}
    import_any(empty, folder / "images", folder / "labels")
    assert {p: sha256_of(p) for p in folder.rglob("*") if p.is_file()} == before


def test_real_cases_keep_their_voxels_and_grid(empty: Project, real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for source in (real_data / "hippocampus", real_data / "left_atrium"):
        path = sorted((source / "images").iterdir())[0]
        for kind in ("images", "labels"):
            (tmp_path / kind / path.name).write_bytes((source / kind / path.name).read_bytes())
    report = import_any(empty, tmp_path / "images", tmp_path / "labels")
    assert len(report.added) == 2
    for case in report.added:
        original = nibabel.Nifti1Image.from_filename(tmp_path / "images" / case.source)
        copy = empty.read_case_image(case)
        assert np.array_equal(copy.array.transpose(2, 1, 0), np.asarray(original.dataobj))
        assert np.allclose(copy.geometry.ijk_to_ras(), original.affine, atol=1e-5)


def test_bad_files_are_set_aside_and_the_others_go_on(empty: Project, folder: Path) -> None:
    images = folder / "images"
    whole = (images / "002.nii.gz").read_bytes()
    (images / "002.nii.gz").write_bytes(whole[: len(whole) // 2])
    (images / "003.nii.gz").write_bytes(b"")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6, 7), np.int16), np.eye(4)), images / "film.nii.gz")
    (images / "notes.txt").write_text("x")
    write_volume(folder / "labels" / "004.nii.gz", small_image(4))
    write_label_map(folder / "labels" / "999.nii.gz", small_labels())
    report = import_folder(empty, images, folder / "labels")
    assert [c.id for c in report.added] == ["001"]
    reasons = dict(report.set_aside)
    assert "cut short" in reasons["002"] and "002.nii.gz" in reasons["002"]
    assert "0 bytes" in reasons["003"]
    assert "4 dimensions" in reasons["film"]
    assert "looks like an image" in reasons["004"]
    assert set(report.ignored) == {"notes.txt", "999.nii.gz"}
    assert len(empty.journal.events("set aside")) == 4
    assert {p.name for p in (empty.folder / "cases").iterdir()} == {"001"}


def test_what_was_repaired_is_no_longer_unusable(empty: Project, folder: Path) -> None:
    whole = {n: (folder / "images" / f"{n:03d}.nii.gz").read_bytes() for n in (1, 3)}
    for n in whole:
        (folder / "images" / f"{n:03d}.nii.gz").write_bytes(b"")
    for _ in range(2):
        import_any(empty, folder / "images", folder / "labels")
    assert unusable_files(empty) == ["001", "003"] and len(empty.journal.events("set aside")) == 4
    (folder / "images" / "001.nii.gz").write_bytes(whole[1])
    import_any(empty, folder / "images", folder / "labels")
    assert unusable_files(empty) == ["003"]


def test_importing_again_adds_only_what_is_new(empty: Project, folder: Path) -> None:
    import_any(empty, folder / "images", folder / "labels")
    write_volume(folder / "images" / "005.nii.gz", small_image(5))
    write_label_map(folder / "labels" / "003.nii.gz", small_labels(1))
    write_label_map(folder / "labels" / "001.nii.gz", small_labels(2))
    report = import_any(empty, folder / "images", folder / "labels")
    assert [c.id for c in report.added] == ["005"]
    assert [(c.id, c.role) for c in report.completed] == [("003", "labelled")]
    assert set(report.known) == {"002", "004"}
    assert "another label map, which stays" in dict(report.remarks)["001"]
    assert np.array_equal(empty.read_case_label(empty.case("001")).array, small_labels().array)


def test_an_excluded_case_stays_out(empty: Project, folder: Path) -> None:
    first = import_any(empty, folder / "images", folder / "labels").added[0]
    empty.set_role(first, "excluded")
    again = import_any(empty, folder / "images", folder / "labels")
    assert not again.added and "stays so" in dict(again.remarks)[first.id]
    assert empty.case(first.id).role == "excluded"


def test_a_copy_that_was_damaged_is_replaced_by_excluding_it(empty: Project, folder: Path) -> None:
    first = import_any(empty, folder / "images", folder / "labels").added[0]
    first.image.write_bytes(b"")
    empty.set_role(first, "excluded")
    again = import_any(empty, folder / "images", folder / "labels")
    assert [case.source for case in again.added] == [first.source] and again.added[0].role == first.role
    assert not import_any(empty, folder / "images", folder / "labels").added


def test_the_same_image_twice_is_told_once(empty: Project, folder: Path) -> None:
    (folder / "images" / "copy.nii.gz").write_bytes((folder / "images" / "001.nii.gz").read_bytes())
    report = import_any(empty, folder / "images")
    assert "the same as that of case 001" in dict(report.remarks)["copy"]
    again = import_any(empty, folder / "images")
    assert not again.added and len(again.known) == len(report.added)


def test_an_image_compressed_anew_is_the_same_image(empty: Project, folder: Path) -> None:
    import_any(empty, folder / "images", folder / "labels")
    empty.set_role("001", "validation")
    path = folder / "images" / "001.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=7))
    report = import_any(empty, folder / "images", folder / "labels")
    assert not report.added and "001" in report.known and empty.case("001").role == "validation"
    write_volume(path, small_image(77))
    report = import_any(empty, folder / "images")
    assert [case.source for case in report.added] == ["001.nii.gz"]
    assert "same name that shows something else" in dict(report.remarks)[report.added[0].id]


def test_a_copy_of_a_validation_case_is_not_learned_from(empty: Project, folder: Path) -> None:
    import_any(empty, folder / "images", folder / "labels")
    empty.set_role("001", "validation")
    for kind in ("images", "labels"):
        (folder / kind / "copy.nii.gz").write_bytes((folder / kind / "001.nii.gz").read_bytes())
    report = import_any(empty, folder / "images", folder / "labels")
    assert not report.added and "case 001, which is validation" in dict(report.set_aside)["copy"]


def test_a_file_that_may_not_be_read_is_set_aside(empty: Project, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(path: Path) -> str:
        if path.name == "002.nii.gz":
            raise PermissionError(13, "Permission denied")
        return sha256_of(path)

    monkeypatch.setattr(known_images, "sha256_of", digest)  # root may read everything, so the file's mode would not do
    report = import_any(empty, folder / "images", folder / "labels")
    assert "Permission denied" in dict(report.set_aside)["002"] and len(report.added) == 3


def test_a_size_that_no_patient_has_is_told(empty: Project, folder: Path) -> None:
    image = small_image(9)
    write_volume(
        folder / "images" / "micrometres.nii.gz", replace(image, geometry=replace(image.geometry, spacing=(2500.0, 1000.0, 1000.0)))
    )
    report = import_any(empty, folder / "images")
    assert "another unit than mm" in dict(report.remarks)["micrometres"] and "001" not in dict(report.remarks)


def test_names_are_given_to_values_with_gaps(empty: Project, folder: Path) -> None:
    for n in (1, 2):
        write_label_map(folder / "labels" / f"{n:03d}.nii.gz", small_labels(values=(3, 17)))
    import_any(empty, folder / "images", folder / "labels", label_names=["background", "anterior", "posterior"])
    assert [(label.value, label.name) for label in empty.settings.labels] == [(3, "anterior"), (17, "posterior")]
    classes = empty.read_case_label(empty.case("001")).classes(empty.values)
    assert set(np.unique(classes)) == {0, 1, 2}


def test_too_few_names_are_refused_before_anything_is_added(empty: Project, folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"1 label names were given, but the files hold the values \[1, 2\]"):
        import_any(empty, folder / "images", folder / "labels", label_names=["background", "all"])
    assert not empty.cases()


def test_one_label_too_many(project: Project, folder: Path) -> None:
    write_label_map(folder / "labels" / "002.nii.gz", small_labels(values=(2, 5)))
    report = import_any(project, folder / "images", folder / "labels")
    assert "holds the values [5]; the project's labels are [1, 2]" in dict(report.set_aside)["002"]
    assert len(report.added) == 3


def test_a_rare_value_is_questioned(empty: Project, folder: Path) -> None:
    for n in range(1, 5):
        write_label_map(folder / "labels" / f"{n:03d}.nii.gz", small_labels())
    write_volume(folder / "images" / "005.nii.gz", small_image(5))
    write_label_map(folder / "labels" / "005.nii.gz", small_labels(values=(1, 200)))
    report = import_any(empty, folder / "images", folder / "labels")
    assert "label 200 occurs in only one of 5 label maps" in dict(report.remarks)["labels"]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_white_masks_of_pictures(empty: Project, tmp_path: Path, suffix: str) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (1, 40, 40, 3), dtype=np.uint8)
    mask = np.zeros((1, 40, 40), np.uint8)
    mask[0, 10:30, 5:20] = 255
    flat = Geometry((1, 40, 40), planar=True)
    for n in range(2):
        write_volume(tmp_path / "images" / f"{n}.jpg", Volume(colours + n, flat))
    write_label_map(tmp_path / "masks" / f"0{suffix}", LabelMap(mask, flat))
    report = import_any(empty, tmp_path / "images", tmp_path / "masks", label_names=["background", "polyp"])
    assert [(c.id, c.role) for c in report.added] == [("0", "labelled"), ("1", "unlabelled")]
    assert "128 and more was taken as label 1 (polyp)" in dict(report.remarks)[f"0{suffix}"]
    assert np.array_equal(empty.read_case_label(empty.case("0")).array * 255, mask)
    assert empty.read_case_image(empty.case("1")).colour


def test_a_white_mask_in_a_project_of_several_labels(project: Project, tmp_path: Path) -> None:
    write_volume(tmp_path / "i" / "x.nii.gz", small_image())
    write_label_map(tmp_path / "l" / "x.nii.gz", LabelMap((small_labels().array > 0).astype(np.uint8) * 255, OBLIQUE))
    report = import_any(project, tmp_path / "i", tmp_path / "l")
    assert "0/255 mask, but the project has the labels [1, 2]" in report.set_aside[0][1]


def test_an_empty_label_map_means_nothing_there(empty: Project, folder: Path) -> None:
    write_label_map(folder / "labels" / "002.nii.gz", LabelMap(np.zeros(OBLIQUE.size, np.uint8), OBLIQUE))
    report = import_any(empty, folder / "images", folder / "labels")
    assert empty.case("002").role == "labelled"
    assert "empty" in dict(report.remarks)["002"]


def test_a_label_map_on_another_grid(project: Project, folder: Path) -> None:
    x, y, z = OBLIQUE.origin
    moved = replace(OBLIQUE, origin=(x + 0.5, y + 0.5, z + 0.5))
    write_label_map(folder / "labels" / "001.nii.gz", replace(small_labels(), geometry=moved))
    images, labels = folder / "images", folder / "labels"
    report = import_any(project, images, labels)
    assert "does not lie on its image: origin (-31, 12.75, 100.625) against (-31.5, 12.25, 100.125)" in report.set_aside[0][1]
    report = import_any(project, images, labels, options=ImportOptions(on_mismatch="copy geometry"))
    assert [c.id for c in report.added] == ["001"] and "took over" in dict(report.remarks)["001.nii.gz"]
    assert np.array_equal(project.read_case_label(project.case("001")).array, small_labels().array)


def test_a_finer_label_map_is_resampled_on_request(project: Project, folder: Path) -> None:
    array = small_labels().array.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    x, y, z = OBLIQUE.ras_of((-0.25, -0.25, -0.25))
    fine = Geometry((12, 20, 16), (1.25, 0.35, 0.45), (-x, -y, z), OBLIQUE.direction)
    write_label_map(folder / "labels" / "001.nii.gz", LabelMap(array, fine))
    report = import_any(project, folder / "images", folder / "labels", options=ImportOptions(on_mismatch="resample"))
    assert not report.set_aside
    assert np.array_equal(project.read_case_label(project.case("001")).array, small_labels().array)


def test_sheared_images_are_set_aside_or_resampled_with_their_labels(project: Project, tmp_path: Path) -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 1] = 0.2
    labels = np.zeros((20, 20, 10), np.uint8)
    labels[5:15, 5:15, 3:7] = 1
    (tmp_path / "i").mkdir()
    (tmp_path / "l").mkdir()
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.int16) * 100, affine), tmp_path / "i" / "x.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / "l" / "x.nii.gz")
    report = import_any(project, tmp_path / "i", tmp_path / "l")
    assert "right angles" in report.set_aside[0][1]
    report = import_any(project, tmp_path / "i", tmp_path / "l", options=ImportOptions(resample_sheared=True))
    (case,) = report.added
    image, label = project.read_case_image(case), project.read_case_label(case)
    assert image.geometry.mismatch(label.geometry) is None and label.values == (1,)
    assert image.array[label.array == 1].mean() > 80 and image.array[label.array == 0].mean() < 15
    assert "resampled copy" in dict(report.remarks)[case.id]


def test_a_new_project_takes_its_labels_from_sheared_label_maps(empty: Project, tmp_path: Path) -> None:
    affine = np.array([[1.0, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    labels = np.zeros((12, 14, 8), np.uint8)
    labels[3:9, 3:9, 2:6] = 4
    for folder, array in (("i", labels.astype(np.float32)), ("l", labels)):
        (tmp_path / folder).mkdir()
        nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / folder / "x.nii.gz")
    report = import_any(empty, tmp_path / "i", tmp_path / "l", options=ImportOptions(resample_sheared=True))
    assert [case.role for case in report.added] == ["labelled"] and empty.values == (4,)


def test_a_sheared_label_map_must_hold_labels_too(project: Project, tmp_path: Path) -> None:
    affine = np.array([[1.0, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for folder, array in (("i", np.full((12, 14, 8), 5.0, np.float32)), ("l", np.full((12, 14, 8), 0.8, np.float32))):
        (tmp_path / folder).mkdir()
        nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / folder / "x.nii.gz")
    report = import_any(project, tmp_path / "i", tmp_path / "l", options=ImportOptions(resample_sheared=True))
    assert not report.added and "x.nii.gz" in report.set_aside[0][1]


def _segmentation(path: Path, image: Volume, *segments: Label) -> None:
    """A Slicer segmentation on an image's grid: segment n fills rows 2n and 2n + 1."""
    array = np.zeros(image.array.shape, np.uint8)
    for n, segment in enumerate(segments):
        array[1:3, 2 * n : 2 * n + 2, 2:7] = segment.value
    write_slicer_segmentation(path, LabelMap(array, image.geometry), segments)


def test_segments_become_the_labels_of_their_names(empty: Project, tmp_path: Path) -> None:
    """Slicer numbers the segments of every file from 1."""
    for n in (1, 2, 3):
        write_volume(tmp_path / f"{n}.nii.gz", small_image(n))
    liver, spleen = Label(1, "Liver", (200, 100, 50), "some~terms"), Label(1, "spleen", (10, 20, 30))
    _segmentation(tmp_path / "1.seg.nrrd", small_image(1), liver, replace(spleen, value=2))
    _segmentation(tmp_path / "2.seg.nrrd", small_image(2), spleen)
    _segmentation(tmp_path / "3.seg.nrrd", small_image(3), replace(spleen, name="kidney"), replace(liver, value=2))
    import_any(empty, tmp_path)
    assert empty.settings.labels == (liver, replace(spleen, value=2), replace(spleen, value=3, name="kidney"))
    assert [empty.read_case_label(empty.case(name)).values for name in "123"] == [(1, 2), (2,), (1, 3)]
    write_volume(tmp_path / "4.nii.gz", small_image(4))
    write_volume(tmp_path / "5.nii.gz", small_image(5))
    write_volume(tmp_path / "6.nii.gz", small_image(6))
    _segmentation(tmp_path / "4.seg.nrrd", small_image(4), Label(1, "lung"))
    _segmentation(tmp_path / "5.seg.nrrd", small_image(5), Label(2, "Segment_2"))
    _segmentation(tmp_path / "6.seg.nrrd", small_image(6), Label(1, "liver"), Label(2, "LIVER"))
    report = import_any(empty, tmp_path)
    reasons = dict(report.set_aside)
    assert "its segment 'lung' bears the name of no label of the project (Liver, spleen, kidney)" in reasons["4"]
    assert "'liver' and 'LIVER' are one label" in reasons["6"]
    assert empty.read_case_label(empty.case("5")).values == (2,), "nobody named it: its number counts"


def test_nameless_labels_take_segments_by_number(project: Project, tmp_path: Path) -> None:
    project.change_settings(replace(project.settings, labels=(label_of(1), label_of(2))))
    write_volume(tmp_path / "x.nii.gz", small_image(1))
    _segmentation(tmp_path / "x.seg.nrrd", small_image(1), Label(2, "spleen"))
    (case,) = import_any(project, tmp_path).added
    assert project.read_case_label(case).values == (2,)


def test_label_maps_beside_their_images(empty: Project, tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii.gz", small_image(1))
    write_volume(tmp_path / "b.nii.gz", small_image(2))
    write_volume(tmp_path / "odd_seg.nii.gz", small_image(3))
    write_label_map(tmp_path / "a_seg.nii.gz", small_labels())
    sitk.WriteImage(sitk.GetImageFromArray(small_labels().array), str(tmp_path / "b.seg.nrrd"))
    assert [p.name for p in image_files(tmp_path)] == ["a.nii.gz", "b.nii.gz", "odd_seg.nii.gz"]
    report = import_any(empty, tmp_path)
    assert [c.id for c in report.added] == ["a", "odd_seg"]
    assert "does not lie on its image" in dict(report.set_aside)["b"], "its label map was found"


def test_one_folder_given_for_images_and_label_maps(empty: Project, tmp_path: Path) -> None:
    for n in (1, 2):
        write_volume(tmp_path / "all" / f"{n}.nii.gz", small_image(n))
    write_label_map(tmp_path / "all" / "1_drawn.nii.gz", small_labels())
    with pytest.raises(DataError, match=r"all: it was given for images and label maps, and no file in it bears .* such as _seg"):
        import_any(empty, tmp_path / "all", tmp_path / "all")
    assert not empty.cases()
    (tmp_path / "all" / "1_drawn.nii.gz").rename(tmp_path / "all" / "1_seg.nii.gz")
    report = import_any(empty, tmp_path / "all", tmp_path / "all" / ".." / "all")
    assert [(case.id, case.role) for case in report.added] == [("1", "labelled"), ("2", "unlabelled")] and not report.ignored


def test_label_maps_beside_images_are_named_where_others_were_given(empty: Project, folder: Path) -> None:
    write_label_map(folder / "images" / "003_seg.nii.gz", small_labels())
    assert import_any(empty, folder / "images", folder / "labels").ignored == ("003_seg.nii.gz",)


def test_names_pair_however_their_accents_are_written(empty: Project, tmp_path: Path) -> None:
    name = "Müller Ä"
    nfd, nfc = (unicodedata.normalize(form, name) for form in ("NFD", "NFC"))
    assert nfd != nfc
    write_volume(tmp_path / "i" / f"{nfd}.nii.gz", small_image(1))
    write_label_map(tmp_path / "l" / f"{nfc}.nii.gz", small_labels())
    write_volume(tmp_path / "b" / f"{nfc}.nii.gz", small_image(2))
    write_label_map(tmp_path / "b" / f"{nfd}_seg.nii.gz", small_labels())
    (case,) = import_any(empty, tmp_path / "i", tmp_path / "l").added
    assert case.role == "labelled" and [c.role for c in import_any(empty, tmp_path / "b").added] == ["labelled"]
    (tmp_path / "i" / f"{nfd}.nii.gz").rename(tmp_path / "i" / f"{nfc}.nii.gz")
    assert not import_any(empty, tmp_path / "i").added


def test_links_to_what_is_not_here_are_set_aside(empty: Project, folder: Path) -> None:
    (folder / "images" / "linked.nii.gz").symlink_to("nowhere")
    (folder / "labels" / "003.nii.gz").symlink_to("nowhere")
    report = import_any(empty, folder / "images", folder / "labels")
    assert [c.id for c in report.added] == ["001", "002", "004"]
    reasons = dict(report.set_aside)
    assert set(reasons) == {"linked", "003"} and all("link to a file that is not here. Fetch it first" in text for text in reasons.values())
    (folder / "links").mkdir()
    (folder / "links" / "a.nii.gz").symlink_to("nowhere")
    assert "not here" in dict(import_any(empty, folder / "links").set_aside)["a"]
    assert [path.name for path in image_files(folder / "links")] == ["a.nii.gz"], "predicting names it too"


def test_images_in_subfolders_are_told_once_a_folder(tmp_path: Path, folder: Path) -> None:
    images, labels = folder / "images", folder / "labels"
    for path in (
        images / "p1" / "a.nii.gz",
        images / "p2" / "deep" / "b.nii.gz",
        images / ".hidden" / "c.nii.gz",
        labels / "p1" / "l.nii.gz",
    ):
        write_volume(path, small_image(7))
    (images / "notes").mkdir()
    with Project.create(images / "project") as made:  # whose own images are no news
        report = import_any(made, images, labels)
    told = dict(report.remarks)
    assert set(told) == {"images", "labels"}
    assert "images in 2 subfolders (such as p1) were left out" in told["images"] and "1 subfolder (such as p1)" in told["labels"]


def test_label_maps_below_the_images_are_searched(empty: Project, folder: Path) -> None:
    (folder / "labels").rename(folder / "images" / "labels")
    report = import_any(empty, folder / "images", folder / "images" / "labels")
    assert not report.remarks and sum(case.role == "labelled" for case in report.added) == 2


def test_the_voxels_of_a_header_of_its_own_are_not_left_out(empty: Project, tmp_path: Path) -> None:
    for n, suffix in enumerate((".mhd", ".nhdr")):
        sitk.WriteImage(sitk.GetImageFromArray(small_image(n).array), str(tmp_path / f"x{n}{suffix}"))
    (tmp_path / "other.raw").write_bytes(b"x")
    report = import_any(empty, tmp_path)
    assert len(report.added) == 2 and report.ignored == ("other.raw",)


def test_one_label_map_belongs_to_one_image(empty: Project, tmp_path: Path) -> None:
    write_volume(tmp_path / "i" / "a.nii.gz", small_image(1))
    write_volume(tmp_path / "i" / "a.nrrd", small_image(2))
    write_volume(tmp_path / "i" / "b.nii.gz", small_image(3))
    write_volume(tmp_path / "i" / "b.mha", small_image(4))
    for name in ("a.nii.gz", "b.nrrd"):
        write_label_map(tmp_path / "l" / name, small_labels())
    report = import_any(empty, tmp_path / "i", tmp_path / "l")
    assert {c.source: c.role for c in report.added} == {
        "a.nii.gz": "labelled", "a.nrrd": "unlabelled", "b.mha": "unlabelled", "b.nii.gz": "unlabelled"
    }  # fmt: skip
    assert "b.nrrd" in report.ignored


def test_channel_numbers_and_case_in_names(empty: Project, tmp_path: Path) -> None:
    write_volume(tmp_path / "i" / "x_0000.nii.gz", small_image())
    write_label_map(tmp_path / "l" / "x.nrrd", small_labels())
    report = import_any(empty, tmp_path / "i", tmp_path / "l")
    assert [(c.id, c.role) for c in report.added] == [("x", "labelled")]


def test_opaque_ids(empty: Project, folder: Path) -> None:
    report = import_any(empty, folder / "images", options=ImportOptions(opaque_ids=True))
    assert [c.id for c in report.added] == ["case_0001", "case_0002", "case_0003", "case_0004"]
    again = import_any(empty, folder / "images", options=ImportOptions(opaque_ids=True))
    assert not again.added and len(again.known) == 4


def test_folders_without_images(empty: Project, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        import_any(empty, tmp_path / "gone")
    (tmp_path / "void" / "deeper").mkdir(parents=True)
    (tmp_path / "labels").mkdir()
    for labels in (None, tmp_path / "labels"):
        with pytest.raises(DataError, match="no image file in this folder, and no DICOM series in or below it"):
            import_any(empty, tmp_path / "void", labels)
    with pytest.raises(DataError, match=r"no image in this folder\. Its subfolders are not searched"):
        image_files(tmp_path / "void")


def test_a_volume_from_memory(project: Project) -> None:
    candidate = Candidate("loaded", Path("loaded in Slicer"), read_image=lambda _: small_image(9), identity="node-1")
    assert [c.id for c in import_candidates(project, [candidate]).added] == ["loaded"]
    assert import_candidates(project, [candidate]).known == ("loaded",)


def test_a_validation_folder(project: Project, folder: Path) -> None:
    report = import_any(project, folder / "images", folder / "labels", role="validation")
    assert [c.id for c in report.added] == ["001", "002"]
    assert "a validation case needs a label map" in dict(report.set_aside)["003"]


def test_known_cases_become_validation_cases(project: Project, folder: Path) -> None:
    import_any(project, folder / "images")
    report = import_any(project, folder / "images", folder / "labels", role="validation")
    assert [(c.id, project.case(c.id).role) for c in report.completed] == [("001", "validation"), ("002", "validation")]
    assert "is validation from now on" in dict(report.remarks)["001"]
    assert "without a label map cannot be 'validation'" in dict(report.set_aside)["003"]
