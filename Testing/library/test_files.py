"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
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
    real, refusals = os.replace, [32, 5, 33, 1224]

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


def windows_error(code: int, *names: str) -> OSError:
    """As Windows would raise it; 1224 has no POSIX number of its own."""
    error = OSError(errno.EINVAL if code == 1224 else errno.EACCES, "refused", *(names[:1]), *((None, names[1]) if names[1:] else ()))
    error.winerror = code  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize("code", [5, 32, 33, 1224])
def test_a_file_that_stays_open_elsewhere_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def held(source: Path, target: Path) -> None:
        raise windows_error(code, str(source), str(target))

    monkeypatch.setattr(os, "replace", held)
    monkeypatch.setattr(files.time, "sleep", lambda _: None)
    with pytest.raises(ResourceError, match=r"a\.txt: another program holds this file open\. Close it"):
        files.write_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_windows_does_not_let_be_made_is_not_held_by_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise windows_error(5, str(tmp_path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ResourceError, match="may not be written"):
        files.write_text(tmp_path / "new" / "a.txt", "x")


@pytest.mark.parametrize("data_name", ["plain.raw", "Zähne.raw"])
@pytest.mark.parametrize("suffix", [".mhd", ".nhdr", ".nrrd"])
def test_a_stand_in_for_windows_holds_the_whole_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, data_name: str) -> None:
    path, voxels = tmp_path / f"Zähne{suffix}", np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    if suffix != ".nrrd":
        (tmp_path / "Zähne.raw").rename(tmp_path / data_name)
        path.write_bytes(path.read_bytes().replace("Zähne.raw".encode(), data_name.encode()))
    before = path.read_bytes()
    monkeypatch.setattr(files, "_LOCAL_CODE_PAGE", True)
    with files.path_for_itk(path) as readable:
        assert str(readable).isascii()
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(readable))), voxels)
        if suffix != ".nrrd":
            assert data_name not in readable.read_text(encoding="utf-8"), "that name lies in another folder"
    assert path.read_bytes() == before and not readable.exists()


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


def test_many_files_may_be_open() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        files.allow_open_files(300)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 556
        files.allow_open_files(1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 556, "never fewer than before"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
