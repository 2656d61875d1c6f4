"""Generated cases: repeatable, one anatomy, exact labels, and neither trivial nor hopeless."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from SAM2IterativeLib.phantom import phantom_case, write_phantom_dataset
from SAM2IterativeLib.volumes import read_label_map, read_volume

SMALL = (10, 40, 40)

case = lru_cache(maxsize=None)(phantom_case)
"""Cases made once for all tests; nothing here writes into them."""


def centre_ras(seed: int, label: int, **options: bool) -> np.ndarray:
    """Centre of mass of a label in mm from the middle of the volume, RAS."""
    _, label_map = case(seed, **options)
    geometry = label_map.geometry
    middle = geometry.ras_of(tuple((n - 1) / 2 for n in geometry.size))
    return np.asarray(geometry.ras_of(np.argwhere(label_map.array == label).mean(axis=0))) - middle


def test_the_same_seed_gives_the_same_voxels_and_another_seed_others() -> None:
    (a, a_labels), (b, b_labels), (c, _) = (phantom_case(seed, size=SMALL) for seed in (4, 4, 5))
    np.testing.assert_array_equal(a.array, b.array)
    np.testing.assert_array_equal(a_labels.array, b_labels.array)
    assert a.geometry == b.geometry == a_labels.geometry
    assert (a.array != c.array).mean() > 0.5


@pytest.mark.parametrize("labels", [2, 3])
def test_every_case_holds_every_label(labels: int) -> None:
    for seed in range(6):
        volume, label_map = case(seed, labels=labels)
        assert (volume.array.dtype, label_map.array.dtype) == (np.int16, np.uint8)
        assert volume.array.shape == label_map.array.shape == (24, 64, 64)
        assert np.unique(label_map.array).tolist() == list(range(labels + 1))
        assert np.bincount(label_map.array.ravel())[1:].min() > 80


def test_other_numbers_of_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="2 or 3 labels, not 4"):
        phantom_case(0, labels=4)


def test_organ_and_gland_end_within_the_volume_and_the_vessel_does_not() -> None:
    for seed in range(6):
        labels = case(seed, labels=3)[1].array
        for c in (1, 2):
            assert not (labels[[0, -1]] == c).any()
        assert (labels == 3).any(axis=(1, 2)).all()


def test_organs_are_in_one_piece() -> None:
    for seed in range(6):
        labels = case(seed)[1].array
        for c in (1, 2):
            pieces, _ = ndimage.label(labels == c, structure=np.ones((3, 3, 3)))
            assert np.bincount(pieces.ravel())[1:].max() > 0.98 * (labels == c).sum()


def test_cases_share_an_anatomy_but_differ_in_shape() -> None:
    """The organ lies on the right, the gland nearer to the middle; sizes vary by more than a tenth, positions by millimetres."""
    organ, gland = (np.array([centre_ras(seed, label) for seed in range(6)]) for label in (1, 2))
    assert (organ[:, 0] > 0).all()
    assert (gland[:, 0] < organ[:, 0]).all()
    assert (organ.std(axis=0) < 6).all() and (organ.std(axis=0) > 0.3).all()
    sizes = [np.count_nonzero(case(seed)[1].array == 1) for seed in range(6)]
    assert np.std(sizes) / np.mean(sizes) > 0.1


def test_brightness_alone_does_not_tell_the_organ() -> None:
    """What has the organ's grey values is mostly something else, and the organ still stands out from its surroundings."""
    for seed in range(4):
        volume, label_map = case(seed)
        smooth = ndimage.gaussian_filter(volume.array.astype(float), (0, 1, 1))
        organ = label_map.array == 1
        low, high = np.percentile(smooth[organ], [10, 90])
        assert organ[(smooth >= low) & (smooth <= high)].mean() < 0.5
        around = ndimage.binary_dilation(organ, iterations=4) & (label_map.array == 0)
        assert smooth[organ].mean() > smooth[around].mean()


