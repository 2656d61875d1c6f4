"""The public sample set as a project."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import harness
import pytest
from small_cases import small_image, small_labels

from SAM2IterativeLib.errors import DataError
from SAM2IterativeLib.volumes import write_label_map, write_volume

_MODULE = Path(__file__).resolve().parents[2] / "SAM2Iterative"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A small Decathlon data set as it is downloaded."""
    root = tmp_path / "Task04"
    for number in range(24):
        write_volume(root / "imagesTr" / f"case_{number:03d}.nii.gz", small_image(number))
        write_label_map(root / "labelsTr" / f"case_{number:03d}.nii.gz", small_labels())
    (root / "dataset.json").write_text(json.dumps({"training": []}))
    with tarfile.open(tmp_path / "set.tar", "w") as file:
        file.add(root, "Task04")
    return tmp_path / "set.tar"


def test_a_few_cases_are_labelled_as_in_real_life(scene: Any, archive: Path, tmp_path: Path) -> None:
    from SAM2IterativeGUI.sample_data import make_public_project
    from SAM2IterativeGUI.session import Session

    session = Session()
    project = make_public_project(session, archive, tmp_path / "p", labelled=2)
    counts = {role: len(project.cases(role)) for role in ("labelled", "unlabelled", "validation")}  # type: ignore[arg-type]
    assert counts == {"labelled": 2, "unlabelled": 2, "validation": 20}
    assert all(case.label is None for case in project.cases("unlabelled"))
    assert project.label_names == ("anterior", "posterior")
    session.cleanup()


def test_an_archive_that_would_write_elsewhere_or_is_none_is_refused(scene: Any, tmp_path: Path) -> None:
    from SAM2IterativeGUI.sample_data import unpack

    bad = tmp_path / "bad.tar"
    with tarfile.open(bad, "w") as file:
        entry = tarfile.TarInfo("../outside.txt")
        entry.size = 2
        file.addfile(entry, io.BytesIO(b"no"))
    with pytest.raises(DataError, match=r"bad\.tar"):
        unpack(bad, tmp_path / "here")
    assert not (tmp_path / "outside.txt").exists()
    (tmp_path / "half.tar").write_bytes(b"cut off")
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path / "half.tar", tmp_path / "here")


def test_it_is_registered_with_a_checksum_when_slicer_has_started(module: Any, slicer_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    asked: list[dict[str, Any]] = []

    def register(  # the arguments that Slicer's own has, and no others
        category: str = "Custom",
        sampleName: str = "",
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Any = None,
        thumbnailFileName: str = "",
        loadFileTypes: Any = None,
        loadFiles: Any = None,
        loadFileProperties: Any = None,
        checksums: Any = None,
        loadFileType: Any = None,
    ) -> None:
        asked.append(
            {
                "category": category,
                "sampleName": sampleName,
                "uris": uris,
                "customDownloader": customDownloader,
                "thumbnailFileName": thumbnailFileName,
                "checksums": checksums,
            }
        )

    logic = SimpleNamespace(registerCustomSampleDataSource=register)
    monkeypatch.setitem(sys.modules, "SampleData", SimpleNamespace(SampleDataLogic=logic))
    slicer_app.startupCompleted.emit()
    assert asked[0]["category"] == "SAM2Iterative" and callable(asked[0]["customDownloader"])
    assert {entry["sampleName"] for entry in asked} == {"SAM2IterativeHippocampus"}
    assert asked[0]["checksums"].startswith("SHA256:") and asked[0]["uris"].startswith("https://")
    assert Path(asked[0]["thumbnailFileName"]).is_file()


def test_a_download_that_fails_is_told(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from SAM2IterativeGUI.sample_data import take_download

    class Logic:
        def downloadFileIntoCache(self, uri: str, name: str, checksum: str) -> str:
            raise ValueError("Failed to download")

    monkeypatch.setitem(sys.modules, "SampleData", SimpleNamespace(SampleDataLogic=Logic))
    harness.dialogs.answer(True)
    take_download(None)
    (said,) = harness.dialogs.texts("error")
    assert "could not be downloaded" in said and "internet" in said and module.widget.session.project is None


def test_slicers_start_imports_nothing_of_the_library() -> None:
    import subprocess
    import sys

    script = "import sys, SAM2IterativeGUI.public_sets as p; print([n for n in sys.modules if n.startswith(('SAM2IterativeLib', 'numpy'))])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=_MODULE)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("agreed", [False, True])
def test_it_is_downloaded_after_asking_and_opened(
    module: Any, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agreed: bool
) -> None:
    import sys

    from SAM2IterativeGUI.public_sets import HIPPOCAMPUS
    from SAM2IterativeGUI.sample_data import take_download

    asked: list[tuple[str, ...]] = []

    class Logic:
        def downloadFileIntoCache(self, uri: str, name: str, checksum: str) -> str:
            asked.append((uri, name, checksum))
            return str(archive)

    monkeypatch.setitem(sys.modules, "SampleData", SimpleNamespace(SampleDataLogic=Logic))
    harness.dialogs.answer(agreed)
    take_download(None)
    (question,) = harness.dialogs.texts("question")
    assert "CC BY-SA 4.0" in question and "28 MB" in question and HIPPOCAMPUS.url in question
    assert asked == ([(HIPPOCAMPUS.url, HIPPOCAMPUS.file, HIPPOCAMPUS.checksum)] if agreed else [])
    project = module.widget.session.project
    assert (project is not None) == agreed
    assert not agreed or len(project.cases("validation")) == 20
    module.widget.session.may_close = lambda: False
    harness.dialogs.answer(True)
    take_download(None)
    assert module.widget.session.project is project, "a project with something unsaved stays"
