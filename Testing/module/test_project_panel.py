"""The tab Project, clicked through: making, opening, adding, naming, taking out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import harness
import numpy as np
import pytest
from opened_module import column, make_sample, open_tab
from small_cases import OBLIQUE, small_image, small_labels

from SAM2IterativeLib.messages import StartRun
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.volumes import write_label_map, write_volume

_USE, _STATE = 1, 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three volumes, one labelled, one of them broken."""
    for name in "ab":
        write_volume(tmp_path / "data" / "images" / f"{name}.nii.gz", small_image(ord(name)))
    write_label_map(tmp_path / "data" / "labels" / "a.nii.gz", small_labels())
    (tmp_path / "data" / "images" / "broken.nii.gz").write_bytes(b"no volume")
    return tmp_path / "data"


def test_an_empty_module_explains_itself(module: Any) -> None:
    ui = module.widget.ui
    assert not ui.welcomeLabel.isHidden()
    assert ui.casesSection.isHidden()
    assert "No project is open." in ui.closeButton.toolTip
    with pytest.raises(AssertionError, match=r"No project is open\."):
        harness.click(ui.closeButton)


def test_the_sample_project_is_ready_with_one_click(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from SAM2IterativeGUI import project_panel, sample_data

    monkeypatch.setattr(
        project_panel, "make_sample_project", lambda session, folder: sample_data.make_sample_project(session, folder, (6, 32, 32), 5)
    )
    ui = module.widget.ui
    harness.click(ui.sampleButton)
    assert column(ui.caseTable, _USE) == ["training"] * 3 + ["to be labelled"] * 2
    assert column(ui.labelTable, 2) == ["organ", "gland"]
    assert "ready" in ui.nextLabel.text
    assert ui.addSection.collapsed
    harness.click(ui.nextButton)
    assert module.widget.tabs.currentIndex == 2


def test_a_second_sample_does_not_touch_the_first(module: Any, tmp_path: Path) -> None:
    from SAM2IterativeGUI.sample_data import free_folder

    assert free_folder(tmp_path, "sample") == tmp_path / "sample"
    (tmp_path / "sample").mkdir()
    assert free_folder(tmp_path, "sample") == tmp_path / "sample 2"


def test_from_a_folder_of_volumes_to_a_project(module: Any, folder: Path, tmp_path: Path) -> None:
    ui = module.widget.ui
    harness.dialogs.answer(str(tmp_path / "new"))
    harness.click(ui.createButton)
    assert "empty" in ui.nextLabel.text
    assert ui.nextButton.isHidden()
    ui.imagesEdit.setCurrentPath(str(folder))
    harness.process_events()
    assert (ui.imagesEdit.currentPath, ui.labelMapsEdit.currentPath) == (str(folder / "images"), str(folder / "labels"))
    harness.type_text(ui.labelNamesEdit, "anterior, posterior")
    harness.click(ui.addFolderButton)
    assert column(ui.caseTable, 0) == ["a", "b"]
    assert column(ui.caseTable, _STATE) == ["labelled by hand", "not labelled yet"]
    assert "broken" in ui.importLabel.text and not ui.importLabel.isHidden()
    assert column(ui.labelTable, 2) == ["anterior", "posterior"]
    assert ui.importProgress.isHidden()
    assert not ui.labelNamesEdit.isEnabled()


def test_a_folder_with_nothing_readable_says_so(module: Any, tmp_path: Path) -> None:
    make_sample(module, tmp_path / "p")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "letter.txt").write_text("Dear colleague")
    ui = module.widget.ui
    ui.addSection.collapsed = False
    ui.imagesEdit.setCurrentPath(str(tmp_path / "nothing"))
    harness.click(ui.addFolderButton)
    (said,) = harness.dialogs.texts("error")
    assert said.startswith("This folder could not be added.")
    assert ui.caseTable.rowCount == 5


