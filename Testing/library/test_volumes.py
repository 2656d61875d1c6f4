"""Volumes travel with their geometry, and come back as they went."""

from __future__ import annotations

import resource
import time
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from small_cases import OBLIQUE, small_image, small_labels

from SAM2IterativeLib import volumes
from SAM2IterativeLib.errors import DataError, GeometryError, ResourceError
from SAM2IterativeLib.files import sha256_of
from SAM2IterativeLib.volumes import (
    Geometry,
    LabelMap,
    Volume,
    read_header,
    read_label_map,
    read_volume,
    resampled_orthonormal,
    write_label_map,
    write_volume,
)


def test_geometry_agrees_with_itk() -> None:
    image = sitk.GetImageFromArray(small_image().array)
    OBLIQUE.apply_to(image)
    lps = np.array(image.TransformIndexToPhysicalPoint((5, 7, 2)))
    assert np.allclose(OBLIQUE.ras_of((2, 7, 5)), lps * (-1, -1, 1))
    assert np.allclose(OBLIQUE.kji_of(OBLIQUE.ras_of((2, 7, 5))), (2, 7, 5))
    assert Geometry.of_image(image) == OBLIQUE


def test_ijk_to_ras_equals_the_affine_that_nibabel_reads(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii.gz", small_image())
    assert np.allclose(OBLIQUE.ijk_to_ras(), nibabel.Nifti1Image.from_filename(tmp_path / "a.nii.gz").affine, atol=1e-4)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
def test_round_trip_keeps_voxels_type_and_grid(tmp_path: Path, suffix: str, kind: type) -> None:
    volume = replace(small_image(), array=np.abs(small_image().array).astype(kind))
    write_volume(tmp_path / f"a{suffix}", volume)
    back = read_volume(tmp_path / f"a{suffix}")
    assert back.array.dtype == kind
    assert np.array_equal(back.array, volume.array)
    assert back.geometry.mismatch(OBLIQUE, tolerance_mm=1e-4) is None


def test_the_same_content_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix in (".nii.gz", ".nrrd"):
        write_volume(tmp_path / f"a{suffix}", small_image())
        monkeypatch.setattr(time, "time", lambda: 4e9)
        write_volume(tmp_path / f"b{suffix}", small_image())
        assert sha256_of(tmp_path / f"a{suffix}") == sha256_of(tmp_path / f"b{suffix}")


def test_a_year_between_writes_changes_no_byte(tmp_path: Path) -> None:
    write_label_map(tmp_path / "a.nii.gz", small_labels())
    assert (tmp_path / "a.nii.gz").read_bytes()[4:8] == b"\0\0\0\0", "the gzip header holds a time"


def test_wide_types_become_narrow_ones(tmp_path: Path) -> None:
    for kind, expected in ((np.float64, np.float32), (np.int64, np.int32), (np.uint32, np.int32)):
        sitk.WriteImage(sitk.GetImageFromArray(np.full((3, 4, 5), 7, kind)), str(tmp_path / "a.nrrd"))
        assert read_volume(tmp_path / "a.nrrd").array.dtype == expected
    sitk.WriteImage(sitk.GetImageFromArray(np.full((3, 4, 5), 2**40, np.int64)), str(tmp_path / "a.nrrd"))
    assert read_volume(tmp_path / "a.nrrd").array.dtype == np.float32


def test_mismatch_names_both_values() -> None:
    assert OBLIQUE.mismatch(OBLIQUE) is None
    assert OBLIQUE.mismatch(replace(OBLIQUE, size=(6, 10, 9))) == "(6, 10, 8) voxels (slices, rows, columns) against (6, 10, 9)"
    moved = OBLIQUE.mismatch(replace(OBLIQUE, origin=(-30.5, 12.25, 100.125)))
    assert moved is not None and moved.startswith("origin (-31.5, 12.25, 100.125) against (-30.5, 12.25, 100.125)")
    assert "1.00 mm apart" in moved
    wider = OBLIQUE.mismatch(replace(OBLIQUE, spacing=(3.0, 0.7, 0.9)))
    assert wider is not None and "spacing (2.5, 0.7, 0.9) against (3, 0.7, 0.9)" in wider


def test_rounded_directions_are_the_same_grid() -> None:
    rounded = replace(OBLIQUE, direction=tuple(round(v, 7) for v in OBLIQUE.direction))
    assert OBLIQUE.mismatch(rounded) is None
    tilted = replace(OBLIQUE, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
    assert OBLIQUE.mismatch(tilted) is not None


def test_flat_files_stay_flat(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(30, dtype=np.uint8).reshape(5, 6)), str(tmp_path / "a.nii.gz"))
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.array.shape == (1, 5, 6) and volume.geometry.planar
    write_label_map(tmp_path / "b.nii.gz", LabelMap(np.ones((1, 5, 6), np.uint8), volume.geometry))
    assert nibabel.Nifti1Image.from_filename(tmp_path / "b.nii.gz").shape == (6, 5)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_colour_pictures(tmp_path: Path, suffix: str) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (8, 9, 3), dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(tmp_path / f"a{suffix}"))
    volume = read_volume(tmp_path / f"a{suffix}")
    assert volume.colour and volume.array.shape == (1, 8, 9, 3) and volume.array.dtype == np.uint8
    assert volume.geometry == Geometry((1, 8, 9), planar=True)
    write_volume(tmp_path / "b.nrrd", volume)
    assert np.array_equal(read_volume(tmp_path / "b.nrrd").array, volume.array)


