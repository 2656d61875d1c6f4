"""Volumes and label maps with their geometry, read and written without loss.

Arrays are (k, j, i): slice, row, column. Geometry is ITK's: LPS millimetres. Points given to people are RAS millimetres.
A volume never travels without its geometry, and a file that is written is read back before it counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import DataError, GeometryError, ResourceError
from .files import PICTURE_SUFFIXES, atomic_write, path_for_itk, suffix_of
from .geometry import Geometry as Geometry
from .geometry import values_text
from .intake import NotOrthonormalError, examine, nearest_orthonormal, read_nifti_voxels, refused_if_too_large, require_orthonormal
from .label_pictures import palette_indices, without_soft_edges

_MOST_LABELS = 256
_SUSPICIOUS_LABELS = 32


@dataclass(frozen=True)
class Volume:
    """An image.

    Attributes:
        array: (k, j, i) integers or float32; (1, j, i, 3) uint8 for a 2-D colour picture.
        geometry: its grid.
        path: the file it came from, None if generated.
        remarks: sentences about what was changed while reading, for the person.
    """

    array: np.ndarray
    geometry: Geometry
    path: Path | None = None
    remarks: tuple[str, ...] = ()

    @property
    def colour(self) -> bool:
        """Whether this is a 2-D colour picture."""
        return self.array.ndim == 4


@dataclass(frozen=True)
class LabelMap:
    """One label value per voxel: ``array`` (k, j, i) uint8 or uint16, 0 is background."""

    array: np.ndarray
    geometry: Geometry

    @property
    def values(self) -> tuple[int, ...]:
        """The foreground values that occur, ascending."""
        return tuple(int(v) for v in _values_in(self.array) if v)

    def classes(self, values: Sequence[int]) -> np.ndarray:
        """Class indices (k, j, i) uint8: 0 background, c where the label is ``values[c - 1]``.

        Raises:
            DataError: a value occurs that is not among ``values``.
        """
        unknown = sorted(set(self.values) - set(values))
        if unknown:
            raise DataError(
                f"the label map holds {values_text(unknown)}; known labels are {values_text(values)}.",
                cure="Add or map these labels.",
            )
        table = np.zeros(max((*values, int(self.array.max(initial=0)))) + 1, np.uint8)
        table[list(values)] = np.arange(1, len(values) + 1)
        return np.asarray(table[self.array])

    @classmethod
    def of_classes(cls, classes: np.ndarray, values: Sequence[int], geometry: Geometry) -> LabelMap:
        """The reverse of ``classes``: class indices (k, j, i) become label values."""
        return cls(_smallest(np.array((0, *values), dtype=np.int64))[classes], geometry)


def read_volume(path: str | Path, *, trusted: bool = False) -> Volume:
    """Read an image file (see ``files.IMAGE_SUFFIXES``).

    float64 becomes float32, 64-bit integers become int32 or float32; other voxel types stay. NaN and infinite voxels become 0 and
    are counted in ``remarks``. Pictures (PNG, JPEG, TIFF) get a pixel of 1 mm: their resolution tag speaks of paper.

    Args:
        path: the file.
        trusted: its hash was just checked, so the raw examination (``intake.examine``) is left out.

    Raises:
        DataError: the file cannot be used; NotOrthonormalError where ``resampled_orthonormal`` could help.
    """
    path = Path(path)
    with refused_if_too_large(path):
        findings = None if trusted else examine(path)
        image = _read_image(path)
        array, nonfinite = _finite(_image_array(image, path))
    remarks = (*findings.remarks, *_told(findings.nonfinite + nonfinite)) if findings else _told(nonfinite)
    return Volume(array, _sound_geometry(image, path), path, remarks)


def read_header(path: str | Path) -> tuple[Geometry, int]:
    """The grid of an image file, and values per voxel (1, or 3 for colour), without reading or checking its voxels.

    Raises:
        DataError: the header cannot be read.
    """
    path, reader = Path(path), sitk.ImageFileReader()
    try:
        with path_for_itk(path) as readable:
            reader.SetFileName(str(readable))
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise DataError("the file cannot be read as an image.", where=path.name, cure="Open and export it again.") from error
    return _sound_geometry(reader, path), reader.GetNumberOfComponents()


def read_label_map(path: str | Path, *, trusted: bool = False) -> LabelMap:
    """Read a label map: whole numbers from 0 to 65535, one per voxel; of a PNG with a palette the indices. Masks with soft edges
    are cut at 128, see ``label_pictures``.

    Raises:
        DataError: negative or fractional values, voxels that are no numbers, colours, or so many values that it is an image.
    """
    path = Path(path)
    with refused_if_too_large(path):
        if not trusted:
            _refuse_nonfinite(examine(path).nonfinite, path.name)
        image = _read_image(path)
        array = _image_array(image, path, label=True)
        array = without_soft_edges(array, blurred=suffix_of(path) in (".jpg", ".jpeg"))
        return LabelMap(_label_array(array, path.name), _sound_geometry(image, path))


def write_volume(path: str | Path, volume: Volume) -> None:
    """Write an image; the suffix chooses the format. Atomic, and read back before it counts; no metadata but the geometry.

    Raises:
        ResourceError: disk full, no permission, or the file read back differs.
        DataError: the format cannot hold it (PNG: 2-D integers of 8 or 16 bits).
    """
    _write_image(Path(path), volume.array, volume.geometry)


def write_label_map(path: str | Path, label_map: LabelMap) -> None:
    """Write a label map; as ``write_volume``."""
    _write_image(Path(path), label_map.array, label_map.geometry)


def require_same_grid(label: Geometry, image: Geometry, where: str) -> None:
    """Raise GeometryError with both values unless a label map lies on its image's grid."""
    difference = label.mismatch(image)
    if difference:
        raise GeometryError(
            f"the label map does not lie on its image: {difference}.",
            where=where,
            cure="Export the label map again with the image as reference.",
        )