def test_a_sheared_image_is_resampled_when_the_person_says_so(module: Any, tmp_path: Path) -> None:
    ui, project = module.widget.ui, module.widget.session.create(tmp_path / "p")
    (tmp_path / "data").mkdir()
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 20 20 10\n"
        "space directions: (1,0,0) (0.2,1,0) (0,0,2)\nspace origin: (0,0,0)\nkinds: domain domain domain\nendian: little\nencoding: raw\n\n"
    )
    (tmp_path / "data" / "x.nrrd").write_bytes(header.encode() + np.full((10, 20, 20), 100, "<i2").tobytes())
    ui.imagesEdit.setCurrentPath(str(tmp_path / "data"))
    assert not ui.resampleShearedBox.checked
    harness.click(ui.addFolderButton)
    assert "right angles" in ui.importLabel.text and "resampled" in ui.importLabel.text and not project.cases()
    harness.click(ui.resampleShearedBox)
    harness.click(ui.addFolderButton)
    (case,) = project.cases()
    assert "resampled copy" in ui.importLabel.text and project.read_case_image(case).array.max() == 100


def test_what_is_loaded_becomes_a_case_on_its_own_grid(module: Any, tmp_path: Path) -> None:
    import slicer

    from SAM2IterativeGUI.scene.volumes import vtk_matrix

    image, labels = small_image(3).array, small_labels()
    volume = slicer.util.addVolumeFromArray(np.ascontiguousarray(image), vtk_matrix(OBLIQUE), "loaded one")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for value, name in ((1, "front"), (2, "back")):
        node.GetSegmentation().AddEmptySegment(name, name, (0.2 * value, 0.5, 0.1))
        slicer.util.updateSegmentBinaryLabelmapFromArray((labels.array == value).astype(np.uint8), node, name, volume)
    module.widget.session.create(tmp_path / "p")
    ui = module.widget.ui
    ui.volumeSelector.setCurrentNode(volume)
    ui.segmentationSelector.setCurrentNode(node)
    harness.click(ui.addLoadedButton)
    assert harness.dialogs.texts("error") == []
    project = module.widget.session.project
    (case,) = project.cases()
    assert (case.role, project.label_names) == ("labelled", ("front", "back"))
    assert project.settings.labels[0].colour == (51, 128, 26)
    read, drawn = project.read_case_image(case), project.read_case_label(case)
    assert read.geometry.mismatch(OBLIQUE) is None
    np.testing.assert_array_equal(read.array, image)
    np.testing.assert_array_equal(drawn.array, labels.array)


def test_a_segment_without_a_label_is_refused_by_name(module: Any, tmp_path: Path) -> None:
    import slicer

    from SAM2IterativeGUI.scene.volumes import vtk_matrix

    project = make_sample(module, tmp_path / "p")
    volume = slicer.util.addVolumeFromArray(np.ascontiguousarray(small_image(3).array), vtk_matrix(OBLIQUE), "loaded")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.GetSegmentation().AddEmptySegment("spleen", "spleen", (1.0, 0.0, 0.0))
    ui = module.widget.ui
    ui.addSection.collapsed = False
    ui.volumeSelector.setCurrentNode(volume)
    ui.segmentationSelector.setCurrentNode(node)
    harness.click(ui.addLoadedButton)
    assert "'spleen' is none of the project's labels" in harness.dialogs.texts("error")[0]
    assert len(project.cases()) == 5


def test_a_moved_volume_is_added_where_the_scene_shows_it(scene: Any) -> None:
    import slicer
    import vtk

    from SAM2IterativeGUI.loaded_volumes import geometry_of
    from SAM2IterativeGUI.scene.volumes import vtk_matrix
    from SAM2IterativeLib.errors import DataError

    volume = slicer.util.addVolumeFromArray(np.zeros((3, 4, 5), np.int16), vtk_matrix(OBLIQUE), "moved")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 10.0)
    transform.SetMatrixTransformToParent(matrix)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    moved = geometry_of(volume).ras_of(np.zeros(3)) - OBLIQUE.ras_of(np.zeros(3))
    np.testing.assert_allclose(np.ravel(moved), [10.0, 0.0, 0.0], atol=1e-6)
    matrix.SetElement(0, 1, 0.5)
    transform.SetMatrixTransformToParent(matrix)
    with pytest.raises(DataError, match="right angles"):
        geometry_of(volume)