def test_grey_pictures_deep_pictures_and_alpha(tmp_path: Path) -> None:
    grey = np.arange(20, dtype=np.uint16).reshape(4, 5) * 300
    sitk.WriteImage(sitk.GetImageFromArray(grey), str(tmp_path / "grey.png"))
    assert np.array_equal(read_volume(tmp_path / "grey.png").array[0], grey)
    deep = np.full((4, 5, 4), 65535, np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(deep, isVector=True), str(tmp_path / "deep.png"))
    volume = read_volume(tmp_path / "deep.png")
    assert volume.array.shape == (1, 4, 5, 3) and volume.array.max() == 255


def test_pictures_ignore_the_resolution_tag(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.zeros((4, 5), np.uint8))
    image.SetSpacing((0.35, 0.35))
    sitk.WriteImage(image, str(tmp_path / "a.png"))
    assert read_volume(tmp_path / "a.png").geometry.spacing == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "ü.nrrd"])
def test_the_grid_is_read_from_the_header_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_volume(tmp_path / name, small_image())
    expected = read_volume(tmp_path / name).geometry
    monkeypatch.setattr(volumes, "_read_image", None)
    assert read_header(tmp_path / name) == (expected, 1)


def test_a_header_that_cannot_be_read_is_explained(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot be read"):
        read_header(tmp_path / "a.nrrd")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
def test_the_values_of_a_label_map(kind: type) -> None:
    array = np.zeros((3, 4, 5), kind)
    array[1, 2, 3], array[0, 0, 0] = 255, 7
    assert LabelMap(array, Geometry((3, 4, 5))).values == (7, 255)


def test_volumes_do_not_fit_into_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not fit into a picture"):
        write_volume(tmp_path / "a.png", small_image())
    flat = Volume(np.zeros((1, 4, 5), np.float32), Geometry((1, 4, 5)))
    with pytest.raises(DataError, match="cannot hold float32"):
        write_volume(tmp_path / "a.png", flat)


def test_labels_as_floats_pass_if_whole(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(small_labels().array.astype(np.float32)), str(tmp_path / "a.nii.gz"))
    assert np.array_equal(read_label_map(tmp_path / "a.nii.gz").array, small_labels().array)
    sitk.WriteImage(sitk.GetImageFromArray(small_labels().array * np.float32(0.5)), str(tmp_path / "a.nii.gz"))
    with pytest.raises(DataError, match="not whole numbers"):
        read_label_map(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_make_no_label_map(tmp_path: Path, suffix: str, value: float) -> None:
    array = small_labels().array.astype(np.float32)
    array[0, 0, :5] = value
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"a{suffix}"))
    with pytest.raises(DataError, match="5 of its voxels are not a number or infinite, so it is no label map"):
        read_label_map(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("error", [RuntimeError("Failed to allocate memory for image."), RuntimeError("std::bad_alloc"), MemoryError()])
@pytest.mark.parametrize("name", ["ReadImage", "GetArrayFromImage"])
def test_an_image_too_large_for_the_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, name: str) -> None:
    write_volume(tmp_path / "a.nrrd", small_image())

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(volumes.sitk, name, fail)
    for read in (read_volume, read_label_map, resampled_orthonormal):
        with pytest.raises(DataError, match=r"a\.nrrd: the memory does not suffice to read it \(8 x 10 x 6 voxels, 9\.6e-07 GB\)"):
            read(tmp_path / "a.nrrd")