def resampled_orthonormal(path: str | Path, *, label: bool = False) -> Volume:
    """Read a file whose voxel axes are not at right angles as a copy resampled to the nearest right-angled grid.

    The copy keeps the spacing and covers the whole source; linear interpolation, nearest neighbour for ``label``. An image and
    its label map come out on the same grid, since the grid depends on the geometry alone. NaN and infinite voxels of an image become 0
    before they could spread to their neighbours, and are counted in ``remarks``.

    Raises:
        DataError: see ``read_label_map``, for ``label``.
    """
    path = Path(path)
    with refused_if_too_large(path):
        return _resampled(path, label)


def _resampled(path: Path, label: bool) -> Volume:
    """See ``resampled_orthonormal``."""
    source, nonfinite = _finite_image(_sheared_image(path))
    if label:
        _refuse_nonfinite(nonfinite, path.name)
    matrix, steps = np.array(source.GetDirection()).reshape(3, 3), np.array(source.GetSpacing())
    direction = nearest_orthonormal(matrix)
    ends = [(0.0, n - 1.0) for n in source.GetSize()]
    corners = np.array([np.array(source.GetOrigin()) + matrix @ (steps * ijk) for ijk in itertools.product(*ends)]) @ direction
    low, high = corners.min(axis=0), corners.max(axis=0)
    size = [int(n) for n in np.ceil((high - low) / steps - 1e-6) + 1]
    reference = sitk.Image(size, source.GetPixelID())
    reference.SetSpacing(source.GetSpacing())
    reference.SetOrigin([float(v) for v in direction @ low])
    reference.SetDirection([float(v) for v in direction.ravel()])
    method = sitk.sitkNearestNeighbor if label else sitk.sitkLinear
    copy = sitk.Resample(source, reference, sitk.Transform(), method, float(sitk.GetArrayViewFromImage(source).min()))
    remark = "its axes were not at right angles; this is a resampled copy, the source is unchanged."
    array = _image_array(copy, path, label=label)
    if label:
        return Volume(_label_array(array, path.name), Geometry.of_image(copy), path, (remark,))
    array, overflowed = _finite(array)
    return Volume(array, Geometry.of_image(copy), path, (remark, *_told(nonfinite + overflowed)))


def _read_image(path: Path) -> sitk.Image:
    try:
        with refused_if_too_large(path), path_for_itk(path) as readable:
            image = sitk.ReadImage(str(readable))
    except RuntimeError as error:
        if suffix_of(path) in (".nii", ".nii.gz") and "orthonormal" in str(error):
            image, _ = _finite_image(_sheared_image(path))  # as ITK does with NaN, which examining has counted
        else:
            raise DataError("the file cannot be read as an image.", where=path.name, cure="Open and export it again.") from error
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() not in (2, 3):
        raise DataError(
            f"it has {image.GetDimension()} dimensions; 2 or 3 are expected.",
            where=path.name,
            cure="Save the one frame you mean.",
        )
    if suffix_of(path) in PICTURE_SUFFIXES:
        Geometry((1, 1, 1)).apply_to(image)
    return image


