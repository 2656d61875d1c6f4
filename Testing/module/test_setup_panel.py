"""The tab Setup: settings, weights, installing, the estimate."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import harness
import pytest
from opened_module import column, make_sample, open_tab

from SAM2IterativeLib.dedicated.plan import Plan, read_plan, write_plan
from SAM2IterativeLib.dedicated.planning import overruled
from SAM2IterativeLib.presets import ADAPTED, weights_in_use
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.round_method import note_method
from SAM2IterativeLib.settings import replaced

_REPOSITORY = Path(__file__).resolve().parents[2]
_SLOW = """
    import sys, time
    from pathlib import Path

    part = Path(sys.argv[2] + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(bytes(int(sys.argv[4]) // 2))
    time.sleep(600)
"""
"""A download that never comes to its end: half of the file is there."""


class Recorder:
    """Installs nothing and remembers what it was asked for."""

    def __init__(self, failing: str = "") -> None:
        self.calls: list[tuple[str, ...]] = []
        self.constraints = ""
        self.files: list[str] = []
        self.build_cuda: list[str | None] = []
        self.failing = failing

    def install_torch(self) -> None:
        self.calls.append(("torch",))

    def pip_install(self, arguments: Sequence[str]) -> None:
        self.calls.append(tuple(arguments))
        self.build_cuda.append(os.environ.get("SAM2_BUILD_CUDA"))
        for flag, path in itertools.pairwise(arguments):
            if flag == "--constraint":
                self.constraints = Path(path).read_text()
            if flag == "--requirement":
                self.files.append(Path(path).read_text())
        if self.failing and any(self.failing in argument for argument in arguments):
            raise subprocess.CalledProcessError(1, "pip")


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, scene: Any) -> None:
    from SAM2IterativeGUI import installation

    monkeypatch.setattr(installation.Component, "installed", property(lambda self: False))


def test_choices_are_written_to_the_project_at_once(module: Any, tmp_path: Path) -> None:
    project = make_sample(module, tmp_path / "p")
    ui = open_tab(module, "Setup")
    harness.choose(ui.networkCombo, ui.networkCombo.itemText(1))
    harness.choose(ui.deviceCombo, "processor (CPU)")
    ui.advancedSection.collapsed = False
    harness.choose(ui.memoryCombo, "and the key frames of the case")
    ui.keyFramesBox.setValue(5)
    ui.adaptationBox.setValue(0)
    ui.seedBox.setValue(11)
    with Project.open(project.folder, read_only=True) as written:
        settings = written.settings
    assert (settings.dedicated.network, settings.device, settings.memory.mode) == ("unet2d", "cpu", "G1")
    assert (settings.key_frames.count, settings.seed, settings.foundation.adaptation_steps) == (5, 11, 0)
    harness.click(ui.defaultsButton)
    assert (project.settings.device, project.settings.key_frames.count) == ("auto", 3)
    assert project.label_names == ("organ", "gland"), "labels stay"
    assert ui.keyFramesBox.value == 3


def test_what_the_method_ignores_and_a_method_under_way_cannot_be_changed(module: Any, tmp_path: Path) -> None:
    project = make_sample(module, tmp_path / "p")
    ui = open_tab(module, "Setup")
    ui.advancedSection.collapsed = False
    assert ui.memoryCombo.isEnabled() and ui.methodCombo.isEnabled()
    harness.choose(ui.methodCombo, "knowledge mining")
    assert project.settings.method == "knowledge_mining"
    for choice in (ui.memoryCombo, ui.keyFramesBox, ui.adaptationBox):
        assert not choice.isEnabled() and "does without" in choice.toolTip
    write_plan(project.plan_path, Plan(classes=2))
    note_method(project, 0)
    project.journal.finish_unit(0, "training", "", [])
    module.widget.session.notify("rounds")
    assert not ui.methodCombo.isEnabled() and "Round 0 is not finished" in ui.methodCombo.toolTip


class TestPlanned:
    """Once plan.toml is made, it counts."""

    @pytest.fixture
    def planned(self, module: Any, tmp_path: Path) -> Any:
        """A project with a plan, before its first round."""
        project = make_sample(module, tmp_path / "p")
        write_plan(project.plan_path, Plan(classes=2, first_steps=1800, round_steps=900))
        project.plan_path.write_text("# mine\n" + project.plan_path.read_text())
        return project

    def test_its_steps_are_shown_and_changed(self, module: Any, planned: Project) -> None:
        ui = open_tab(module, "Setup")
        ui.advancedSection.collapsed = False
        assert (ui.firstStepsBox.value, ui.roundStepsBox.value, ui.roundStepsBox.minimum) == (1800, 900, 1)
        ui.roundStepsBox.setValue(2000)
        ui.firstStepsBox.setValue(1)
        plan = read_plan(planned.plan_path)
        assert (plan.first_steps, plan.round_steps) == (1, 2000) and "# mine" in planned.plan_path.read_text()
        assert ui.firstStepsBox.text == "1", "one step is not 'automatic'"
        assert overruled(planned.settings.dedicated, plan) == [], "the two files agree"
        harness.click(ui.defaultsButton)
        assert ui.roundStepsBox.value == 2000, "the plan counts"

    def test_what_no_longer_counts_cannot_be_changed(self, module: Any, planned: Project) -> None:
        ui = open_tab(module, "Setup")
        assert ui.networkCombo.currentText.startswith("2-D U-Net")
        assert not ui.networkCombo.isEnabled() and "remove that file" in ui.networkCombo.toolTip
        assert ui.firstStepsBox.isEnabled() and ui.deviceCombo.isEnabled()
        planned.journal.finish_unit(0, "network", "", [])
        module.widget.session.notify("rounds")
        assert not ui.networkCombo.isEnabled() and "needs a new project" in ui.networkCombo.toolTip
        assert not ui.firstStepsBox.isEnabled() and "Round 0 has begun" in ui.firstStepsBox.toolTip
        assert ui.roundStepsBox.isEnabled()

    def test_a_plan_that_cannot_be_read_says_why(self, module: Any, planned: Project) -> None:
        text = planned.plan_path.read_text()
        planned.plan_path.write_text(text.replace("batch = 16", "bach = 16"))
        ui = open_tab(module, "Setup")
        for choice in (ui.networkCombo, ui.firstStepsBox, ui.roundStepsBox):
            assert not choice.isEnabled() and "Did you mean 'batch'" in choice.toolTip
        assert ui.deviceCombo.isEnabled() and "Did you mean 'batch'" in ui.choicesWhyLabel.text
        planned.plan_path.unlink()
        module.widget.session.notify("settings")
        assert ui.networkCombo.isEnabled() and ui.roundStepsBox.value == planned.settings.dedicated.round_steps
        ui.roundStepsBox.setValue(0)
        assert ui.roundStepsBox.text == "automatic"


def test_without_a_project_choices_say_what_they_wait_for(module: Any) -> None:
    ui = open_tab(module, "Setup")
    assert "Open a project first" in ui.choicesWhyLabel.text
    assert "Open a project first" in ui.methodCombo.toolTip
    assert not ui.methodCombo.isEnabled()


def test_the_methods_are_those_that_the_library_has(module: Any) -> None:
    pytest.importorskip("torch")
    from SAM2IterativeGUI.method_choices import methods_on_disk
    from SAM2IterativeLib.methods import method_names

    found = methods_on_disk()
    assert tuple(sorted(found)) == tuple(sorted(method_names()))
    assert all(found.values())


def test_missing_parts_are_named_and_review_is_said_to_work(nothing_installed: None, module: Any) -> None:
    ui = open_tab(module, "Setup")
    assert "PyTorch" in ui.installLabel.text and "Review" in ui.installLabel.text
    assert not ui.installSection.collapsed
    assert ui.installButton.isEnabled()


def test_nothing_is_installed_without_asking(nothing_installed: None, module: Any) -> None:
    panel = module.widget.panels["setup"]
    panel.runner = recorder = Recorder()
    open_tab(module, "Setup")
    harness.dialogs.answer(False)
    harness.click(panel.ui.installButton)
    assert recorder.calls == []
    (asked,) = harness.dialogs.texts("question")
    assert "PyTorch" in asked and "GB" in asked


def test_torch_comes_first_then_the_rest_beside_slicers_own_packages(nothing_installed: None, module: Any) -> None:
    panel = module.widget.panels["setup"]
    panel.runner = recorder = Recorder()
    open_tab(module, "Setup")
    harness.dialogs.answer(True)
    harness.click(panel.ui.installButton)
    torch, rest, build, sam2, report, dicom = recorder.calls
    assert torch == ("torch",)
    assert rest[0] == "--constraint" and "monai>=1.6.1" in rest
    assert not any(argument.startswith(("torch", "numpy", "SimpleITK", "sam2")) for argument in rest)
    assert "setuptools>=77" in build, "a newer one that Slicer has stays"
    assert "jinja2>=3.1" in report and "highdicom>=0.23" in dicom
    assert {"--no-build-isolation", "--no-deps", "--require-hashes"} <= set(sam2)
    assert "numpy==" in recorder.constraints
    assert recorder.build_cuda == [None, None, "0", None, None]
    assert "SAM2_BUILD_CUDA" not in os.environ


def test_sam2_is_exactly_the_one_that_the_project_checked(nothing_installed: None) -> None:
    from SAM2IterativeGUI import installation

    recorder = Recorder()
    installation.install([c for c in installation.COMPONENTS if c.package == "sam2"], recorder)
    (listed,) = recorder.files
    assert listed.strip() in (_REPOSITORY / "sam2-requirement.txt").read_text()


def test_what_is_too_old_is_told_and_only_replaced_after_asking(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from SAM2IterativeGUI import installation

    versions = {"torch": "2.1.0+cu121", "torchvision": "0.25.0", "monai": "1.10", "safetensors": "0.4.3", "sam2": "1.1.0"}
    monkeypatch.setattr(installation.Component, "installed", property(lambda self: True))
    monkeypatch.setattr(installation.Component, "version", property(lambda self: versions.get(self.package, "")))
    panel = module.widget.panels["setup"]
    panel.runner = recorder = Recorder()
    ui = open_tab(module, "Setup")
    assert column(ui.componentTable, 1)[:4] == ["too old (2.1.0+cu121, 2.10 is needed)", "0.25.0", "1.1.0", "1.10"]
    assert "too old for the rounds:</b> PyTorch." in ui.installLabel.text
    harness.dialogs.answer(False)
    harness.click(ui.installButton)
    (asked,) = harness.dialogs.texts("question")
    assert "take their place: PyTorch 2.1.0+cu121." in asked and recorder.calls == []
    harness.dialogs.answer(True)
    harness.click(ui.installButton)
    assert recorder.calls == [("torch",)]


def test_a_failed_installation_says_what_failed(nothing_installed: None, module: Any) -> None:
    panel = module.widget.panels["setup"]
    panel.runner = Recorder(failing="monai")
    open_tab(module, "Setup")
    harness.dialogs.answer(True)
    harness.click(panel.ui.installButton)
    (said,) = harness.dialogs.texts("error")
    assert "monai" in said and "internet" in said
    assert "/" not in said.split("could not install")[1].split(".")[0], "no file path"


@pytest.mark.parametrize("failing", ["jinja2", "highdicom"])
def test_what_only_the_report_or_dicom_lacks_keeps_nobody_from_the_rounds(nothing_installed: None, module: Any, failing: str) -> None:
    panel = module.widget.panels["setup"]
    panel.runner = recorder = Recorder(failing=failing)
    open_tab(module, "Setup")
    harness.dialogs.answer(True)
    harness.click(panel.ui.installButton)
    (said,) = harness.dialogs.texts("error")
    assert failing in said and "monai" not in said
    asked = " ".join(" ".join(call) for call in recorder.calls)
    assert all(name in asked for name in ("torch", "monai", "sam2-requirement", "jinja2", "highdicom"))


def test_dicom_export_is_not_offered_where_slicers_pydicom_is_too_old(
    nothing_installed: None, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slicer 5.10 ships pydicom 2.4.4, with which no highdicom for its numpy goes: pip would refuse everything asked for along with it."""
    from SAM2IterativeGUI import installation

    versions = {"pydicom": "2.4.4"}
    monkeypatch.setattr(installation, "_version", lambda package: versions.get(package, ""))
    panel = module.widget.panels["setup"]
    panel.runner = recorder = Recorder()
    ui = open_tab(module, "Setup")
    assert column(ui.componentTable, 1)[-1].startswith("needs Slicer 5.12 or newer")
    harness.dialogs.answer(True)
    harness.click(ui.installButton)
    assert "highdicom" not in harness.dialogs.texts("question")[0]
    assert not any("highdicom" in argument for call in recorder.calls for argument in call)
    versions["pydicom"] = "3.0.2"
    assert "highdicom" in [component.package for component in installation.installable()]


def test_nothing_is_installed_twice_at_once(nothing_installed: None, module: Any) -> None:
    """While pip prints, Slicer handles clicks."""
    from SAM2IterativeGUI import installation, setup_panel

    panel = module.widget.panels["setup"]

    class Clicked(Recorder):
        def install_torch(self) -> None:
            super().install_torch()
            assert installation.under_way()
            assert not panel.ui.installButton.isEnabled()
            assert not setup_panel.ask_and_install(self)

    panel.runner = recorder = Clicked()
    open_tab(module, "Setup")
    harness.dialogs.answer(True)
    harness.click(panel.ui.installButton)
    assert recorder.calls.count(("torch",)) == 1
    assert harness.dialogs.texts("error") == ["An installation is under way: wait until it is done."]
    assert not installation.under_way() and panel.ui.installButton.isEnabled()


@pytest.mark.parametrize("error", [subprocess.CalledProcessError(1, "PythonSlicer"), ImportError("libcuda"), OSError("c10.dll")])
def test_a_torch_that_could_not_be_installed_is_told_in_a_sentence(scene: Any, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    import importlib.util

    from SAM2IterativeGUI import installation
    from SAM2IterativeGUI.installation import SlicerRunner
    from SAM2IterativeLib.errors import MissingPackageError

    class Logic:
        def installTorch(self, **wishes: object) -> None:
            raise error

    monkeypatch.setitem(sys.modules, "PyTorchUtils", SimpleNamespace(PyTorchUtilsLogic=Logic))
    SlicerRunner().install_torch()  # torch is there, it only could not be imported into this process
    with monkeypatch.context() as patch:
        patch.setattr(installation.Component, "version", property(lambda self: "2.1.0"))  # the old one is still there
        with pytest.raises(MissingPackageError, match="Python console"):
            SlicerRunner().install_torch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="Python console"):
        SlicerRunner().install_torch()


def test_without_slicers_torch_extension_the_cure_names_it(scene: Any) -> None:
    from SAM2IterativeGUI.installation import SlicerRunner
    from SAM2IterativeLib.errors import MissingPackageError

    with pytest.raises(MissingPackageError, match="Extensions Manager"):
        SlicerRunner().install_torch()


class TestWeights:
    @pytest.fixture(autouse=True)
    def own_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("SAM2_ITERATIVE_MODELS", str(tmp_path / "weights"))

    @pytest.fixture
    def ui(self, module: Any, tmp_path: Path) -> Any:
        make_sample(module, tmp_path / "p")
        ui = open_tab(module, "Setup")
        harness.choose(ui.weightsCombo, "sam2.1-tiny")
        return ui

    def test_size_and_source_are_told_before_anything_is_fetched(self, module: Any, ui: Any) -> None:
        assert "156 MB" in ui.weightsLabel.text
        harness.dialogs.answer(False)
        harness.click(ui.downloadButton)
        (asked,) = harness.dialogs.texts("question")
        assert "156 MB" in asked and "dl.fbaipublicfiles.com" in asked

    @pytest.fixture
    def published(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        """The file that sam2.1-tiny is fetched from, in place of the internet."""
        from SAM2IterativeLib import presets

        source = tmp_path / "published.pt"
        source.write_bytes(b"weights" * 1000)
        digest, size = hashlib.sha256(source.read_bytes()).hexdigest(), source.stat().st_size
        preset = replace(presets.PRESETS["sam2.1-tiny"], url=source.as_uri(), sha256=digest, size=size)
        monkeypatch.setitem(presets.PRESETS, "sam2.1-tiny", preset)
        return source

    def _download(self, module: Any, ui: Any) -> None:
        harness.dialogs.answer(True)
        harness.click(ui.downloadButton)
        transfer = module.widget.panels["setup"].weights.transfer
        harness.wait_until(lambda: not transfer.name, "the end of the download", seconds=60)

    def test_a_download_that_worked_can_be_used_and_deleted(self, module: Any, ui: Any, tmp_path: Path, published: Path) -> None:
        self._download(module, ui)
        (arrived,) = (tmp_path / "weights").iterdir()
        assert (arrived.name, arrived.read_bytes()) == ("sam2.1_hiera_tiny.pt", published.read_bytes())
        assert "On this computer." in ui.weightsLabel.text
        assert "already" in ui.downloadButton.toolTip
        assert ui.downloadProgress.isHidden() and ui.cancelDownloadButton.isHidden()
        harness.dialogs.answer(True)
        harness.click(ui.removeWeightsButton)
        assert list((tmp_path / "weights").iterdir()) == []

    @pytest.mark.parametrize("came", [b"half a file", b"another" * 1000, b"longer " * 2000])
    def test_a_download_arrives_whole_or_not_at_all(self, module: Any, ui: Any, tmp_path: Path, published: Path, came: bytes) -> None:
        published.write_bytes(came)
        self._download(module, ui)
        (said,) = harness.dialogs.texts("error")
        assert "not the published one" in said or "more came than was published" in said
        assert not (tmp_path / "weights" / "sam2.1_hiera_tiny.pt").exists()
        assert "Not on this computer yet" in ui.weightsLabel.text

    @pytest.mark.parametrize(("came", "checksum"), [(b"weights" * 1000, True), (b"PK\3\4" * 1000, False), (b"<html>", False)])
    def test_only_what_was_checked_is_called_so(
        self, module: Any, ui: Any, tmp_path: Path, published: Path, monkeypatch: pytest.MonkeyPatch, came: bytes, checksum: bool
    ) -> None:
        from SAM2IterativeLib import presets

        published.write_bytes(came)
        if not checksum:
            monkeypatch.setitem(presets.PRESETS, "sam2.1-tiny", replace(presets.PRESETS["sam2.1-tiny"], sha256="", size=0))
        self._download(module, ui)
        said = " ".join(harness.dialogs.texts("status"))
        if came == b"<html>":
            assert "no checkpoint" in harness.dialogs.texts("error")[0] and list((tmp_path / "weights").iterdir()) == []
        elif checksum:
            assert "is the published file" in said
        else:
            assert "was not checked" in said

    def test_without_the_source_the_sentence_offers_another_way(self, module: Any, ui: Any, published: Path) -> None:
        published.unlink()
        self._download(module, ui)
        (said,) = harness.dialogs.texts("error")
        assert "internet connection" in said and "place it here" in said and "sam2.1_hiera_tiny.pt" in said

    def test_slicer_stays_usable_meanwhile_and_the_person_can_cancel(self, module: Any, ui: Any, tmp_path: Path, published: Path) -> None:
        transfer = module.widget.panels["setup"].weights.transfer
        transfer.command = (sys.executable, "-c", textwrap.dedent(_SLOW))
        harness.dialogs.answer(True)
        harness.click(ui.downloadButton)
        harness.wait_until(lambda: ui.downloadProgress.value == 50, "half of it", seconds=60)
        assert not ui.downloadProgress.isHidden() and "sam2.1-tiny" in ui.downloadProgress.format
        assert "under way" in ui.downloadButton.toolTip and not ui.downloadButton.isEnabled()
        harness.choose(ui.weightsCombo, "compact")
        assert ui.downloadProgress.value == 50, "another choice does not end it"
        process = transfer._process
        harness.click(ui.cancelDownloadButton)
        assert process.poll() is not None, "the process is gone"
        assert not transfer.name and ui.downloadProgress.isHidden()
        harness.choose(ui.weightsCombo, "sam2.1-tiny")
        assert ui.downloadButton.isEnabled()
        assert harness.dialogs.texts("error") == []

    def test_a_download_that_is_ended_from_outside_says_so(self, module: Any, ui: Any, published: Path) -> None:
        transfer = module.widget.panels["setup"].weights.transfer
        transfer.command = (sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        self._download(module, ui)
        assert "ended from outside" in harness.dialogs.texts("error")[0]

    def test_closing_slicer_ends_it(self, module: Any, ui: Any, published: Path) -> None:
        transfer = module.widget.panels["setup"].weights.transfer
        transfer.command = (sys.executable, "-c", textwrap.dedent(_SLOW))
        harness.dialogs.answer(True)
        harness.click(ui.downloadButton)
        process = transfer._process
        module.widget.panels["setup"].cleanup()
        assert process.poll() is not None

    def test_a_file_of_ones_own(self, module: Any, ui: Any, tmp_path: Path) -> None:
        own = tmp_path / "mine.pt"
        own.write_bytes(b"weights")
        harness.dialogs.answer(str(own))
        harness.click(ui.weightsFileButton)
        project = module.widget.session.project
        assert project.settings.foundation.weights == str(own)
        assert ui.weightsCombo.currentText == "mine.pt"
        own.unlink()
        module.widget.panels["setup"].refresh()
        assert "not there any more" in ui.weightsLabel.text


def test_the_estimate_is_shown_in_words(pretending: Any, tmp_path: Path) -> None:
    make_sample(pretending, tmp_path / "p")
    ui = open_tab(pretending, "Setup")
    harness.click(ui.estimateButton)
    assert not ui.estimateButton.isEnabled(), "one at a time"
    harness.wait_until(lambda: "pretended device" in ui.needsLabel.text, "the estimate")
    assert "1 min" in ui.needsLabel.text and "100.0 GB" in ui.needsLabel.text
    assert ui.estimateButton.isEnabled()


def test_adapted_weights_are_a_choice_that_can_run(module: Any, tmp_path: Path) -> None:
    project = make_sample(module, tmp_path / "p")
    ui = open_tab(module, "Setup")
    titles = [ui.weightsCombo.itemText(n) for n in range(ui.weightsCombo.count)]
    assert not any("adapted" in title for title in titles)
    project.models_folder.mkdir(exist_ok=True)
    Path(weights_in_use(ADAPTED, project.models_folder)).write_bytes(b"weights")
    project.change_settings(replaced(project.settings, "foundation.weights", ADAPTED))
    module.widget.session.notify("settings")
    assert ui.weightsCombo.currentText == "compact, adapted to this project"
    assert "Fine-tuned on this project" in ui.weightsLabel.text
    rounds = open_tab(module, "Rounds")
    assert rounds.startButton.isEnabled(), rounds.startButton.toolTip
    Path(weights_in_use(ADAPTED, project.models_folder)).unlink()
    module.widget.session.notify("settings")
    assert not rounds.startButton.isEnabled() and "not there any more" in rounds.startButton.toolTip
