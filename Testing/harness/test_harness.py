"""The harness keeps its promises: PythonQt's conventions, forms, parameter nodes, pictures, and faults that do not pass unseen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness

_EXAMPLE = Path(__file__).parent / "example" / "Example.py"


@pytest.fixture
def module(scene: Any) -> Iterator[Any]:
    loaded = harness.load_module(_EXAMPLE)
    loaded.enter()
    yield loaded
    loaded.unload()


@pytest.fixture
def volume(scene: Any) -> Any:
    import slicer.util

    return slicer.util.addVolumeFromArray(np.arange(24, dtype=np.float32).reshape(2, 3, 4), name="ramp")


def _form(body: str, tail: str = "") -> Any:
    """A .ui file with one widget, loaded."""
    import qt

    text = '<ui version="4.0"><class>F</class><widget class="qMRMLWidget" name="F"><layout class="QVBoxLayout" name="l">'
    text += f"<item>{body}</item></layout></widget>{tail}</ui>"
    buffer = qt.QBuffer()
    buffer.setData(text.encode())
    buffer.open(qt.QIODevice.ReadOnly)
    return qt.QUiLoader().load(buffer)


class TestQt:
    def test_properties_are_attributes_and_setters_stay(self, slicer_app: Any) -> None:
        import qt

        button = qt.QPushButton("Run")
        button.text = "Stop"
        button.setEnabled(False)
        assert (button.text, button.enabled, button.isEnabled()) == ("Stop", False, False)
        button.name = "runButton"
        assert (button.objectName, button.className()) == ("runButton", "QPushButton")

    def test_string_lists_are_tuples_as_in_pythonqt(self, slicer_app: Any) -> None:
        import qt

        model = qt.QStringListModel(["a", "b"])
        dialog = qt.QFileDialog()
        dialog.setNameFilters(["*.nrrd", "*.nii"])
        assert model.stringList() == ["a", "b"]
        assert isinstance(dialog.sidebarUrls(), list)

    def test_old_connect_with_and_without_arguments(self, slicer_app: Any) -> None:
        import qt

        heard: list[Any] = []
        box = qt.QCheckBox()
        box.connect("toggled(bool)", heard.append)
        box.connect("clicked()", lambda: heard.append("clicked"))
        box.click()
        assert heard == [True, "clicked"]
        box.disconnect("toggled(bool)", heard.append)
        box.checked = False
        assert heard == [True, "clicked"]

    def test_old_connect_names_the_signal_that_does_not_exist(self, slicer_app: Any) -> None:
        import qt

        with pytest.raises(AttributeError, match="pressedd"):
            qt.QPushButton().connect("pressedd()", print)

    def test_a_subclass_has_the_old_connect_too(self, slicer_app: Any) -> None:
        import qt

        class Panel(qt.QDialog):
            pass

        heard: list[str] = []
        panel = Panel()
        panel.connect("accepted()", lambda: heard.append("accepted"))
        panel.accept()
        assert heard == ["accepted"]

    def test_objects_that_qt_makes_count_as_instances(self, slicer_app: Any) -> None:
        import qt

        table = qt.QTableWidget(2, 3)
        assert isinstance(table.horizontalHeader(), qt.QHeaderView)
        assert not isinstance(table.horizontalHeader(), qt.QPushButton)
        assert (table.rowCount, table.columnCount) == (2, 3)
        assert table.horizontalHeader() in table.findChildren(qt.QWidget)

    def test_a_static_function_wins_over_a_property_of_its_name(self, slicer_app: Any) -> None:
        import qt

        rung: list[int] = []
        qt.QTimer.singleShot(0, lambda: rung.append(1))
        harness.wait_until(lambda: rung, "the timer rang")
        timer = qt.QTimer()
        timer.singleShot = True
        assert timer.isSingleShot()

    def test_settings_are_not_the_persons_own(self, scene: Any) -> None:
        import qt
        import slicer.util

        assert slicer.util.settingsValue("Example/Key", 3, converter=int) == 3
        qt.QSettings().setValue("Example/Key", 4)
        assert slicer.util.settingsValue("Example/Key", 3, converter=int) == 4
        assert qt.QSettings().fileName().startswith(slicer_temporary())


def slicer_temporary() -> str:
    import slicer

    return str(slicer.app.temporaryPath)


class TestForms:
    def test_an_unknown_widget_is_an_error(self, scene: Any) -> None:
        with pytest.raises(RuntimeError, match="qMRMLMagicWidget"):
            _form('<widget class="qMRMLMagicWidget" name="m"/>')

    def test_an_unknown_property_is_an_error(self, scene: Any) -> None:
        with pytest.raises(RuntimeError, match="has no property shininess"):
            _form('<widget class="ctkSliderWidget" name="s"><property name="shininess"><double>1</double></property></widget>')

    def test_an_unknown_enumerator_is_an_error(self, scene: Any) -> None:
        body = '<property name="filters"><set>ctkPathLineEdit::Clouds</set></property>'
        with pytest.raises(RuntimeError, match="Clouds"):
            _form(f'<widget class="ctkPathLineEdit" name="p">{body}</widget>')

    def test_a_connection_to_nothing_is_an_error(self, scene: Any) -> None:
        connection = "<sender>F</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal><receiver>c</receiver><slot>swallow()</slot>"
        with pytest.raises(RuntimeError, match="swallow"):
            _form('<widget class="QComboBox" name="c"/>', f"<connections><connection>{connection}</connection></connections>")

    def test_the_scene_reaches_the_widgets_through_the_forms_connections(self, module: Any, volume: Any) -> None:
        assert module.widget.ui.inputSelector.mrmlScene() is volume.GetScene()
        assert module.widget.ui.inputSelector.nodes() == [volume]


class TestParameterNode:
    def test_widgets_and_parameters_follow_each_other(self, module: Any, volume: Any) -> None:
        ui, node = module.widget.ui, module.widget._parameterNode
        assert (node.threshold, ui.thresholdSlider.value, ui.thresholdSlider.maximum) == (100, 100, 500)
        ui.inputSelector.setCurrentNode(volume)
        ui.thresholdSlider.value = 12.5
        harness.click(ui.invertBox)
        harness.choose(ui.kindBox, "median")
        ui.folderLine.currentPath = "/data"
        assert (node.inputVolume, node.threshold, node.invert, node.folder) == (volume, 12.5, True, Path("/data"))
        assert node.smoothing.kind == "median"
        node.smoothing.radius = 7
        node.threshold = 3
        assert (ui.radiusBox.value, ui.thresholdSlider.value) == (7, 3)

    def test_choices_live_in_the_scene(self, module: Any, scene: Any) -> None:
        module.widget._parameterNode.threshold = 42
        again = module.widget.logic.getParameterNode()
        assert again.threshold == 42
        assert again.parameterNode is scene.GetSingletonNode("Example", "vtkMRMLScriptedModuleNode")

    def test_a_value_out_of_range_is_refused(self, module: Any) -> None:
        with pytest.raises(ValueError, match="500"):
            module.widget._parameterNode.threshold = 501

    def test_after_disconnecting_neither_follows(self, module: Any) -> None:
        node = module.widget._parameterNode
        module.leave()
        module.widget.ui.thresholdSlider.value = 1
        assert node.threshold == 100

    def test_a_frozen_dataclass_is_no_parameter_pack(self, scene: Any) -> None:
        import dataclasses

        from slicer.parameterNodeWrapper import parameterPack

        @dataclasses.dataclass(frozen=True)
        class Frozen:
            size: int = 1

        with pytest.raises((TypeError, dataclasses.FrozenInstanceError)):
            parameterPack(Frozen)()


class TestModule:
    def test_a_click_counts_asks_and_remembers(self, module: Any, volume: Any) -> None:
        import slicer.util

        ui = module.widget.ui
        ui.inputSelector.setCurrentNode(volume)
        ui.thresholdSlider.value = 5
        harness.dialogs.answer(True)
        harness.click(ui.applyButton)
        assert ui.resultLabel.text == "18"
        assert harness.dialogs.texts("question") == ["Keep the result?"]
        assert slicer.util.settingsValue("Example/Count", 0, converter=int) == 18

    def test_a_disabled_button_cannot_be_clicked_and_says_why(self, module: Any) -> None:
        with pytest.raises(AssertionError, match="Choose a volume first"):
            harness.click(module.widget.ui.applyButton)

    def test_a_button_on_another_tab_cannot_be_clicked(self, module: Any) -> None:
        ui = module.widget.ui
        with pytest.raises(AssertionError, match="segmentsTab' is hidden"):
            harness.click(ui.hiddenButton)
        harness.open_tab(ui.tabs, "Segments")
        harness.click(ui.hiddenButton)

    def test_folding_hides_the_contents(self, module: Any) -> None:
        ui = module.widget.ui
        ui.inputs.collapsed = True
        with pytest.raises(AssertionError, match="hidden"):
            harness.click(ui.invertBox)

    def test_the_scene_may_close_while_the_module_is_open(self, module: Any, volume: Any, scene: Any) -> None:
        module.widget.ui.inputSelector.setCurrentNode(volume)
        scene.Clear(0)
        assert module.widget._parameterNode.inputVolume is None
        assert not module.widget.ui.applyButton.enabled

    def test_unloading_cleans_up_once(self, scene: Any) -> None:
        import slicer

        loaded = harness.load_module(_EXAMPLE)
        loaded.unload()
        assert loaded.widget.cleaned
        assert not hasattr(slicer.modules, "example")

    def test_the_modules_own_test_runs(self, module: Any) -> None:
        module.code.ExampleTest().runTest()
        assert harness.dialogs.texts("info") == ["looking at the name"]

    def test_the_panel_can_be_drawn(self, module: Any, tmp_path: Path) -> None:
        import qt

        path = harness.render_widget_png(module.parent, tmp_path / "panel.png", (420, 600))
        picture = qt.QImage(str(path))
        assert (picture.width(), picture.height()) == (420, 600)
        assert len({picture.pixel(x, y) for x in range(0, 420, 7) for y in range(0, 600, 7)}) > 3


class TestFaults:
    def test_an_unanswered_question_fails(self, module: Any, volume: Any) -> None:
        from harness import faults

        module.widget.ui.inputSelector.setCurrentNode(volume)
        harness.click(module.widget.ui.applyButton)
        assert "Keep the result?" in faults.unexpected()[0]
        faults.forget()

    def test_an_exception_that_a_person_was_told_is_expected(self, module: Any, volume: Any) -> None:
        import slicer.util

        from harness import faults

        slicer.util.updateVolumeFromArray(volume, np.zeros((2, 3, 4), np.float32))
        module.widget.ui.inputSelector.setCurrentNode(volume)
        harness.click(module.widget.ui.applyButton)
        assert harness.dialogs.texts("error") == ["Counting failed.\n\nthe volume is empty"]
        assert faults.unexpected() == []

    def test_vtks_complaints_are_recorded(self, scene: Any) -> None:
        import vtk

        from harness import faults

        vtk.vtkImageThreshold().Update()
        assert any("vtkImageThreshold" in message for message in faults.unexpected())
        faults.forget()

    def test_asking_for_a_folder_takes_the_prepared_answer(self, module: Any) -> None:
        line = module.widget.ui.folderLine
        harness.dialogs.answer("/data/project")
        line.browse()
        assert line.currentPath == "/data/project"


class TestSegments:
    @pytest.fixture
    def segmentation(self, volume: Any) -> Any:
        import slicer

        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "masks")
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        for name in ("left", "right"):
            node.GetSegmentation().AddEmptySegment(name, name)
        return node

    def test_the_table_shows_and_selects_segments(self, module: Any, segmentation: Any) -> None:
        import slicer

        table = module.widget.ui.segmentsTable
        table.setSegmentationNode(segmentation)
        assert table.segmentCount == 2
        changed: list[int] = []
        table.selectionChanged.connect(lambda *_: changed.append(1))
        table.setSelectedSegmentIDs(["right"])
        assert table.selectedSegmentIDs() == ("right",)
        assert changed
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        logic.SetSegmentStatus(segmentation.GetSegmentation().GetSegment("left"), logic.Completed)
        assert table.tableWidget().item(0, 3).text() == "Completed"

    def test_a_stroke_can_be_undone_and_redone(self, module: Any, segmentation: Any, volume: Any) -> None:
        import slicer
        import slicer.util

        editor = module.widget.ui.editor
        editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
        editor.setSegmentationNode(segmentation)
        editor.setSourceVolumeNode(volume)
        mask = np.zeros((2, 3, 4), bool)
        mask[0, 1] = True
        harness.paint_segment(segmentation, "left", mask, editor)
        harness.paint_segment(segmentation, "right", mask, editor)

        def voxels() -> list[int]:
            return [int(slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, name).sum()) for name in ("left", "right")]

        assert voxels() == [0, 4]
        editor.undo()
        assert voxels() == [4, 0]
        editor.undo()
        assert voxels() == [0, 0]
        editor.redo()
        assert voxels() == [4, 0]

    def test_the_editors_keys_are_real(self, module: Any) -> None:
        import qt
        import slicer.util

        window, heard = slicer.util.mainWindow(), []
        shortcut = qt.QShortcut(qt.QKeySequence("Q"), window)
        shortcut.connect("activated()", lambda: heard.append("Q"))
        harness.press("Q", module.widget.ui.applyButton)
        assert heard == ["Q"]
        module.widget.ui.editor.installKeyboardShortcuts(window)
        harness.press("Q", module.widget.ui.applyButton)
        assert heard == ["Q"]  # two owners: Qt gives it to none
        module.widget.ui.editor.uninstallKeyboardShortcuts()
        shortcut.setParent(None)
        shortcut.deleteLater()
        window.hide()


class TestPlot:
    def test_a_chart_is_drawn_from_its_nodes(self, module: Any, scene: Any, tmp_path: Path) -> None:
        import qt
        import slicer.util

        table = scene.AddNewNodeByClass("vtkMRMLTableNode")
        slicer.util.updateTableFromArray(table, [np.array([0.0, 1, 2]), np.array([0.5, np.nan, 0.9])], ["round", "dice"])
        series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", "dice")
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName("round")
        series.SetYColumnName("dice")
        series.SetColor(1, 0, 0)
        chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode")
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
        view = scene.AddNewNodeByClass("vtkMRMLPlotViewNode")
        view.SetPlotChartNodeID(chart.GetID())
        plot = module.widget.ui.plotView
        plot.setMRMLPlotViewNode(view)
        assert plot.curves() == [("dice", [(0.0, 0.5), (2.0, 0.9)], (1.0, 0.0, 0.0))]
        picture = qt.QImage(str(harness.render_widget_png(plot, tmp_path / "plot.png", (300, 200))))
        colours = {picture.pixelColor(x, y).name() for x in range(300) for y in range(200)}
        assert "#ff0000" in colours


class TestSliceView:
    def test_a_volume_appears_where_its_geometry_says(self, scene: Any, tmp_path: Path) -> None:
        import slicer.util

        voxels = np.zeros((4, 40, 40), np.uint8)
        voxels[:, 5:15, 20:35] = 200
        node = slicer.util.addVolumeFromArray(voxels, np.diag([-1.0, -1.0, 3.0, 1.0]), "block")
        node.GetDisplayNode().AutoWindowLevelOff()
        node.GetDisplayNode().SetWindowLevelMinMax(0, 200)
        slicer.util.setSliceViewerLayers(background=node)
        view = harness.SliceView("Red", (200, 200))
        view.node.SetOrientation("Axial")
        view.fit()
        picture = view.picture()
        inside, outside = view.pixel_of((-27, -10, 3)), view.pixel_of((-27, -30, 3))
        assert picture[inside].tolist() == [255, 255, 255]
        assert picture[outside].max() == 0
        assert view.save(tmp_path / "slice.png").stat().st_size > 200
        view.close()


def test_what_is_missing_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from harness.availability import missing

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "slicer-core" in (missing() or "")
    assert "pip install" in (missing() or "")
