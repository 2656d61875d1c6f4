"""The module SAM2Iterative: from a folder of volumes with few labels to reviewed labels for all. Wiring only; see SAM2IterativeGUI."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

_FOLDER = Path(__file__).resolve().parent
if not (_FOLDER / "SAM2IterativeLib").is_dir() and str(_FOLDER.parent) not in sys.path:
    sys.path.append(str(_FOLDER.parent))  # run from the repository, where the library lies one folder up

OLDEST_PYTHON = (3, 10)
"""What the library needs. Slicer 5.8 came with Python 3.9, Slicer 5.10 with 3.12."""

TABS = ("project", "setup", "rounds", "review", "results")


class SAM2Iterative(ScriptedLoadableModule):
    """What Slicer knows before the module is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("SAM2 Iterative")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "SegmentEditor", "Plots", "Colors"]
        self.parent.contributors = ["The SAM2Iterative authors"]
        self.parent.helpText = _(
            "From a folder of volumes of which a few are labelled to reviewed labels for all: a U-Net and SAM2 teach each other round"
            " by round, the most uncertain cases are shown first, and you accept, correct or reject. Everything stays on this computer."
            " For research, not a medical device. Needs Slicer 5.10 or newer."
        )
        self.parent.acknowledgementText = _("Built on SAM 2 (Meta), MONAI, PyTorch and 3D Slicer.")
        slicer.app.connect("startupCompleted()", register_sample_data)


def register_sample_data() -> None:
    """Offer the public sample set in Slicer's module Sample Data."""
    try:
        import SampleData
    except ImportError:
        logging.debug("SAM2Iterative: this Slicer has no Sample Data module.")
        return
    if why_not_here():
        return
    from SAM2IterativeGUI.public_sets import HIPPOCAMPUS

    def take_download(source: Any) -> None:
        from SAM2IterativeGUI.sample_data import take_download as take  # which imports the library

        take(source)

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="SAM2Iterative",
        sampleName=HIPPOCAMPUS.name,
        thumbnailFileName=str(_FOLDER / "Resources" / "Icons" / "SAM2IterativeHippocampus.png"),
        uris=HIPPOCAMPUS.url,
        fileNames=HIPPOCAMPUS.file,
        checksums=HIPPOCAMPUS.checksum,
        customDownloader=take_download,
    )


def why_not_here() -> str:
    """Why this Slicer cannot run the module, for a person; "" where it can. Nothing of the library can be imported before."""
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return ""
    text = _(
        "SAM2 Iterative needs Slicer 5.10 or newer: this Slicer's Python is {version}. Install a newer Slicer, and the extension there."
    )
    return str(text.format(version=".".join(str(number) for number in sys.version_info[:2])))


@parameterNodeWrapper
class SAM2IterativeParameterNode:
    """Choices of the panels that are not part of a project; they live in the scene."""

    rounds: Annotated[int, WithinRange(1, 100)] = 3
    untilConverged: bool = False
    opaqueIds: bool = False
    resampleSheared: bool = False
    onlyReviewed: bool = False


class SAM2IterativeWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The five tabs."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Any = None
        self.session: Any = None
        self.panels: dict[str, Any] = {}
        self._parameterNode: Any = None
        self._tag: Any = None
        self._shown: Any = None

    def setup(self) -> None:
        """Build the panel; a worker, and whatever is not part of Slicer, come only when they are needed."""
        ScriptedLoadableModuleWidget.setup(self)
        if why_not_here():
            label = qt.QLabel(why_not_here())
            label.setObjectName("tooOldLabel")
            label.setWordWrap(True)
            self.layout.addWidget(label)
            return
        form = slicer.util.loadUI(self.resourcePath("UI/SAM2Iterative.ui"))
        self.layout.addWidget(form)
        self.tabs = slicer.util.childWidgetVariables(form).tabs
        self.logic = SAM2IterativeLogic()
        self.session = self.logic.session
        self.session.go_to = self.goTo
        for name, panel in panel_classes().items():
            widget = slicer.util.loadUI(self.resourcePath(f"UI/SAM2Iterative{name.capitalize()}.ui"))
            self.tabs.widget(TABS.index(name)).layout().addWidget(widget)
            self.panels[name] = panel(widget, self.session)
        form.setMRMLScene(slicer.mrmlScene)
        for panel in self.panels.values():
            if hasattr(panel.widget, "setMRMLScene"):
                panel.widget.setMRMLScene(slicer.mrmlScene)
        self.ui = slicer.util.childWidgetVariables(form)
        self.tabs.connect("currentChanged(int)", self._onTab)
        self._fitHeight(self.tabs.currentIndex)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """The application ends: the worker goes, the project is closed; everything is saved already."""
        self.setParameterNode(None)
        self.removeObservers()
        for panel in self.panels.values():
            panel.cleanup()
        if self.session is not None:
            self.session.cleanup()

    def enter(self) -> None:
        """The module is opened."""
        if self.session is None:
            return
        self.initializeParameterNode()
        self._enterTab(self.tabs.currentIndex)

    def exit(self) -> None:
        """Another module is opened; a run goes on."""
        if self.session is None:
            return
        self.setParameterNode(None)
        self._enterTab(None)

    def goTo(self, tab: str, case: str = "") -> None:
        """Open a tab; in the review with a case."""
        self.tabs.setCurrentIndex(TABS.index(tab))
        if case and tab in self.panels:
            self.panels[tab].open_case(case)

    def _onTab(self, number: int) -> None:
        self._fitHeight(number)
        if self.parent.isEntered:
            self._enterTab(number)

    def _fitHeight(self, shown: int) -> None:
        """Let the panel be as high as the open tab wants, not as the highest one."""
        for number in range(self.tabs.count):
            wanted = qt.QSizePolicy.Preferred if number == shown else qt.QSizePolicy.Ignored
            self.tabs.widget(number).setSizePolicy(qt.QSizePolicy.Preferred, wanted)

    def _enterTab(self, number: int | None) -> None:
        if self._shown is not None:
            self._shown.exit()
        self._shown = self.panels.get(TABS[number]) if number is not None else None
        if self._shown is not None:
            self._shown.enter()

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        """The scene is about to be emptied; a project does not live in it."""
        self.setParameterNode(None)
        self._tellPanels("onSceneStartClose")

    def onSceneEndClose(self, caller: Any, event: Any) -> None:
        """The scene is empty."""
        self._tellPanels("onSceneEndClose")
        if self.parent.isEntered:
            self.initializeParameterNode()

    def _tellPanels(self, event: str) -> None:
        for panel in self.panels.values():
            if hasattr(panel, event):
                getattr(panel, event)()

    def initializeParameterNode(self) -> None:
        """Get or make the parameter node."""
        self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, node: SAM2IterativeParameterNode | None) -> None:
        """Bind the panel to a parameter node, or to none."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._tag)
        self._parameterNode = node
        if node is not None:
            self._tag = node.connectGui(self.ui)


def panel_classes() -> dict[str, Any]:
    """The panels by the name of their tab."""
    from SAM2IterativeGUI.project_panel import ProjectPanel
    from SAM2IterativeGUI.results_panel import ResultsPanel
    from SAM2IterativeGUI.review_panel import ReviewPanel
    from SAM2IterativeGUI.rounds_panel import RoundsPanel
    from SAM2IterativeGUI.setup_panel import SetupPanel

    return {"project": ProjectPanel, "setup": SetupPanel, "rounds": RoundsPanel, "review": ReviewPanel, "results": ResultsPanel}


class SAM2IterativeLogic(ScriptedLoadableModuleLogic):
    """What the module can do without its panel: hold a session."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        from SAM2IterativeGUI.session import Session

        self.session = Session()

    def getParameterNode(self) -> SAM2IterativeParameterNode:
        """The choices of the panels."""
        return SAM2IterativeParameterNode(super().getParameterNode())  # type: ignore[call-arg]


