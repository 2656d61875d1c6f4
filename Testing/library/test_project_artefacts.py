"""Arrays on disk: the same bytes for the same content, and no damaged file is read."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from SAM2IterativeLib.errors import ProjectError
from SAM2IterativeLib.files import sha256_of
from SAM2IterativeLib.project import load_arrays, load_probabilities, save_arrays, save_probabilities


def _probabilities(classes: int = 3) -> np.ndarray:
    scores = np.random.default_rng(0).exponential(size=(classes, 4, 5, 6)).astype(np.float32)
    return np.asarray(scores / scores.sum(axis=0), dtype=np.float32)


def test_probabilities_come_back_within_a_step(tmp_path: Path) -> None:
    save_probabilities(tmp_path / "p.npz", _probabilities())
    back = load_probabilities(tmp_path / "p.npz")
    assert back.dtype == np.float32
    assert np.abs(back - _probabilities()).max() < 2 / 255
    assert np.allclose(back.sum(axis=0), 1)
    assert int(load_arrays(tmp_path / "p.npz")["steps"]) == 255, "the scale stands in the file"


def test_certain_probabilities_are_exact(tmp_path: Path) -> None:
    certain = (np.arange(3)[:, None, None, None] == np.ones((1, 2, 2, 2))).astype(np.float32)
    save_probabilities(tmp_path / "p.npz", certain)
    assert np.array_equal(load_probabilities(tmp_path / "p.npz"), certain)


def test_same_content_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {"b": np.arange(5), "a": np.zeros((2, 3), order="F")}
    save_arrays(tmp_path / "1.npz", arrays)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    save_arrays(tmp_path / "2.npz", dict(reversed(arrays.items())))
    assert sha256_of(tmp_path / "1.npz") == sha256_of(tmp_path / "2.npz")
    assert load_arrays(tmp_path / "1.npz").keys() == {"a", "b"}


def test_damage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    save_probabilities(path, _probabilities())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ProjectError, match=r"p\.npz: the file is damaged"):
        load_arrays(path)
    flipped = bytearray(content)
    flipped[100] ^= 0xFF
    path.write_bytes(bytes(flipped))
    with pytest.raises(ProjectError, match="damaged"):
        load_arrays(path)
    path.unlink()
    with pytest.raises(ProjectError, match="missing"):
        load_arrays(path)


def test_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        save_arrays(tmp_path / "x.npz", {"a": np.array([{}], dtype=object)})
    assert not list(tmp_path.iterdir())