def _finite(array: np.ndarray) -> tuple[np.ndarray, int]:
    """An array with 0 in place of NaN and infinity, changed where it lies, and how many there were."""
    if array.dtype.kind != "f":
        return array, 0
    bad = ~np.isfinite(array)
    array[bad] = 0
    return array, int(np.count_nonzero(bad))


def _finite_image(image: sitk.Image) -> tuple[sitk.Image, int]:
    """As ``_finite``, of an image."""
    array, nonfinite = _finite(sitk.GetArrayFromImage(image))
    if not nonfinite:
        return image, 0
    finite = sitk.GetImageFromArray(array, isVector=image.GetNumberOfComponentsPerPixel() > 1)
    finite.CopyInformation(image)
    return finite, nonfinite


def _told(nonfinite: int) -> tuple[str, ...]:
    return (f"{nonfinite} voxels were not a number or infinite; they were set to 0.",) if nonfinite else ()


def _refuse_nonfinite(count: int, where: str) -> None:
    """Raise DataError if a label map holds NaN or infinite voxels: whether they mean background, only its maker knows."""
    if count:
        cure = "Give these voxels whole numbers, 0 where there is nothing."
        raise DataError(f"{count} of its voxels are not a number or infinite, so it is no label map.", where=where, cure=cure)


def _sheared_image(path: Path) -> sitk.Image:
    """An image with its true, not orthonormal direction matrix; NIfTI is read without ITK, which refuses it."""
    if suffix_of(path) not in (".nii", ".nii.gz"):
        return sitk.ReadImage(str(path))
    header, voxels = read_nifti_voxels(path)
    if header.affine is None:
        return sitk.ReadImage(str(path))
    image = sitk.GetImageFromArray(voxels)
    lps = np.diag([-1.0, -1.0, 1.0]) @ header.affine
    steps = np.linalg.norm(lps[:, :3], axis=0)
    image.SetSpacing([float(v) for v in steps])
    image.SetOrigin([float(v) for v in lps[:, 3]])
    image.SetDirection([float(v) for v in (lps[:, :3] / steps).ravel()])
    return image


def _sound_geometry(image: sitk.Image | sitk.ImageFileReader, path: Path) -> Geometry:
    """The geometry of an image, or of a header that was read, with an exactly orthonormal direction.

    Raises:
        NotOrthonormalError: the direction is further from orthonormal than rounding explains.
    """
    geometry = Geometry.of_image(image)
    matrix = np.array(geometry.direction).reshape(3, 3)
    require_orthonormal(matrix * np.array(geometry.spacing[::-1]), geometry.size[::-1], path.name)
    if np.allclose(matrix @ matrix.T, np.eye(3), rtol=0, atol=1e-6):
        return geometry
    return replace(geometry, direction=tuple(float(v) for v in nearest_orthonormal(matrix).ravel()))


def _image_array(image: sitk.Image, path: Path, *, label: bool = False) -> np.ndarray:
    """(k, j, i), or (1, j, i, 3) for a colour picture; see ``read_volume`` for the voxel types."""
    array = sitk.GetArrayFromImage(image)
    channels = image.GetNumberOfComponentsPerPixel()
    if image.GetDimension() == 2:
        array = array[None]
    if channels > 1:
        array = _colour_array(array, path, label)
    if array.dtype.kind == "c":
        raise DataError("it holds complex numbers.", where=path.name, cure="Save the magnitude.")
    if label or (array.dtype.itemsize < 8 and array.dtype != np.uint32):
        return array
    if array.dtype.kind in "iu" and array.min() >= -(2**31) and array.max() < 2**31:
        return array.astype(np.int32)
    return array.astype(np.float32)