def test_a_scaled_volume_lies_exactly_where_the_scene_shows_it_or_is_refused(scene: Any) -> None:
    import slicer
    import vtk

    from SAM2IterativeGUI.loaded_volumes import geometry_of
    from SAM2IterativeGUI.scene.volumes import vtk_matrix
    from SAM2IterativeLib.errors import DataError

    volume = slicer.util.addVolumeFromArray(np.zeros((3, 4, 5), np.int16), vtk_matrix(OBLIQUE), "scaled")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    matrix, last = vtk.vtkMatrix4x4(), np.array([2.0, 3.0, 4.0])
    for axis in range(3):
        matrix.SetElement(axis, axis, 2.5)
    transform.SetMatrixTransformToParent(matrix)
    np.testing.assert_allclose(geometry_of(volume).ras_of(last), 2.5 * np.asarray(OBLIQUE.ras_of(last)), atol=1e-6)
    np.testing.assert_allclose(geometry_of(volume).spacing, 2.5 * np.asarray(OBLIQUE.spacing))
    matrix.SetElement(0, 0, 1.0)
    transform.SetMatrixTransformToParent(matrix)
    with pytest.raises(DataError, match="right angles"):
        geometry_of(volume)


def test_labels_are_named_coloured_coded_added_and_removed(module: Any, tmp_path: Path) -> None:
    import qt

    project = make_sample(module, tmp_path / "p")
    ui = module.widget.ui
    ui.labelTable.item(0, 2).setText("liver")
    assert project.label_names == ("liver", "gland")
    box = ui.labelTable.cellWidget(0, 3)
    harness.choose(box, "Liver")
    assert "10200004" in project.settings.labels[0].terminology
    harness.dialogs.answer(qt.QColor(1, 2, 3))
    ui.labelTable.cellDoubleClicked.emit(1, 1)
    assert project.settings.labels[1].colour == (1, 2, 3)
    harness.click(ui.addLabelButton)
    assert project.values == (1, 2, 3)
    ui.labelTable.setCurrentCell(2, 2)
    harness.click(ui.removeLabelButton)
    assert project.values == (1, 2)
    assert Project.open(project.folder, read_only=True).settings == project.settings, "written at once"


def test_no_label_comes_or_goes_during_a_run_or_once_the_network_is_planned(pretending: Any, tmp_path: Path) -> None:
    project, session = make_sample(pretending, tmp_path / "p"), pretending.widget.session
    ui = open_tab(pretending, "Project")
    ui.labelTable.setCurrentCell(0, 0)
    session.worker.request(StartRun(str(project.folder), 1))
    session.notify("run")
    for button in (ui.addLabelButton, ui.removeLabelButton):
        assert not button.enabled and "Pause them" in button.toolTip
    harness.wait_until(lambda: not session.worker.busy, "the end of the run", seconds=30)
    assert ui.addLabelButton.enabled and ui.removeLabelButton.enabled
    project.plan_path.write_text("", encoding="utf-8")
    session.notify("rounds")
    for button in (ui.addLabelButton, ui.removeLabelButton):
        assert not button.enabled and "new project" in button.toolTip


def test_a_label_in_use_is_kept_and_the_sentence_says_by_which_case(module: Any, tmp_path: Path) -> None:
    project = make_sample(module, tmp_path / "p")
    ui = module.widget.ui
    ui.labelTable.setCurrentCell(0, 0)
    harness.click(ui.removeLabelButton)
    assert "is used by case phantom_000" in harness.dialogs.texts("error")[0]
    assert project.values == (1, 2)
    assert column(ui.labelTable, 2) == ["organ", "gland"]


def test_validation_cases_are_asked_for_while_they_are_still_new_to_the_rounds(module: Any, tmp_path: Path) -> None:
    project = make_sample(module, tmp_path / "p")
    ui, session = module.widget.ui, module.widget.session
    assert "ready" in ui.nextLabel.text and "before they begin" in ui.nextLabel.text
    project.set_role("phantom_000", "validation")
    session.notify("cases")
    assert "ready" in ui.nextLabel.text and "before they begin" not in ui.nextLabel.text
    tip = ui.caseTable.item(0, _USE).toolTip()
    assert "Each is measured on it, unless an earlier one learned from it" in tip
    project.set_role("phantom_000", "labelled")
    project.journal.finish_round(0, {"cases": 2})
    session.notify("rounds")
    assert "before they begin" not in ui.nextLabel.text


