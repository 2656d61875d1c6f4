"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from tiny_sam2 import full_disk

from SAM2IterativeLib import files
from SAM2IterativeLib.errors import DataError, ResourceError


@pytest.mark.parametrize(
    ("name", "stem", "suffix"),
    [
        ("a.b.nii.gz", "a.b", ".nii.gz"),
        ("C.NII.GZ", "C", ".nii.gz"),
        ("x.seg.nrrd", "x", ".seg.nrrd"),
        ("p.PNG", "p", ".png"),
        ("q", "q", ""),
    ],
)
def test_stem_and_suffix(name: str, stem: str, suffix: str) -> None:
    assert (files.stem_of(name), files.suffix_of(name)) == (stem, suffix)


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), files.atomic_write(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_name_keeps_the_suffix(tmp_path: Path) -> None:
    with files.atomic_write(tmp_path / "deep" / "a.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        assert temporary.parent == tmp_path / "deep"
        temporary.write_bytes(b"x")
    assert (tmp_path / "deep" / "a.nii.gz").read_bytes() == b"x"


def test_others_may_read_what_a_writer_keeps_to_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    before = os.umask(0o022)
    try:
        with files.atomic_write(path) as temporary:
            temporary.write_bytes(b"x")
            temporary.chmod(0o600)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_full_disk_that_numpy_tells_in_its_own_way(tmp_path: Path) -> None:
    array, path = np.ones(20_000), tmp_path / "a.npy"
    with (
        full_disk(20_000),
        pytest.raises(ResourceError, match="disk is full"),
        files.atomic_write(path) as made,
        open(made, "wb") as stream,
    ):
        np.save(stream, array)
    assert not list(tmp_path.iterdir())


def test_a_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.atomic_write(tmp_path / "a.nrrd"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_in_a_sentence_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(ResourceError, match=r"a\.bin: the disk is full"):
            files.write_bytes(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_forbidden_folder_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ResourceError, match="may not be written"):
        files.write_text(tmp_path / "a.txt", "x")


def test_a_rename_that_windows_refuses_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, refusals = os.replace, [32, 5, 33]

    def busy(source: Path, target: Path) -> None:
        if refusals:
            error = PermissionError("held by a scanner")
            error.winerror = refusals.pop()  # type: ignore[attr-defined]
            raise error
        real(source, target)

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(files.time, "sleep", lambda _: None)
    files.write_text(tmp_path / "a.txt", "x")
    assert (tmp_path / "a.txt").read_text() == "x"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="leads out"):
        files.resolve_under(tmp_path, name)


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path)
    with pytest.raises(DataError, match="leads out"):
        files.resolve_under(inside, "link/secret")
    assert files.resolve_under(inside, "a/b") == inside / "a" / "b"


def test_sweeping_removes_only_leftovers(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".writing-1234abcd-a.nii.gz").write_bytes(b"half")
    (tmp_path / "a.txt").write_text("keep")
    assert files.sweep(tmp_path) == 1
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["a.txt"]


def test_too_little_space_is_refused_before_writing(tmp_path: Path) -> None:
    files.require_space(tmp_path / "not" / "there", 1)
    with pytest.raises(ResourceError, match="MB free"):
        files.require_space(tmp_path, 10**18)