def _colour_array(array: np.ndarray, path: Path, label: bool) -> np.ndarray:
    """Drop alpha; three equal channels of a label map are one; 16 bits become 8."""
    channels = array.shape[-1]
    if array.shape[0] != 1 or channels not in (2, 3, 4):
        raise DataError(
            f"it holds {channels} numbers per voxel; volumes need one.", where=path.name, cure="Save one channel, or a grey copy."
        )
    if channels == 2:
        return array[..., 0]
    array = array[..., :3]
    if label:
        indices = palette_indices(path, array)
        if indices is not None:
            return indices
        if np.ptp(array.astype(np.int64), axis=-1).any():
            cure = "Save one whole number per pixel, without a palette."
            raise DataError("it is a colour picture, given as labels.", where=path.name, cure=cure)
        return array[..., 0]
    if array.dtype not in (np.uint8, np.uint16):
        raise DataError(f"its colours are stored as {array.dtype}; 8 or 16 bits are expected.", where=path.name, cure="Save it as PNG.")
    return array if array.dtype == np.uint8 else (array // 257).astype(np.uint8)


def _label_array(array: np.ndarray, where: str) -> np.ndarray:
    """Exact whole numbers as uint8 or uint16, or a refusal; see ``read_label_map``."""
    whole = array if array.dtype.kind in "iub" else np.rint(array)
    if array.dtype.kind == "f":
        _refuse_nonfinite(int(np.count_nonzero(~np.isfinite(array))), where)
    if array.dtype.kind == "f" and not np.array_equal(whole, array):
        raise DataError(
            "its values are not whole numbers, so it is no label map.", where=where, cure="Export labels without interpolation."
        )
    low, high = int(whole.min(initial=0)), int(whole.max(initial=0))
    if low < 0 or high > 65535:
        raise DataError(
            f"its values run from {low} to {high}; labels are 0 to 65535. It looks like an image.",
            where=where,
            cure="Give the label map.",
        )
    count = len(_values_in(whole))
    if count > _MOST_LABELS or (count > _SUSPICIOUS_LABELS and _is_noisy(whole)):
        raise DataError(f"it holds {count} different values, so it looks like an image.", where=where, cure="Give the label map.")
    return _smallest(whole)


def _is_noisy(array: np.ndarray) -> bool:
    """Whether most foreground voxels differ from their right neighbour; labels come in areas, grey values do not."""
    foreground = array[..., :-1] != 0
    different = (array[..., 1:] != array[..., :-1]) & foreground
    return bool(different.sum() > 0.5 * foreground.sum())


def _values_in(array: np.ndarray) -> np.ndarray:
    """The values that occur, ascending."""
    if array.dtype not in (np.uint8, np.uint16):
        return np.unique(array)
    # In half of NumPy's time; slice by slice, since it spreads the indices to 8 bytes.
    seen = np.zeros(65536, bool)
    for plane in array:
        seen[plane] = True
    return np.flatnonzero(seen)


def _smallest(array: np.ndarray) -> np.ndarray:
    return array.astype(np.uint8 if array.max(initial=0) <= 255 else np.uint16)


def _write_image(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    if tuple(array.shape[:3]) != geometry.size:
        raise GeometryError(f"the array is {values_text(array.shape[:3])}, its geometry {values_text(geometry.size)}.", where=path.name)
    picture = suffix_of(path) in PICTURE_SUFFIXES
    if picture and geometry.slices != 1:
        raise DataError("a volume does not fit into a picture.", where=path.name, cure="Choose .nii.gz or .nrrd.")
    flat = picture or geometry.planar or array.ndim == 4
    image = sitk.GetImageFromArray(array[0] if flat else array, isVector=array.ndim == 4)
    geometry.apply_to(image)
    with atomic_write(path) as temporary:
        try:
            with path_for_itk(temporary, output=True) as writable:
                sitk.WriteImage(image, str(writable), True)
        except RuntimeError as error:
            _explain_failed_write(path, array, error)
        _require_written(temporary, image, path)


def _explain_failed_write(path: Path, array: np.ndarray, error: RuntimeError) -> None:
    if suffix_of(path) in PICTURE_SUFFIXES and array.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{suffix_of(path)} cannot hold {array.dtype} pixels.", where=path.name, cure="Choose .nii.gz or .nrrd.") from error
    reason = str(error).strip().splitlines()[-1]
    raise ResourceError(f"the file could not be written ({reason}).", where=path.name, cure="Check free space and permission.") from error


def _require_written(temporary: Path, image: sitk.Image, path: Path) -> None:
    """Raise ResourceError unless the file just written holds what was meant: ITK reports no full disk for NIfTI."""
    try:
        examine(temporary)
        back = sitk.GetArrayFromImage(_read_image(temporary))
    except NotOrthonormalError as error:
        raise GeometryError(error.what, where=path.name, cure="Choose .nrrd, which holds such a grid.") from error
    except DataError as error:
        raise ResourceError(
            f"what was written cannot be read back ({error.what})",
            where=path.name,
            cure="Free some space on the disk, then try again.",
        ) from error
    if suffix_of(path) in (".jpg", ".jpeg"):
        return
    if not np.array_equal(back, sitk.GetArrayViewFromImage(image), equal_nan=back.dtype.kind == "f"):
        raise ResourceError("what was written differs when read back.", where=path.name, cure="Check the disk, then try again.")