class SAM2IterativeTest(ScriptedLoadableModuleTest):
    """Walks through the five tabs in Slicer itself: a generated project, a worker that pretends, nothing to install."""

    def setUp(self) -> None:
        """An empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run it."""
        self.setUp()
        self.test_from_volumes_to_reviewed_labels()

    def test_from_volumes_to_reviewed_labels(self) -> None:
        """Make a project, run and pause and continue rounds, review, export, close and open again."""
        import tempfile

        from SAM2IterativeGUI.pretended_worker import PretendedClient
        from SAM2IterativeGUI.sample_data import make_sample_project

        slicer.util.selectModule("SAM2Iterative")
        widget = slicer.modules.SAM2IterativeWidget
        session = widget.session
        was = session.worker.make_client
        with tempfile.TemporaryDirectory() as folder:
            project_folder = Path(folder) / "project"
            try:
                for process in (session.worker, session.corrector):
                    process.end()
                    process.make_client = PretendedClient
                self.delayDisplay("Making a project of generated volumes")
                project = make_sample_project(session, project_folder, size=(6, 32, 32), cases=5)
                self.assertEqual(len(project.cases("labelled")), 3)
                self._run_rounds(widget)
                self._review(widget)
                self._export(widget, Path(folder) / "export")
                session.close()
                self.delayDisplay("Opening the project again")
                self.assertEqual(max(session.open(project_folder).journal.rounds()), 1)
                self.assertEqual(len(widget.panels["project"].session.require_project().cases()), 5)
            finally:
                session.close()
                for process in (session.worker, session.corrector):
                    process.make_client = was
        self.delayDisplay("Test passed")

    def _run_rounds(self, widget: Any) -> None:
        self.delayDisplay("Pretending two rounds")
        from SAM2IterativeLib.messages import StartRun

        widget.goTo("rounds")
        session = widget.session
        session.worker.request(StartRun(str(session.project.folder), 1))
        for _step in range(200):
            session.worker.poll()
            slicer.app.processEvents()
            if not session.worker.busy:
                break
        self.assertEqual(sorted(session.project.journal.rounds()), [0, 1])
        self.assertEqual(widget.ui.roundTable.rowCount, 2)
        charts = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
        self.assertTrue(any(chart.GetNumberOfPlotSeriesNodes() >= 2 for chart in charts))

    def _review(self, widget: Any) -> None:
        self.delayDisplay("Reviewing the most uncertain case")
        from SAM2IterativeLib.review import Review

        session = widget.session
        review = Review(session.project)
        first = review.queue()[0].case
        widget.goTo("review", case=first.id)
        slicer.app.processEvents()
        self.assertTrue(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"), "the case is shown")
        review.accept(first, reviewer="self test")
        session.notify("decisions")
        self.assertEqual(review.status(first), "accepted")

    def _export(self, widget: Any, folder: Path) -> None:
        self.delayDisplay("Exporting")
        widget.goTo("results")
        widget.ui.exportFolderEdit.setCurrentPath(str(folder))
        widget.panels["results"].export()
        self.assertEqual(len(list(folder.glob("*.seg.nrrd"))), 5)