def test_images_given_as_labels_are_refused(tmp_path: Path) -> None:
    write_volume(tmp_path / "ct.nii.gz", small_image())
    with pytest.raises(DataError, match=r"ct\.nii\.gz: its values run from -\d+ to"):
        read_label_map(tmp_path / "ct.nii.gz")
    noise = np.random.default_rng(0).integers(0, 100, OBLIQUE.size, dtype=np.uint8)
    write_volume(tmp_path / "mr.nii.gz", Volume(noise, OBLIQUE))
    with pytest.raises(DataError, match="100 different values, so it looks like an image"):
        read_label_map(tmp_path / "mr.nii.gz")


def test_a_whole_body_label_map_passes(tmp_path: Path) -> None:
    blocks = np.repeat(np.repeat(np.arange(120, dtype=np.uint8).reshape(1, 10, 12), 5, axis=1), 5, axis=2)
    write_label_map(tmp_path / "a.nii.gz", LabelMap(blocks, Geometry(blocks.shape)))
    assert len(read_label_map(tmp_path / "a.nii.gz").values) == 119


def test_real_images_are_never_taken_for_labels(real_data: Path) -> None:
    paths = sorted((real_data / "hippocampus" / "images").iterdir())[:6] + sorted((real_data / "left_atrium" / "images").iterdir())[:3]
    for path in paths:
        with pytest.raises(DataError):
            read_label_map(path)
        labels = read_label_map(path.parent.parent / "labels" / path.name)
        assert labels.values and labels.geometry.mismatch(read_volume(path).geometry) is None


def test_jpeg_masks_are_cut_at_half(tmp_path: Path) -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 12:25] = 255
    sitk.WriteImage(sitk.GetImageFromArray(mask), str(tmp_path / "m.jpg"))
    assert np.array_equal(read_label_map(tmp_path / "m.jpg").array[0], mask)


def test_colour_labels(tmp_path: Path) -> None:
    grey = np.repeat(small_labels().array[2][..., None], 3, axis=-1)
    sitk.WriteImage(sitk.GetImageFromArray(grey, isVector=True), str(tmp_path / "a.png"))
    assert np.array_equal(read_label_map(tmp_path / "a.png").array[0], grey[..., 0])
    grey[0, 0] = (1, 2, 3)
    sitk.WriteImage(sitk.GetImageFromArray(grey, isVector=True), str(tmp_path / "a.png"))
    with pytest.raises(DataError, match="colour picture, given as labels"):
        read_label_map(tmp_path / "a.png")


def test_classes_and_values_with_gaps() -> None:
    labels = small_labels(values=(7, 300 - 256))
    classes = labels.classes((7, 44))
    assert set(np.unique(classes)) == {0, 1, 2} and classes.dtype == np.uint8
    assert np.array_equal(LabelMap.of_classes(classes, (7, 44), OBLIQUE).array, labels.array)
    assert LabelMap.of_classes(classes, (7, 1000), OBLIQUE).array.dtype == np.uint16
    with pytest.raises(DataError, match=r"holds \(44\); known labels are \(7\)"):
        labels.classes((7,))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd"])
