"""NIfTI-1 and NIfTI-2 headers, read raw."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..files import suffix_of
from .checks import (
    GZIP,
    ORTHONORMAL_TOLERANCE_MM,
    Findings,
    gunzipped,
    refuse_colour,
    require_length,
    require_origin,
    require_orthonormal,
    require_three_dimensions,
)

_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_COLOURS = {128: "RGB colour", 2304: "RGBA colour", 32: "complex numbers", 1792: "complex numbers", 2048: "complex numbers"}


@dataclass(frozen=True)
class NiftiHeader:
    """What is needed of a NIfTI header.

    Attributes:
        shape: voxels along i, j, k; trailing axes of length 1 dropped.
        spacing: pixdim along i, j, k as written, before any correction.
        dtype: of the stored voxels, with byte order.
        offset: first voxel's byte in the uncompressed file.
        scale: slope and intercept; slope 0 means none.
        origins: RAS mm of the first voxel, as every transform that counts (qform, sform) gives it.
        affine: (3, 4) voxel i, j, k to RAS mm as sform gives it; None where only a quaternion (always a rotation) stands.
        rotated: the same as the quaternion (qform) gives it; None where it does not count.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    dtype: np.dtype
    offset: int
    scale: tuple[float, float]
    origins: tuple[float, ...]
    affine: np.ndarray | None
    rotated: np.ndarray | None


def examine_nifti(path: Path) -> Findings:
    """See ``examine``; NaN and infinite voxels are counted here because ITK's reader turns them into 0."""
    stream = _content(path)
    head = next(stream, b"")
    while len(head) < 540 and (block := next(stream, b"")):
        head += block
    header = read_header(head, path)
    require_three_dimensions(len(header.shape), path)
    if any(not np.isfinite(s) or s == 0 for s in header.spacing):
        raise DataError(
            f"the header's spacing {header.spacing} mm has a zero or is not a number.",
            where=path.name,
            cure="Export it again with its true spacing.",
        )
    if header.offset < 0:
        raise DataError(f"its voxels would begin before the file ({header.offset}).", where=path.name, cure="Export it again.")
    require_origin(header.origins, path.name)
    if header.affine is not None:
        require_orthonormal(header.affine[:, :3], (*header.shape, 1)[:3], path.name)
        _require_one_spacing(header, path)
    length, nonfinite = _read_through(itertools.chain((head,), stream), header)
    require_length(length, header.offset + int(np.prod(header.shape)) * header.dtype.itemsize, path)
    return Findings(nonfinite, _remarks(header))


def _require_one_spacing(header: NiftiHeader, path: Path) -> None:
    """Refuse a header whose sform steps otherwise than its pixdim says: ITK believes the one for directions, the other for distances."""
    assert header.affine is not None
    steps, written = np.linalg.norm(header.affine[:, :3], axis=0), np.abs(header.spacing)
    off = np.abs(steps - written) * np.maximum(np.array(header.shape) - 1, 1)
    if off.max() > ORTHONORMAL_TOLERANCE_MM:
        by_sform, by_pixdim = (" x ".join(f"{v:.4g}" for v in values) for values in (steps, written))
        raise DataError(
            f"its header gives two voxel sizes: {by_sform} mm (sform) and {by_pixdim} mm (pixdim).",
            where=path.name,
            cure="Export it again with its true spacing.",
        )


def _remarks(header: NiftiHeader) -> tuple[str, ...]:
    if header.rotated is None or header.affine is None:
        return ()
    last = np.array([*(n - 1 for n in header.shape), 1.0])
    apart = np.abs((header.rotated - header.affine) @ np.stack([[0, 0, 0, 1], last], axis=1)).max()
    if apart <= ORTHONORMAL_TOLERANCE_MM:
        return ()
    return (f"its header places it twice, up to {apart:.1f} mm apart (qform and sform): see that it overlays the patient's other images.",)


def _rotated(quaternion: tuple[float, ...], offsets: tuple[float, ...], pixdim: tuple[float, ...]) -> np.ndarray | None:
    """(3, 4) voxel i, j, k to RAS mm by the quaternion, as the NIfTI standard has it (method 2); None where its numbers are none."""
    b, c, d = quaternion
    rest = 1.0 - b * b - c * c - d * d
    if not np.isfinite(rest) or rest < -1e-3:
        return None
    a = float(np.sqrt(max(0.0, rest)))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    steps = np.abs(pixdim[1:4]) * (1.0, 1.0, -1.0 if pixdim[0] < 0 else 1.0)
    return np.column_stack([rotation * steps, offsets])


