"""The whole way with a real worker in a real child process, and the self test that Slicer runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import harness
import pytest
from opened_module import MODULE, open_tab

from SAM2IterativeLib.review import Review


def test_a_run_that_is_killed_continues_and_its_network_labels_other_volumes(module: Any, tmp_path: Path) -> None:
    pytest.importorskip("sam2")
    from small_projects import small_project, tiny_weights

    small_project(tmp_path / "p", tiny_weights(tmp_path)).close()
    harness.dialogs.answer(str(tmp_path / "p"))
    ui, session = module.widget.ui, module.widget.session
    harness.click(ui.openButton)
    open_tab(module, "Rounds")
    ui.roundsBox.setValue(1)
    harness.click(ui.startButton)
    harness.wait_until(lambda: "case case_" in ui.stageLabel.text, "a first case", seconds=240)
    first = session.worker._client
    os.killpg(first._process.pid, signal.SIGKILL)
    again = "going on by itself, this once"
    harness.wait_until(lambda: session.worker._client is not first and "case case_" in ui.stageLabel.text, again, seconds=240)
    os.killpg(session.worker._client._process.pid, signal.SIGKILL)
    harness.wait_until(lambda: not ui.problemLabel.isHidden(), "the worker's death is noticed")
    assert "died" in ui.problemLabel.text and "Continue" in ui.problemLabel.text
    done = {(unit.round, unit.stage, unit.case): unit.finished_at for unit in session.project.journal.units()}
    assert done, "what was finished is kept"

    session.close()
    session.open(tmp_path / "p")
    assert ui.startButton.text == "Continue"
    harness.click(ui.startButton)
    harness.wait_until(lambda: ui.roundTable.rowCount == 2 and not session.worker.busy, "round 1", seconds=400)
    assert ui.problemLabel.isHidden()
    now = {(unit.round, unit.stage, unit.case): unit.finished_at for unit in session.project.journal.units()}
    assert done.items() <= now.items(), "nothing finished was done again"
    assert len(Review(session.project).queue()) == 2

    _apply_to_others(module, tmp_path)


def _apply_to_others(module: Any, folder: Path) -> None:
    ui = open_tab(module, "Results")
    (folder / "other").mkdir()
    image = module.widget.session.project.cases()[0].image
    (folder / "other" / f"one{image.suffix}").write_bytes(image.read_bytes())
    ui.applyImagesEdit.setCurrentPath(str(folder / "other"))
    ui.applyOutputEdit.setCurrentPath(str(folder / "labels"))
    harness.click(ui.applyButton)
    harness.wait_until(lambda: "labelled in" in ui.applyLabel.text, "the other volume", seconds=240)
    assert len(list((folder / "labels").glob("one*"))) == 1


def test_slicers_own_self_test_passes(module: Any) -> None:
    module.description.runTest(msec=0)
    assert harness.dialogs.texts("info")[-1] == "Test passed"
    assert module.widget.session.project is None
    assert module.widget.session.worker.make_client.__name__ == "WorkerClient", "left as it was"


_PROGRAM = """
    import sys

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in BLOCKED:
                raise ModuleNotFoundError(f"blocked: {name}", name=name)

    BLOCKED = set("torch torchvision sam2 monai safetensors hydra iopath pooch jinja2 matplotlib tqdm typer rich".split())
    import harness
    harness.start()
    import slicer.util
    import importlib.util
    sys.meta_path.insert(0, Blocked())
    real = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] in BLOCKED else real(name, *rest)
    module = harness.load_module(sys.argv[1])
    module.enter()
    for number in range(module.widget.tabs.count):
        module.widget.tabs.setCurrentIndex(number)
        harness.process_events()
    assert "PyTorch" in module.widget.ui.installLabel.text
    module.description.runTest(msec=0)
    assert harness.dialogs.texts("error") == []
    module.unload()
    loaded = BLOCKED & {name.split(".")[0] for name in sys.modules}
    assert not loaded, loaded
    print("walked through")
"""


def test_the_module_opens_and_reviews_where_nothing_is_installed(slicer_app: Any) -> None:
    testing = MODULE.parents[1] / "Testing"
    path = os.pathsep.join(map(str, (testing, MODULE.parent, MODULE.parents[1])))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_PROGRAM), str(MODULE)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert "walked through" in done.stdout, done.stderr[-3000:]