def test_cases_are_taken_out_kept_for_validation_and_used_again(module: Any, tmp_path: Path) -> None:
    project = make_sample(module, tmp_path / "p")
    ui, panel = module.widget.ui, module.widget.panels["project"]
    assert "Choose a case" in ui.takeOutButton.toolTip
    panel.cases.select("phantom_000")
    harness.click(ui.validationButton)
    assert project.case("phantom_000").role == "validation"
    assert [case.id for case in panel.cases.selected()] == ["phantom_000"], "the selection stays"
    harness.click(ui.takeOutButton)
    assert (column(ui.caseTable, _USE)[0], column(ui.caseTable, _STATE)[0]) == ("nothing", "taken out")
    harness.click(ui.useAgainButton)
    assert project.case("phantom_000").role == "labelled"
    panel.cases.select("phantom_003")
    with pytest.raises(AssertionError, match="Only a case with a label map"):
        harness.click(ui.validationButton)


def test_every_case_gets_its_picture(module: Any, tmp_path: Path) -> None:
    import qt

    project = make_sample(module, tmp_path / "p")
    folder = project.cache_folder / "thumbnails"
    harness.wait_until(lambda: len(list(folder.glob("*.png"))) == 5, "five small pictures")
    picture = qt.QImage(str(next(folder.glob("phantom_000_*.png"))))
    assert (picture.width(), picture.height()) == (72, 72)
    colours = [picture.pixelColor(x, y) for x in range(0, 72, 2) for y in range(0, 72, 2)]
    assert max(colour.red() - colour.blue() for colour in colours) > 30, "the organ's colour"
    module.widget.ui.thumbnailList.itemClicked.emit(module.widget.ui.thumbnailList.item(3))
    assert [case.id for case in module.widget.panels["project"].cases.selected()] == ["phantom_003"]


def test_a_project_that_another_program_has_is_shown_for_reading_only(module: Any, tmp_path: Path) -> None:
    make_sample(module, tmp_path / "p")
    module.widget.session.close()
    with Project.open(tmp_path / "p"):
        harness.dialogs.answer(str(tmp_path / "p"))
        ui = module.widget.ui
        harness.click(ui.openButton)
        assert not ui.noticeLabel.isHidden() and ui.noticeLabel.text
        assert "reading only" in ui.addLabelButton.toolTip
        assert ui.caseTable.rowCount == 5
        harness.click(ui.closeButton)


def test_a_folder_without_a_project_and_a_newer_one_give_a_sentence(module: Any, tmp_path: Path) -> None:
    ui = module.widget.ui
    harness.dialogs.answer(str(tmp_path))
    harness.click(ui.openButton)
    make_sample(module, tmp_path / "p")
    settings = tmp_path / "p" / "project.toml"
    module.widget.session.close()
    settings.write_text(settings.read_text().replace("format_version = 1", "format_version = 99"))
    harness.dialogs.answer(str(tmp_path / "p"))
    harness.click(ui.openButton)
    missing, newer = harness.dialogs.texts("error")
    assert "there is no project here" in missing
    assert "Update SAM2Iterative" in newer
    assert module.widget.session.project is None


def test_a_project_with_something_unsaved_stays_when_the_person_says_so(module: Any, tmp_path: Path) -> None:
    project = make_sample(module, tmp_path / "project")
    module.widget.session.may_close = lambda: False
    harness.click(module.widget.ui.closeButton)
    harness.dialogs.answer(str(tmp_path / "new"))
    harness.click(module.widget.ui.createButton)
    assert module.widget.session.project is project and not (tmp_path / "new").exists()
    module.widget.session.may_close = lambda: True
    harness.click(module.widget.ui.closeButton)
    assert module.widget.session.project is None


def test_the_project_survives_a_closed_scene(module: Any, tmp_path: Path) -> None:
    import slicer

    make_sample(module, tmp_path / "p")
    slicer.mrmlScene.Clear(0)
    harness.process_events()
    assert module.widget.ui.caseTable.rowCount == 5
    ui = open_tab(module, "Rounds")
    ui.roundsBox.setValue(5)
    assert module.widget.logic.getParameterNode().rounds == 5, "the new scene's parameter node is bound"
