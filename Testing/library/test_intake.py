"""Every bad file of the table of faults is refused with a sentence that names it."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from small_cases import small_image

from SAM2IterativeLib.errors import DataError
from SAM2IterativeLib.intake import NotOrthonormalError, data_file_of, examine
from SAM2IterativeLib.volumes import read_volume, write_volume

FORMATS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".nhdr")


def _written(folder: Path, suffix: str) -> Path:
    path = folder / f"case{suffix}"
    image = sitk.GetImageFromArray(small_image().array)
    sitk.WriteImage(image, str(path), True)
    return path


def _edited(folder: Path, suffix: str, old: bytes, new: bytes) -> Path:
    """A written file whose header holds ``new`` where it held ``old``."""
    path = _written(folder, suffix)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


def _nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


@pytest.mark.parametrize(
    ("suffix", "old", "new"),
    [
        (".mha", b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 1"),
        (".mha", b"DimSize = ", b"DimSize = x "),
        (".nrrd", b"sizes: ", b"sizes: nan "),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(tmp_path: Path, suffix: str, old: bytes, new: bytes) -> None:
    with pytest.raises(DataError, match=f"case{suffix}"):
        examine(_edited(tmp_path, suffix, old, new))


@pytest.mark.parametrize("suffix", FORMATS)
def test_sound_files_pass(tmp_path: Path, suffix: str) -> None:
    path = _written(tmp_path, suffix)
    assert examine(path).nonfinite == 0
    assert np.array_equal(read_volume(path).array, small_image().array)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = _written(tmp_path, suffix)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(DataError, match=f"case{suffix}: .*cut short"):
        examine(path)


def test_a_meta_image_may_write_true_in_small_letters(tmp_path: Path) -> None:
    path = _written(tmp_path, ".mha")
    assert b"CompressedData = True" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"CompressedData = True", b"CompressedData = true"))
    assert np.array_equal(read_volume(path).array, small_image().array)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_one_flipped_byte_in_compressed_data_is_refused(tmp_path: Path, suffix: str) -> None:
    path = _written(tmp_path, suffix)
    content = bytearray(path.read_bytes())
    content[len(content) - 40] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="cut short or altered"):
        examine(path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".jpg"])
@pytest.mark.parametrize("content", [b"", b"this is no image at all" * 40])
def test_empty_and_foreign_files_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"bad{suffix}: "):
        examine(path)


def test_a_name_that_lies_about_compression_is_told(tmp_path: Path) -> None:
    plain = _written(tmp_path, ".nii").rename(tmp_path / "plain.nii.gz")
    with pytest.raises(DataError, match=r"plain\.nii\.gz: it is not compressed, though its name says so\. Rename it to end in \.nii"):
        examine(plain)
    zipped = _written(tmp_path, ".nii.gz").rename(tmp_path / "zipped.nii")
    with pytest.raises(DataError, match=r"zipped\.nii: it is compressed, though its name does not say so\. Rename it to end in \.nii\.gz"):
        examine(zipped)


def test_a_link_to_what_is_not_here_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").symlink_to(".git/annex/objects/a.nii.gz")
    with pytest.raises(
        DataError, match=r"a\.nii\.gz: it is a link to a file that is not here\. Fetch it first \(git annex get, dvc pull\)"
    ):
        examine(tmp_path / "a.nii.gz")


def test_a_pointer_of_git_lfs_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 34\n")
    with pytest.raises(DataError, match=r"a pointer of Git LFS, not the image itself\. Fetch it first \(git lfs pull\)"):
        examine(tmp_path / "a.nii.gz")


def test_the_file_that_holds_a_headers_voxels_is_known(tmp_path: Path) -> None:
    for suffix in (".mhd", ".nhdr", ".mha"):
        path = _written(tmp_path, suffix)
        data = data_file_of(path)
        assert (None if data is None else data.suffix in (".zraw", ".raw", ".gz")) is (None if suffix == ".mha" else True)
    (tmp_path / "bad.mhd").write_text("no header")
    assert data_file_of(tmp_path / "bad.mhd") is None


def test_grey_with_transparency_is_told(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 20, 2), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="grey with transparency"):
        read_volume(tmp_path / "a.png")


def test_unknown_formats_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Known are \.nii\.gz"):
        examine(tmp_path / "notes.docx")
    with pytest.raises(DataError, match="does not exist"):
        examine(tmp_path / "gone.nii.gz")


def test_four_dimensions_are_refused_but_one_frame_passes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"film\.nii\.gz: it has 4 dimensions"):
        examine(_nifti(tmp_path / "film.nii.gz", np.zeros((4, 5, 6, 2), np.int16)))
    path = _nifti(tmp_path / "frame.nii.gz", np.zeros((4, 5, 6, 1), np.int16))
    assert read_volume(path).array.shape == (6, 5, 4)


def test_colour_volumes_are_refused(tmp_path: Path) -> None:
    colour = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        sitk.WriteImage(colour, str(tmp_path / f"rgb{suffix}"))
        with pytest.raises(DataError, match=f"rgb{suffix}: "):
            examine(tmp_path / f"rgb{suffix}")
    voxels = np.zeros((4, 5, 6), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    with pytest.raises(DataError, match="RGB colour per voxel"):
        examine(_nifti(tmp_path / "true.nii.gz", voxels))


def test_layered_segmentations_are_refused(tmp_path: Path) -> None:
    layers = sitk.GetImageFromArray(np.zeros((4, 5, 6, 2), np.uint8), isVector=True)
    sitk.WriteImage(layers, str(tmp_path / "x.seg.nrrd"))
    with pytest.raises(DataError, match="overlapping segments"):
        examine(tmp_path / "x.seg.nrrd")


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_spacing_of_nothing_is_refused(tmp_path: Path, value: float) -> None:
    path = _written(tmp_path, ".nii")
    content = bytearray(path.read_bytes())
    content[84:88] = struct.pack("<f", value)  # pixdim[2]
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="spacing"):
        examine(path)
    zipped = tmp_path / "case.nii.gz"
    zipped.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(DataError, match="spacing"):
        examine(zipped)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_an_origin_that_is_no_number_is_refused(tmp_path: Path, broken: float) -> None:
    path = _written(tmp_path, ".nii")
    content = bytearray(path.read_bytes())
    content[268:272] = content[292:296] = struct.pack("<f", broken)  # qoffset_x, srow_x[3]
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"case\.nii: .*origin"):
        read_volume(path)


@pytest.mark.parametrize(
    ("suffix", "old", "new"), [(".mha", b"Offset = 0 ", b"Offset = nan "), (".nrrd", b"origin: (0,", b"origin: (inf,")]
)
def test_an_origin_that_is_no_number_is_refused_in_a_text_header(tmp_path: Path, suffix: str, old: bytes, new: bytes) -> None:
    path = _edited(tmp_path, suffix, old, new)
    with pytest.raises(DataError, match=rf"case\{suffix}: .*origin"):
        read_volume(path)


def test_voxels_that_begin_before_the_file_are_refused(tmp_path: Path) -> None:
    path = _written(tmp_path, ".nii")
    content = bytearray(path.read_bytes())
    content[108:112] = struct.pack("<f", -16.0)  # vox_offset
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="begin before the file"):
        examine(path)


def test_voxels_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    array = np.ones((5, 6, 7), np.float32)
    array[0, 0, :3] = (np.nan, np.inf, -np.inf)
    path = _nifti(tmp_path / "a.nii.gz", array)
    assert examine(path).nonfinite == 3
    volume = read_volume(path)
    assert volume.remarks == ("3 voxels were not a number or infinite; they were set to 0.",)
    sitk.WriteImage(sitk.GetImageFromArray(array.T), str(tmp_path / "a.nrrd"))
    other = read_volume(tmp_path / "a.nrrd")
    assert other.remarks == volume.remarks
    assert np.array_equal(other.array, volume.array)


def test_sheared_axes_are_refused_but_rounding_passes(tmp_path: Path) -> None:
    array = np.arange(40 * 50 * 60, dtype=np.int16).reshape(40, 50, 60)
    sheared = np.diag([1.0, 1.0, 2.0, 1.0])
    sheared[0, 1] = 0.05
    with pytest.raises(NotOrthonormalError, match="right angles"):
        examine(_nifti(tmp_path / "sheared.nii.gz", array, sheared))
    sheared[0, 1] = 5e-4
    path = _nifti(tmp_path / "rounded.nii.gz", array, sheared)
    volume = read_volume(path)
    matrix = np.array(volume.geometry.direction).reshape(3, 3)
    assert np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)
    assert np.array_equal(volume.array, array.T)


def test_sheared_nrrd_is_refused(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.zeros((20, 20, 20), np.int16))
    image.SetDirection((1, 0.3, 0, 0, 1, 0, 0, 0, 1))
    for suffix in (".nrrd", ".mha"):
        sitk.WriteImage(image, str(tmp_path / f"s{suffix}"))
        with pytest.raises(NotOrthonormalError):
            examine(tmp_path / f"s{suffix}")


def test_a_header_may_not_name_data_elsewhere(tmp_path: Path) -> None:
    path = _written(tmp_path, ".mhd")
    data = next(p for p in tmp_path.iterdir() if p != path)
    for name in ("../secret.raw", "/etc/passwd", "LIST"):
        path.write_text(path.read_text().replace(data.name, name))
        with pytest.raises(DataError, match="only one file in the same folder"):
            examine(path)
        path.write_text(path.read_text().replace(name, data.name))
    data.unlink()
    with pytest.raises(DataError, match="is not there"):
        examine(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_cut_pictures_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)), str(path))
    examine(path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match="cut short"):
        examine(path)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("keep", [0.95, 0.6, 0.3])
def test_a_stack_that_lost_slices_is_refused(tmp_path: Path, compressed: bool, keep: float) -> None:
    path = tmp_path / "stack.tif"
    stack = np.random.default_rng(0).integers(0, 60000, (5, 40, 50)).astype(np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(stack), str(path), compressed)
    examine(path)
    assert np.array_equal(read_volume(path).array, stack)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(DataError, match="cut short"):
        examine(path)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_header_that_contradicts_itself_is_noticed(tmp_path: Path, kind: Any) -> None:
    array = np.zeros((4, 5, 6), np.float32)
    affine = np.array([[0, -2, 0, 10], [2, 0, 0, -5], [0, 0, 3, 7], [0, 0, 0, 1]], float)
    whole = kind(array, affine)
    whole.header.set_sform(affine, 1)
    whole.header.set_qform(affine, 1)
    nibabel.save(whole, tmp_path / "whole.nii")
    assert examine(tmp_path / "whole.nii").remarks == ()
    mirrored = kind(array, affine)
    mirrored.header.set_sform(affine, 1)
    mirrored.header.set_qform(np.diag([-1.0, 1, 1, 1]) @ affine, 1)
    nibabel.save(mirrored, tmp_path / "mirrored.nii")
    assert "places it twice, up to 20.0 mm apart" in examine(tmp_path / "mirrored.nii").remarks[0]
    sizes = kind(array, affine)
    sizes.header.set_sform(affine, 1)
    sizes.header["pixdim"][1:4] = 1
    nibabel.save(sizes, tmp_path / "sizes.nii")
    with pytest.raises(DataError, match=r"two voxel sizes: 2 x 2 x 3 mm \(sform\) and 1 x 1 x 1 mm \(pixdim\)"):
        examine(tmp_path / "sizes.nii")


def test_an_nrrd_without_an_anatomical_space_is_remarked(tmp_path: Path) -> None:
    assert examine(_written(tmp_path, ".nrrd")).remarks == ()
    path = _edited(tmp_path, ".nrrd", b"space: left-posterior-superior", b"space: 3D-right-handed")
    assert "Slicer may turn it" in examine(path).remarks[0]


def test_nifti_two_is_read_like_nifti_one(tmp_path: Path) -> None:
    array = np.zeros((4, 5, 6), np.float32)
    array[0, 0, 0] = np.nan
    path = tmp_path / "second.nii.gz"
    nibabel.save(nibabel.Nifti2Image(array, np.eye(4)), path)
    assert examine(path).nonfinite == 1


def test_what_is_written_passes_its_own_examination(tmp_path: Path) -> None:
    for suffix in (".nii.gz", ".nii", ".nrrd", ".mha"):
        write_volume(tmp_path / f"own{suffix}", small_image())
        examine(tmp_path / f"own{suffix}")