def read_header(head: bytes, path: Path) -> NiftiHeader:
    """Parse the first bytes of an uncompressed NIfTI file.

    Raises:
        DataError: not NIfTI, or voxels that are no plain numbers.
    """
    order = next((o for o in "<>" if len(head) >= 348 and struct.unpack(f"{o}i", head[:4])[0] in (348, 540)), None)
    if order is None:
        raise DataError("it does not begin like a NIfTI file.", where=path.name, cure="Check that it is a NIfTI image.")
    second = struct.unpack(f"{order}i", head[:4])[0] == 540
    if second:
        dim, code = struct.unpack(f"{order}8q", head[16:80]), struct.unpack(f"{order}h", head[12:14])[0]
        pixdim, offset = struct.unpack(f"{order}8d", head[104:168]), struct.unpack(f"{order}q", head[168:176])[0]
        slope = struct.unpack(f"{order}2d", head[176:192])
        qform, sform = struct.unpack(f"{order}2i", head[344:352])
        quaternion, offsets = struct.unpack(f"{order}3d", head[352:376]), struct.unpack(f"{order}3d", head[376:400])
        rows = struct.unpack(f"{order}12d", head[400:496])
    else:
        dim, code = struct.unpack(f"{order}8h", head[40:56]), struct.unpack(f"{order}h", head[70:72])[0]
        pixdim, offset = struct.unpack(f"{order}8f", head[76:108]), int(struct.unpack(f"{order}f", head[108:112])[0])
        slope = struct.unpack(f"{order}2f", head[112:120])
        qform, sform = struct.unpack(f"{order}2h", head[252:256])
        quaternion, offsets = struct.unpack(f"{order}3f", head[256:268]), struct.unpack(f"{order}3f", head[268:280])
        rows = struct.unpack(f"{order}12f", head[280:328])
    if code in _COLOURS:
        refuse_colour(path, _COLOURS[code])
    if code not in _DTYPES or not 1 <= dim[0] <= 7 or any(d < 1 for d in dim[1 : dim[0] + 1]):
        raise DataError(f"its header is not sound (data type {code}, dimensions {dim}).", where=path.name, cure="Export it again.")
    shape = dim[1 : dim[0] + 1]
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    affine = np.array(rows, dtype=float).reshape(3, 4) if sform > 0 and len(shape) == 3 else None
    spacing = tuple(pixdim[1 : min(len(shape), 3) + 1])
    origins = (offsets if qform > 0 else ()) + (rows[3::4] if sform > 0 else ())
    rotated = _rotated(quaternion, offsets, pixdim) if qform > 0 and len(shape) == 3 else None
    return NiftiHeader(shape, spacing, np.dtype(order + _DTYPES[code]), offset, slope, origins, affine, rotated)


def read_voxels(path: Path) -> tuple[NiftiHeader, np.ndarray]:
    """Header and scaled voxels, axes (k, j, i), without ITK: for the sheared files that ITK refuses."""
    content = b"".join(_content(path))
    header = read_header(content, path)
    count = int(np.prod(header.shape))
    require_length(len(content), header.offset + count * header.dtype.itemsize, path)
    voxels = np.frombuffer(content, header.dtype, count, header.offset).reshape(header.shape[::-1])
    slope, intercept = header.scale
    if (slope in (0.0, 1.0) and intercept == 0.0) or not np.isfinite(slope):
        return header, voxels.astype(header.dtype.newbyteorder("="))
    return header, (voxels * slope + intercept).astype(np.float32)


def _content(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as stream:
        compressed = stream.read(len(GZIP)) == GZIP
        if suffix_of(path) == ".nii.gz":
            if not compressed:
                cure = "Rename it to end in .nii, or check that it is a NIfTI image."
                raise DataError("it is not compressed, though its name says so.", where=path.name, cure=cure)
            yield from gunzipped(path)
            return
        if compressed:
            raise DataError("it is compressed, though its name does not say so.", where=path.name, cure="Rename it to end in .nii.gz.")
        stream.seek(0)
        while block := stream.read(1 << 20):
            yield block


def _read_through(blocks: Iterator[bytes], header: NiftiHeader) -> tuple[int, int]:
    """Total length in bytes and the number of voxels that are NaN or infinite."""
    length, nonfinite, rest, skip = 0, 0, b"", header.offset
    for block in blocks:
        length += len(block)
        if header.dtype.kind != "f":
            continue
        data = rest + block[skip:]
        skip = max(0, skip - len(block))
        whole = len(data) - len(data) % header.dtype.itemsize
        nonfinite += int(np.count_nonzero(~np.isfinite(np.frombuffer(data[:whole], header.dtype))))
        rest = data[whole:]
    return length, nonfinite