@pytest.mark.parametrize("options", [{"flipped": True}, {"oblique": True}, {"flipped": True, "oblique": True}])
def test_another_orientation_shows_the_same_person_in_space(options: dict[str, bool]) -> None:
    for seed in range(2):
        np.testing.assert_allclose(centre_ras(seed, 1, **options), centre_ras(seed, 1), atol=2.0)


def test_directions_are_orthonormal_and_vary() -> None:
    directions = [phantom_case(seed, size=SMALL, flipped=True, oblique=True)[0].geometry.direction for seed in range(6)]
    for direction in directions:
        matrix = np.array(direction).reshape(3, 3)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert len({tuple(np.sign(np.diag(np.array(d).reshape(3, 3)))) for d in directions}) > 1


@pytest.mark.parametrize("size", [(1, 64, 64), (3, 40, 56), (40, 24, 24)])
def test_any_size_works(size: tuple[int, int, int]) -> None:
    volume, label_map = phantom_case(1, size=size, labels=3)
    assert volume.array.shape == label_map.array.shape == size == volume.geometry.size
    assert (label_map.array == 1).any()


def test_thick_slices_show_the_same_person_as_thin_ones() -> None:
    thin = phantom_case(2, size=(48, 64, 64), spacing=(1.25, 1.0, 1.0))[1].array
    thick = phantom_case(2, size=(12, 64, 64), spacing=(5.0, 1.0, 1.0))[1].array
    assert 4 * (thick == 1).sum() == pytest.approx((thin == 1).sum(), rel=0.08)


def test_a_dataset_hides_the_references_of_unlabelled_cases(tmp_path: Path) -> None:
    folder, references = tmp_path / "data", tmp_path / "references"
    names = write_phantom_dataset(folder, cases=5, labelled=2, seed=1, references_folder=references, size=SMALL)
    found = {path.name: sorted(p.name for p in path.iterdir()) for path in (folder / "images", folder / "labels", references)}
    files = [f"{name}.nii.gz" for name in names]
    assert found == {"images": files, "labels": files[:2], "references": files[2:]}


def test_a_dataset_without_references_writes_none(tmp_path: Path) -> None:
    write_phantom_dataset(tmp_path / "data", cases=3, labelled=1, size=SMALL)
    assert sorted(path.relative_to(tmp_path / "data").as_posix() for path in tmp_path.rglob("*.nii.gz")) == [
        "images/phantom_000.nii.gz",
        "images/phantom_001.nii.gz",
        "images/phantom_002.nii.gz",
        "labels/phantom_000.nii.gz",
    ]


def test_files_read_back_with_their_geometry(tmp_path: Path) -> None:
    names = write_phantom_dataset(tmp_path, cases=3, labelled=3, seed=2, size=SMALL, varied=True, labels=3)
    sizes = set()
    for name in names:
        volume = read_volume(tmp_path / "images" / f"{name}.nii.gz")
        label_map = read_label_map(tmp_path / "labels" / f"{name}.nii.gz")
        assert volume.geometry.mismatch(label_map.geometry) is None
        assert label_map.values == (1, 2, 3)
        sizes.add(volume.geometry.size)
    assert len(sizes) == 3


def test_cases_do_not_depend_on_how_many_follow(tmp_path: Path) -> None:
    write_phantom_dataset(tmp_path / "few", cases=1, labelled=1, seed=3, size=SMALL)
    write_phantom_dataset(tmp_path / "many", cases=2, labelled=1, seed=3, size=SMALL)
    few, many = (read_volume(tmp_path / n / "images" / "phantom_000.nii.gz").array for n in ("few", "many"))
    np.testing.assert_array_equal(few, many)


def test_references_within_the_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="outside"):
        write_phantom_dataset(tmp_path, cases=2, labelled=1, references_folder=tmp_path / "references")
    with pytest.raises(ValueError, match="only 2 cases"):
        write_phantom_dataset(tmp_path, cases=2, labelled=3)
