"""A project folder: created, found again elsewhere, guarded against change and against a second writer."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_cases import OBLIQUE, small_image, small_labels

from SAM2IterativeLib.errors import DataError, GeometryError, ProjectError, ResourceError, SettingsError
from SAM2IterativeLib.project import Project, case_id_of, label_of, labels_of_names, opaque_case_id
from SAM2IterativeLib.project.network_share import kind_of_mount
from SAM2IterativeLib.project.settings_file import read_settings, write_settings
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.settings import replaced
from SAM2IterativeLib.volumes import Geometry, Volume


def test_cases_come_back_as_they_went_in(project: Project) -> None:
    case = project.case("a")
    assert (case.role, [c.id for c in project.cases("unlabelled")]) == ("labelled", ["b", "c"])
    image = project.read_case_image(case)
    assert np.array_equal(image.array, small_image(1).array) and image.array.dtype == np.int16
    assert image.geometry.mismatch(OBLIQUE, 1e-9) is None
    assert np.array_equal(project.read_case_label(case).array, small_labels().array)


def test_a_moved_project_still_works(project: Project, tmp_path: Path) -> None:
    old = project.folder
    path = project.artefact(1, "b", "coarse.nrrd")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    project.journal.finish_unit(1, "predict", "b", [path])
    project.close()
    moved = tmp_path / "elsewhere" / "moved"
    shutil.move(old, moved)
    with Project.open(moved) as again:
        assert again.read_case_image(again.case("a")).array.shape == OBLIQUE.size
        assert again.journal.unit_done(1, "predict", "b")
    for file in moved.rglob("*"):
        assert file.is_dir() or str(tmp_path).encode() not in file.read_bytes(), f"{file.name} holds an absolute path"


def test_a_flat_colour_case(project: Project) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (1, 8, 9, 3), dtype=np.uint8)
    case = project.add_case("polyp", Volume(colours, Geometry((1, 8, 9), planar=True)))
    back = project.read_case_image(case)
    assert np.array_equal(back.array, colours) and back.geometry.planar


def test_a_changed_or_missing_copy_is_noticed(project: Project) -> None:
    case = project.case("a")
    content = bytearray(case.image.read_bytes())
    content[-20] ^= 1
    case.image.write_bytes(bytes(content))
    with pytest.raises(ProjectError, match=r"a: the file image\.nrrd changed since"):
        project.read_case_image(case)
    case.image.unlink()
    with pytest.raises(ProjectError, match="is missing"):
        project.read_case_image(case)


def test_labels_must_fit(project: Project) -> None:
    moved = replace(OBLIQUE, origin=(0.0, 0.0, 0.0))
    with pytest.raises(GeometryError, match=r"d\.nii: the label map does not lie on its image: origin"):
        project.add_case("d", small_image(), replace(small_labels(), geometry=moved), source=["/some/where", "d.nii"][-1])
    with pytest.raises(DataError, match=r"holds the values \[9\]; the project's labels are \[1, 2\]"):
        project.add_case("d", small_image(), small_labels(values=(1, 9)))
    assert not (project.folder / "cases" / "d").exists()
    assert len(project.cases()) == 3


def test_a_label_can_come_later_but_never_replaces_one(project: Project) -> None:
    case = project.add_label(project.case("b"), small_labels())
    assert case.role == "labelled"
    with pytest.raises(ProjectError, match="already has a label map"):
        project.add_label(case, small_labels(1))


def test_a_change_keeps_what_another_process_wrote_meanwhile(project: Project) -> None:
    with Project.open(project.folder, shared_with=os.getpid()) as worker:
        worker.change_settings(replaced(worker.settings, "foundation.weights", "adapted"))
    project.change_settings(replaced(project.settings, "memory.mode", "G1"))
    assert read_settings(project.folder / "project.toml") == project.settings
    assert (project.settings.foundation.weights, project.settings.memory.mode) == ("adapted", "G1")
    write_settings(project.folder / "project.toml", replaced(project.settings, "seed", 5))
    assert project.reread_settings() and project.settings.seed == 5 and not project.reread_settings()


def test_roles(project: Project) -> None:
    assert project.set_role("a", "validation").role == "validation"
    assert [c.id for c in project.cases(usable=True)] == ["a", "b", "c"]
    assert not project.set_role("a", "excluded").usable
    assert project.set_role("a", "labelled").usable
    with pytest.raises(ProjectError, match="b: a case without a label map cannot be 'validation'"):
        project.set_role("b", "validation")
    with pytest.raises(ProjectError, match="is no role"):
        project.set_role("b", "favourite")  # type: ignore[arg-type]
    with pytest.raises(ProjectError, match="there is no case 'z'"):
        project.set_role("z", "excluded")
    assert project.set_aside("b", "it is upside down.").set_aside
    assert [c.id for c in project.cases(usable=True)] == ["a", "c"]


def test_nothing_is_added_when_the_disk_is_full(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(ResourceError, match=r"0\.0 MB free"):
        project.add_case("d", small_image())
    assert len(project.cases()) == 3


def test_a_second_opener_reads_and_is_told_who_writes(project: Project) -> None:
    with Project.open(project.folder) as second:
        assert second.read_only
        assert f"in use by process {os.getpid()}" in second.notice
        assert [c.id for c in second.cases()] == ["a", "b", "c"]
        for change in (
            lambda: second.set_role("b", "excluded"),
            lambda: second.add_case("d", small_image()),
            lambda: second.journal.note("x", "y"),
            lambda: second.change_settings(second.settings),
        ):
            with pytest.raises(ProjectError):
                change()
    project.close()
    with Project.open(project.folder) as third:
        assert not third.read_only and not third.notice


def test_a_child_may_write_for_the_holder(project: Project) -> None:
    with Project.open(project.folder, shared_with=os.getpid()) as child:
        child.journal.note("round", "from the child")
    assert project.journal.events("round")[0].text == "from the child"
    with pytest.raises(ProjectError, match="no longer holds this project"):
        Project.open(project.folder, shared_with=1)
    project.close()
    with pytest.raises(ProjectError, match="no longer holds this project"):
        Project.open(project.folder, shared_with=os.getpid())


def _hold(folder: Path, ready: multiprocessing.connection.Connection) -> None:
    held = Project.open(folder)
    ready.send(held.read_only)
    signal.pause()


def test_a_killed_holder_leaves_no_lock(project: Project) -> None:
    project.close()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe()
    process = context.Process(target=_hold, args=(project.folder, sender))
    process.start()
    assert receiver.recv() is False
    with Project.open(project.folder) as second:
        assert second.read_only and str(process.pid) in second.notice
    process.kill()
    process.join()
    with Project.open(project.folder) as third:
        assert not third.read_only


def test_opening_sweeps_what_a_killed_writer_left(project: Project) -> None:
    leftover = project.folder / "cases" / ".writing-12345678-x.nrrd"
    leftover.write_bytes(b"half")
    with Project.open(project.folder):
        assert leftover.exists(), "a reader must not touch the writer's files"
    project.close()
    with Project.open(project.folder):
        assert not leftover.exists()


def test_an_existing_project_is_not_overwritten(project: Project) -> None:
    with pytest.raises(ProjectError, match=r"already holds 'project\.toml'"):
        Project.create(project.folder)


def test_no_project_and_newer_projects(project: Project, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="there is no project here"):
        Project.open(tmp_path)
    project.close()
    toml = project.folder / "project.toml"
    text = toml.read_text()
    toml.write_text(text.replace("format_version = 1", "format_version = 2"))
    with pytest.raises(ProjectError, match="of format 2, this software knows 1"):
        Project.open(project.folder)
    toml.write_text(text)
    with sqlite3.connect(project.folder / "journal.sqlite") as database:
        database.execute("UPDATE meta SET value = '2'")
    database.close()
    with pytest.raises(ProjectError, match="its journal is of version 2"):
        Project.open(project.folder)
    with pytest.raises(ProjectError, match="its journal is of version 2"):
        Project.open(project.folder)


def test_used_labels_cannot_be_dropped(project: Project) -> None:
    with pytest.raises(ProjectError, match="label 2 is used by case a"):
        project.change_settings(replace(project.settings, labels=(label_of(1),)))
    project.add_labels((label_of(3, "body"),))
    Review(project).correct(project.case("b"), small_labels(values=(1, 3)), reviewer="Ada")
    with pytest.raises(ProjectError, match="label 3 is used by case b"):
        project.change_settings(replace(project.settings, labels=project.settings.labels[:2]))
    Review(project).take_back_last()
    assert project.label_names == ("anterior", "posterior", "body")
    project.change_settings(replace(project.settings, labels=project.settings.labels[:2]))
    with Project.open(project.folder) as again:
        assert again.settings == project.settings


def test_a_project_behind_a_link(project: Project, tmp_path: Path) -> None:
    project.close()
    (tmp_path / "link").symlink_to(project.folder)
    with Project.open(tmp_path / "link") as again:
        path = again.artefact(0, "b", "x.txt")
        path.parent.mkdir(parents=True)
        path.write_text("x")
        again.journal.finish_unit(0, "predict", "b", [path])
        assert again.journal.unit_done(0, "predict", "b")


def test_a_part_that_was_moved_to_another_disk(project: Project, tmp_path: Path) -> None:
    for name in ("models", "rounds"):
        (tmp_path / "elsewhere" / name).mkdir(parents=True)
        (project.folder / name).symlink_to(tmp_path / "elsewhere" / name)
    for path in (project.models_folder / "m.bin", project.artefact(0, "a", "x.bin")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
        project.journal.finish_unit(0, path.stem, "a", [path])
        assert project.journal.unit_done(0, path.stem, "a")
    assert project.relative(project.models_folder / "m.bin") == "models/m.bin"
    assert (tmp_path / "elsewhere" / "rounds" / "0" / "a" / "x.bin").is_file()


def test_artefacts_stay_inside(project: Project) -> None:
    assert project.artefact(2, "b", "coarse.nii.gz") == project.folder / "rounds" / "2" / "b" / "coarse.nii.gz"
    with pytest.raises(DataError, match="leads out"):
        project.artefact(2, "..", "../../x")


def test_disk_used(project: Project) -> None:
    used = project.disk_used()
    assert used["cases"] == sum(p.stat().st_size for p in (project.folder / "cases").rglob("*") if p.is_file())
    assert used["other"] > 0 and used["rounds"] == 0


@pytest.mark.parametrize(
    ("stem", "id"),
    [
        ("hippo_001", "hippo_001"),
        ("Müller, Hans", "Muller_Hans"),
        ("../../x", "x"),
        ("CON", "case_CON"),
        ("脳", "case"),
        ("a" * 99, "a" * 64),
    ],
)
def test_case_ids_are_safe_file_names(stem: str, id: str) -> None:
    assert case_id_of(stem) == id


def test_case_ids_are_unique_regardless_of_case() -> None:
    assert case_id_of("Scan", ["scan", "Scan_2"]) == "Scan_3"
    assert opaque_case_id(["case_0001", "x"]) == "case_0002"


def test_labels_of_names() -> None:
    plain = labels_of_names(["background", "anterior", "posterior"])
    assert [(label.value, label.name) for label in plain] == [(1, "anterior"), (2, "posterior")]
    assert len({label.colour for label in plain}) == 2
    gaps = labels_of_names(["anterior", "posterior"], values=(3, 17))
    assert [(label.value, label.name) for label in gaps] == [(3, "anterior"), (17, "posterior")]
    assert [label.value for label in labels_of_names(["a", "b", "c"], values=(1, 3))] == [1, 2, 3]
    with pytest.raises(SettingsError, match=r"2 label names were given, but the files hold the values \[1, 2, 3\]"):
        labels_of_names(["a", "b"], values=(1, 2, 3))
    with pytest.raises(SettingsError, match="doubled"):
        labels_of_names(["a", "a"])


def test_network_shares_are_recognised() -> None:
    mounts = "/dev/sda / ext4 rw 0 0\nserver:/home /mnt/my\\040share nfs4 rw 0 0\ntmpfs /mnt/my\\040share/local tmpfs rw 0 0\n"
    assert kind_of_mount(Path("/mnt/my share/project"), mounts) == "nfs4"
    assert kind_of_mount(Path("/mnt/my share/local/project"), mounts) == "tmpfs"
    assert kind_of_mount(Path("/home/project"), mounts) == "ext4"