def test_a_full_disk_never_leaves_a_short_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_label_map(path, small_labels())
    before = path.read_bytes()
    big = Volume(np.random.default_rng(0).normal(size=(20, 50, 50)).astype(np.float32), Geometry((20, 50, 50)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(ResourceError):
            write_volume(path, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_differs_when_read_back_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sitk.WriteImage
    monkeypatch.setattr(volumes.sitk, "WriteImage", lambda image, *rest: real(image * 0, *rest))
    with pytest.raises(ResourceError, match="differs when read back"):
        write_label_map(tmp_path / "a.nrrd", small_labels())
    assert not list(tmp_path.iterdir())


def test_array_and_geometry_must_fit(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="the array is"):
        write_volume(tmp_path / "a.nrrd", Volume(np.zeros((3, 4, 5), np.int16), OBLIQUE))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_sheared_files_become_right_angled_copies(tmp_path: Path, suffix: str) -> None:
    """A ball in a sheared grid stays a ball at the same place in the copy."""
    size, shear = (30, 40, 50), np.array([[1.0, 0.2, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    k, j, i = np.indices(size)
    points = np.stack([i, j, k], axis=-1) @ shear.T
    ball = (np.linalg.norm(points - (28, 20, 15), axis=-1) < 9).astype(np.uint8)
    path = tmp_path / f"sheared{suffix}"
    if suffix == ".nrrd":
        image = sitk.GetImageFromArray(ball)
        image.SetDirection((shear / np.linalg.norm(shear, axis=0)).ravel().tolist())
        image.SetSpacing(np.linalg.norm(shear, axis=0).tolist())
        sitk.WriteImage(image, str(path))
    else:
        affine = np.eye(4)
        affine[:3, :3] = np.diag([-1, -1, 1]) @ shear
        nibabel.save(nibabel.Nifti1Image(ball.T, affine), path)
    before = sha256_of(path)
    copy = resampled_orthonormal(path, label=True)
    centre = copy.geometry.ras_of(np.argwhere(copy.array).mean(axis=0)) * (-1, -1, 1)
    assert np.allclose(centre, (28, 20, 15), atol=0.3)
    assert copy.array.sum() * np.prod(copy.geometry.spacing) == pytest.approx(ball.sum(), rel=0.03)
    assert copy.remarks and sha256_of(path) == before
    write_label_map(tmp_path / "copy.nii.gz", LabelMap(copy.array, copy.geometry))


def test_a_resampled_copy_counts_the_voxels_that_are_no_numbers(tmp_path: Path) -> None:
    array, affine = np.ones((12, 14, 8), np.float32), np.diag([1.0, 1.0, 2.0, 1.0])
    array[:3, 0, 0], affine[0, 1] = np.nan, 0.2
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "a.nii.gz")
    copy = resampled_orthonormal(tmp_path / "a.nii.gz")
    assert np.isfinite(copy.array).all() and copy.remarks[1] == "3 voxels were not a number or infinite; they were set to 0."
    with pytest.raises(DataError, match="3 of its voxels are not a number"):
        resampled_orthonormal(tmp_path / "a.nii.gz", label=True)


def test_voxels_that_are_no_numbers_are_counted_once(tmp_path: Path) -> None:
    """ITK refuses axes that are as little off as rounding explains, and what reads them instead keeps NaN."""
    array, affine = np.ones((40, 50, 60), np.float32), np.diag([1.0, 1.0, 2.0, 1.0])
    array[:3, 0, 0], affine[0, 1] = np.nan, 5e-4
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "a.nii.gz")
    assert read_volume(tmp_path / "a.nii.gz").remarks == ("3 voxels were not a number or infinite; they were set to 0.",)


def test_a_header_may_name_its_data_file_in_any_letters(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    sitk.WriteImage(image, str(tmp_path / "a.mhd"))
    (tmp_path / "a.raw").rename(tmp_path / "Zähne.raw")
    header = (tmp_path / "a.mhd").read_bytes().replace(b"a.raw", "Zähne.raw".encode())
    (tmp_path / "a.mhd").write_bytes(header)
    assert np.array_equal(read_volume(tmp_path / "a.mhd").array, sitk.GetArrayFromImage(image))
