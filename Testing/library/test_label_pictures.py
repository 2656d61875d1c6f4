from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from small_cases import small_labels

from SAM2IterativeLib.errors import DataError
from SAM2IterativeLib.geometry import Geometry
from SAM2IterativeLib.label_pictures import without_soft_edges
from SAM2IterativeLib.volumes import LabelMap, read_label_map, write_label_map

LABELS = np.zeros((40, 44), np.uint8)
LABELS[5:15, 5:15], LABELS[20:30, 20:30], LABELS[31:38, 2:10] = 1, 2, 3
VOC = bytes([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]) + bytes(3 * 252)
GREY = bytes([0, 0, 0, 80, 80, 80, 160, 160, 160, 240, 240, 240])


def write_indexed_png(path: Path, indices: np.ndarray, palette: bytes) -> Path:
    """A PNG of colour type 3, by the specification."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = indices.shape
    rows = b"".join(b"\0" + row.tobytes() for row in indices)
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"tEXt", b"Title\0x") + chunk(b"PLTE", palette) + chunk(b"IDAT", zlib.compress(rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("palette", [VOC, GREY], ids=["colours", "greys"])
def test_a_palettes_indices_are_the_labels(tmp_path: Path, palette: bytes) -> None:
    found = read_label_map(write_indexed_png(tmp_path / "voc.png", LABELS, palette))
    assert np.array_equal(found.array[0], LABELS)


def test_colours_without_a_palette_are_refused(tmp_path: Path) -> None:
    colours = np.frombuffer(VOC, np.uint8).reshape(-1, 3)[LABELS]
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(tmp_path / "rgb.png"))
    with pytest.raises(DataError, match="colour picture, given as labels"):
        read_label_map(tmp_path / "rgb.png")


def soft_disc(radius: float) -> np.ndarray:
    """A disc of 255 whose edge fades over four pixels."""
    j, i = np.mgrid[:120, :120]
    return np.clip((radius + 2 - np.hypot(j - 60, i - 60)) / 4 * 255, 0, 255).astype(np.uint8)


def test_a_mask_with_soft_edges_is_cut_at_its_middle(tmp_path: Path) -> None:
    soft = soft_disc(40)
    assert len(np.unique(soft)) > 50
    write_label_map(tmp_path / "mask.png", LabelMap(soft[None], Geometry((1, 120, 120))))
    found = read_label_map(tmp_path / "mask.png")
    assert found.values == (255,) and np.array_equal(found.array[0] == 255, soft >= 128)


def test_a_small_mask_of_few_shades_is_cut_too() -> None:
    soft = soft_disc(40)[::2, ::2].astype(np.int64) // 24 * 24
    soft[soft >= 240] = 255
    found = without_soft_edges(soft[None].astype(np.uint8), blurred=False)
    assert set(np.unique(found)) == {0, 255}


def test_many_small_labels_beside_a_void_of_255_stay() -> None:
    labels = np.full((1, 200, 200), 255, np.uint8)
    for n in range(12):
        labels[0, 15 * n : 15 * n + 12, 20:40] = n + 1
    assert without_soft_edges(labels, blurred=False) is labels


def test_labels_stay_as_they_are() -> None:
    many = np.repeat(np.arange(256, dtype=np.uint8), 40)[None, :, None]
    two = np.where(soft_disc(40) > 0, 128, 0).astype(np.uint8)
    two[55:65, 55:65] = 255
    for labels in (many, two[None], small_labels().array):
        assert without_soft_edges(labels, blurred=False) is labels
    assert set(np.unique(without_soft_edges(two, blurred=True))) == {0, 255}
