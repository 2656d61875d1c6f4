"""The tab Review, clicked through on real MRML: every decision, corrections and their undo, drafts, layers, keys, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pytest
from generated_case import LABELS, GeneratedCase, generated_case
from harness import faults as harness_faults
from reviewed_project import make_project, write_round
from seen_layers import prompts_seen, uncertainty_seen

from SAM2IterativeLib.drafts import Drafts
from SAM2IterativeLib.messages import CorrectionPropagated, Message, PropagateCorrection, Ready, RunFailed, WorkerEnded
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.settings import FoundationSettings, Settings
from SAM2IterativeLib.volumes import LabelMap, read_label_map, write_label_map

_UI = Path(__file__).resolve().parents[2] / "SAM2Iterative" / "Resources" / "UI" / "SAM2IterativeReview.ui"


@pytest.fixture(scope="session")
def case() -> GeneratedCase:
    return generated_case()


class FakeClient:
    """A worker that answers at once: the corrected labels of slice ``slices[0]`` on all slices."""

    answer: Callable[[PropagateCorrection], Message] | None = None
    sent: list[Message]

    def __init__(self, _command: Any) -> None:
        self.running, self.busy, self.unresponsive = False, False, False
        self._messages: list[Message] = []
        FakeClient.sent = []

    def start(self) -> None:
        self.running = True
        self._messages.append(Ready("0", "CPU"))

    def send(self, message: Message) -> None:
        FakeClient.sent.append(message)
        if isinstance(message, PropagateCorrection):
            self._messages.append((FakeClient.answer or _everywhere)(message))

    def poll(self) -> list[Message]:
        found, self._messages = self._messages, []
        return found

    def stop_run(self) -> None:
        pass

    def end(self, polite: float = 0, terminate: float = 0) -> bool:
        self.running = False
        return True


def _everywhere(request: PropagateCorrection) -> Message:
    folder = Path(request.project)
    given = read_label_map(folder / request.label_map)
    array = np.broadcast_to(given.array[request.slices[0]], given.array.shape).copy()
    path = folder / "cache" / "answer.nrrd"
    write_label_map(path, LabelMap(array, given.geometry))
    return CorrectionPropagated(request.case, "cache/answer.nrrd", 0.5, tuple(range(len(array))))


@pytest.fixture
def folder(case: GeneratedCase, tmp_path: Path) -> Path:
    make_project(tmp_path / "project", case).close()
    return tmp_path / "project"


@pytest.fixture
def make_panel(scene: Any) -> Iterator[Callable[..., Any]]:
    """Build the tab in the main window, as the module does."""
    import qt
    import slicer.util

    from SAM2IterativeGUI.review_panel import ReviewPanel
    from SAM2IterativeGUI.session import Session
    from SAM2IterativeGUI.worker_process import WorkerProcess

    made: list[Any] = []
    FakeClient.answer = None

    def build(folder: Path | None, corrector: Any = None, reviewer: str = "Dr. A") -> Any:
        close()
        session = Session(corrector=corrector or WorkerProcess(["none"], FakeClient))  # type: ignore[arg-type]
        session.reviewer = reviewer
        widget = slicer.util.loadUI(str(_UI))
        area = qt.QScrollArea()
        area.setWidgetResizable(True)
        area.setWidget(widget)
        slicer.util.mainWindow().setCentralWidget(area)
        panel = ReviewPanel(widget, session)
        made.append(panel)
        if folder is not None:
            session.open(folder)
        panel.enter()
        harness.process_events()
        return panel

    def close() -> None:
        while made:
            panel = made.pop()
            panel.cleanup()
            panel.session.cleanup()
            window = slicer.util.mainWindow()
            window.takeCentralWidget().deleteLater()
            window.hide()
            harness.process_events()

    yield build
    close()


@pytest.fixture
def panel(make_panel: Callable[..., Any], folder: Path) -> Any:
    """With the most uncertain case open."""
    made = make_panel(folder)
    harness.click(made.ui.nextCaseButton)
    return made


def _rows(panel: Any) -> list[str]:
    table = panel.ui.queueTable
    return [table.item(row, 0).text() for row in range(table.rowCount)]


def _decisions(panel: Any) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(d.case, d.kind, d.segments) for d in Review(panel.session.project).decisions()]


def _paint(panel: Any, value: int = 7, k: int = 3, i: int = 20) -> np.ndarray:
    """A stroke in the Segment Editor on one slice; the mask."""
    from SAM2IterativeGUI.scene.segmentations import segment_id_of

    node = panel.view.scene.node("proposal")
    mask = np.zeros(panel.view.scene.geometry.size, bool)
    mask[k, 10:14, i : i + 6] = True
    editor = panel.ui.editor if panel.correction.editing.active else None
    harness.paint_segment(node, segment_id_of(node, value), mask, editor)
    panel.correction.look()
    return mask


def _shown(panel: Any) -> np.ndarray:
    return np.asarray(panel.view.scene.proposal().array)


def _labels_of(node: Any, geometry: Any) -> np.ndarray:
    from SAM2IterativeGUI.scene.segmentations import read_labels

    return np.asarray(read_labels(node, geometry).array)


class TestQueue:
    def test_the_most_uncertain_case_comes_first(self, make_panel: Any, folder: Path) -> None:
        panel = make_panel(folder)
        assert _rows(panel) == ["case_2", "case_1", "case_3"]
        assert panel.ui.remainingLabel.text == "3 of 3 wait for you"
        harness.choose(panel.ui.orderCombo, "Most certain first")
        assert _rows(panel) == ["case_3", "case_1", "case_2"]
        harness.choose(panel.ui.orderCombo, "By name")
        assert _rows(panel) == ["case_1", "case_2", "case_3"]

    def test_the_order_is_remembered(self, make_panel: Any, folder: Path) -> None:
        harness.choose(make_panel(folder).ui.orderCombo, "By name")
        assert _rows(make_panel(folder)) == ["case_1", "case_2", "case_3"]

    def test_a_decided_case_stays_in_the_list_until_the_next_is_opened(self, panel: Any) -> None:
        harness.click(panel.ui.acceptButton)
        assert _rows(panel) == ["case_2", "case_1", "case_3"]
        harness.click(panel.ui.nextCaseButton)
        assert (panel.view.material.case.id, _rows(panel)) == ("case_1", ["case_1", "case_3"])
        harness.choose(panel.ui.filterCombo, "All cases")
        assert _rows(panel) == ["case_2", "case_1", "case_3"]

    def test_it_ends_where_it_ends(self, panel: Any) -> None:
        assert not panel.ui.previousCaseButton.enabled
        harness.click(panel.ui.nextCaseButton)
        harness.click(panel.ui.nextCaseButton)
        assert panel.view.material.case.id == "case_3" and not panel.ui.nextCaseButton.enabled
        panel.step(1)
        assert panel.view.material.case.id == "case_3"

    def test_another_reviewer_still_has_everything_before_them(self, panel: Any, make_panel: Any, folder: Path) -> None:
        harness.click(panel.ui.acceptButton)
        second = make_panel(folder, reviewer="Dr. B")
        assert _rows(second) == ["case_2", "case_1", "case_3"]
        harness.choose(second.ui.filterCombo, "What nobody has decided")
        assert _rows(second) == ["case_1", "case_3"]

    def test_a_click_opens_a_case(self, panel: Any) -> None:
        panel.ui.queueTable.cellClicked.emit(2, 0)
        assert panel.view.material.case.id == "case_3"

    def test_a_project_without_a_round_says_so_and_lets_draw(self, make_panel: Any, case: GeneratedCase, tmp_path: Path) -> None:
        make_project(tmp_path / "fresh", case, round=0).close()
        panel = make_panel(tmp_path / "fresh")
        harness.click(panel.ui.nextCaseButton)
        assert "no round has proposed" in panel.ui.caseLabel.text
        assert not panel.ui.coarseButton.enabled and "No round made" in panel.ui.coarseButton.toolTip
        harness.click(panel.ui.acceptButton)
        assert "nothing to accept yet" in harness.dialogs.texts("error")[0]
        panel.toggle_correcting()
        mask = _paint(panel)
        harness.click(panel.ui.acceptButton)
        assert _decisions(panel) == [("case_1", "corrected", ())]
        np.testing.assert_array_equal(Review(panel.session.project).label_map(_last(panel)).array, np.where(mask, 7, 0))

    def test_a_labelled_case_can_be_opened_and_corrected_too(self, make_panel: Any, folder: Path, case: GeneratedCase) -> None:
        panel = make_panel(folder)
        assert panel.open_case("known") and "came with it" in panel.ui.caseLabel.text
        np.testing.assert_array_equal(_shown(panel), case.truth.array)
        panel.toggle_correcting()
        mask = _paint(panel)
        harness.click(panel.ui.acceptButton)
        assert _decisions(panel) == [("known", "corrected", ())]
        trained = Review(panel.session.project).training_labels(panel.view.material.case)
        np.testing.assert_array_equal(trained.labels.array, np.where(mask, 7, case.truth.array))

    def test_a_case_that_was_made_unlabelled_shows_the_rounds_proposal(self, make_panel: Any, folder: Path, case: GeneratedCase) -> None:
        with Project.open(folder) as project:
            known = project.set_role("known", "unlabelled")
            write_round(project, known, case, 1, 0.5, case.coarse)
        panel = make_panel(folder)
        assert panel.open_case("known") and "proposal of round 1" in panel.ui.caseLabel.text
        np.testing.assert_array_equal(_shown(panel), case.coarse.array)
        harness.click(panel.ui.acceptButton)
        np.testing.assert_array_equal(Review(panel.session.project).label_map(_last(panel)).array, case.coarse.array)

    def test_without_a_project_everything_says_what_to_do_first(self, make_panel: Any) -> None:
        panel = make_panel(None)
        assert "Open a project" in panel.ui.noticeLabel.text
        assert not panel.ui.acceptButton.enabled and "Open a case" in panel.ui.acceptButton.toolTip
        assert not panel.ui.nextCaseButton.enabled


def _last(panel: Any) -> Any:
    return Review(panel.session.project).decisions()[-1]


class TestLayers:
    def test_switches_follow_clicks_and_keys_and_stay_for_the_next_case(self, panel: Any) -> None:
        scene = panel.view.scene
        assert (scene.visible("proposal"), scene.visible("coarse"), uncertainty_seen()) == (True, False, True)
        for name, key in (("coarse", "C"), ("propagated", "S"), ("proposal", "M"), ("uncertainty", "U"), ("prompts", "P")):
            before = getattr(panel.ui, f"{name}Button").checked
            harness.press(key, panel.ui.caseSection)
            assert getattr(panel.ui, f"{name}Button").checked is not before, name
        expected = {"coarse": True, "propagated": True, "proposal": False}
        assert {layer: scene.visible(layer) for layer in expected} == expected
        assert (uncertainty_seen(), prompts_seen()) == (False, True)
        harness.press("N", panel.ui.caseSection)
        assert panel.view.material.case.id == "case_1"
        assert {layer: scene.visible(layer) for layer in expected} == expected
        assert not uncertainty_seen()

    def test_outlines_let_the_image_through(self, panel: Any) -> None:
        display = panel.view.scene.node("proposal").GetDisplayNode()
        assert display.GetVisibility2DFill()
        harness.press("O", panel.ui.caseSection)
        assert not display.GetVisibility2DFill() and display.GetVisibility2DOutline()

    def test_side_by_side_and_back(self, panel: Any) -> None:
        import slicer

        from SAM2IterativeGUI.scene import layouts

        before, k = slicer.app.layoutManager().layout, panel.view.current_slice()
        harness.press("D", panel.ui.caseSection)
        assert slicer.app.layoutManager().layout == layouts.COMPARE
        left, right = (slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode().GetID() for name in layouts.view_names())
        for layer, view in (("coarse", left), ("propagated", right)):
            assert panel.view.scene.node(layer).GetDisplayNode().GetViewNodeIDs() == (view,)
        assert panel.view.current_slice() == k
        harness.click(panel.ui.nextCaseButton)
        assert panel.ui.compareButton.checked and panel.view.scene.visible("coarse")
        harness.press("D", panel.ui.caseSection)
        assert slicer.app.layoutManager().layout == before
        assert not panel.view.scene.visible("coarse") and panel.view.scene.visible("proposal")

    def test_leaving_the_tab_gives_the_layout_back(self, panel: Any) -> None:
        import slicer

        before = slicer.app.layoutManager().layout
        harness.click(panel.ui.compareButton)
        panel.exit()
        assert slicer.app.layoutManager().layout == before
        assert panel.view.material is not None, "the case stays in the views"

    def test_the_view_goes_from_doubt_to_doubt(self, panel: Any, case: GeneratedCase) -> None:
        order = list(np.argsort(-case.uncertainty.mean(axis=(1, 2)), kind="stable"))
        assert panel.view.current_slice() == order[0]
        harness.press("J", panel.ui.caseSection)
        assert panel.view.current_slice() == order[1]
        assert "number 2 of" in panel.ui.sliceLabel.text
        harness.press("Shift+J", panel.ui.caseSection)
        harness.press("Shift+J", panel.ui.caseSection)
        assert panel.view.current_slice() == order[0]

    def test_scrolling_is_told(self, panel: Any) -> None:
        panel.view.scene.jump_to_slice(2)
        assert panel.ui.sliceLabel.text.startswith("Slice 3 of 16")

    def test_prompts_lie_where_the_round_put_them(self, panel: Any, case: GeneratedCase) -> None:
        import slicer.util

        boxes = slicer.util.getNodesByClass("vtkMRMLMarkupsClosedCurveNode")
        assert len(boxes) == len(case.prompts)
        for box, prompt in zip(boxes, case.prompts, strict=True):
            corners = case.image.geometry.kji_of(slicer.util.arrayFromMarkupsControlPoints(box, world=True))
            np.testing.assert_allclose(corners[:, 0], prompt.slice_index, atol=1e-3)
            found = [*corners[:, 1:].min(axis=0), *corners[:, 1:].max(axis=0)]
            np.testing.assert_allclose(found, np.array(prompt.box) - 0.5, atol=1e-3)

    def test_surfaces_follow_the_mask(self, panel: Any, case: GeneratedCase) -> None:
        node = panel.view.scene.node("proposal")
        surface = node.GetClosedSurfaceInternalRepresentation("segment_of_label_1")
        assert surface.GetNumberOfPoints() > 100 and node.GetDisplayNode().GetVisibility3D()
        harness.click(panel.ui.surfacesButton)
        assert not node.GetDisplayNode().GetVisibility3D()


class TestDecisions:
    def test_accepting_keeps_what_was_seen(self, panel: Any, case: GeneratedCase) -> None:
        harness.type_text(panel.ui.commentLine, "fine")
        harness.click(panel.ui.acceptButton)
        decision = _last(panel)
        assert (decision.kind, decision.reviewer, decision.comment, decision.round) == ("accepted", "Dr. A", "fine", 1)
        np.testing.assert_array_equal(Review(panel.session.project).label_map(decision).array, case.propagated.array)
        assert panel.ui.commentLine.text == ""
        assert [panel.view.scene.status(label.value) for label in LABELS] == ["completed"] * 3
        assert "Dr. A" in panel.ui.historyLabel.text and "accepted" in panel.ui.historyLabel.text

    def test_what_was_just_decided_is_not_worked_out_again(self, panel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from SAM2IterativeGUI.scene import segmentations

        panel.toggle_correcting()
        _paint(panel)
        drawn = _shown(panel)
        panel.correction.drafts.keep()
        with monkeypatch.context() as patch:
            patch.setattr(Review, "training_labels", None)
            patch.setattr(segmentations, "read_labels", None)
            harness.click(panel.ui.acceptButton)
        assert _decisions(panel) == [("case_2", "corrected", ())]
        assert Drafts(panel.session.project).newest(panel.view.material.case, "Dr. A") is None
        assert panel.correction.change is None, "the next correction counts from what was decided"
        panel.reopen()
        np.testing.assert_array_equal(_shown(panel), drawn)
        panel.ui.reasonCombo.setCurrentText("image too poor")
        with monkeypatch.context() as patch:
            patch.setattr(Review, "training_labels", None)
            harness.click(panel.ui.rejectButton)
        assert _decisions(panel)[-1] == ("case_2", "rejected", ())
        draft = Drafts(panel.session.project).newest(panel.view.material.case, "Dr. A")
        assert draft is not None, "a rejected case opens as it was proposed, so what is drawn is unfinished"

    def test_reviewers_are_compared_once_for_the_same_decisions(self, panel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        Review(panel.session.project).accept(panel.view.material.case, reviewer="Dr. B")
        harness.click(panel.ui.acceptButton)
        assert "Dr. A</b> / <b>Dr. B" in panel.ui.historyLabel.text
        with monkeypatch.context() as patch:
            patch.setattr("SAM2IterativeGUI.review_decisions.comparisons", None)
            panel.decisions.select(300)
            panel.decisions.refresh()
        assert "Dr. A</b> / <b>Dr. B" in panel.ui.historyLabel.text
        harness.click(panel.ui.takeBackButton)
        assert " / " not in panel.ui.historyLabel.text

    def test_a_status_that_was_clicked_or_undone_says_again_what_was_decided(self, panel: Any) -> None:
        """Slicer's table lets a click change a status even where it is for reading only."""
        import slicer

        panel.ui.advanceBox.checked = False
        scene, values = panel.view.scene, [label.value for label in LABELS]
        _paint(panel)
        panel.accept()
        statuses = [scene.status(value) for value in values]
        assert statuses == ["completed"] * 3
        panel.correction.undo()
        assert [scene.status(value) for value in values] == statuses
        segment = scene.node("proposal").GetSegmentation().GetNthSegment(0)
        slicer.vtkSlicerSegmentationsModuleLogic.SetSegmentStatus(segment, 0)
        harness.wait_until(lambda: scene.status(values[0]) == "completed", "the status is what was decided")

    def test_one_segment_may_be_accepted_and_another_rejected(self, panel: Any) -> None:
        panel.decisions.select(7)
        harness.click(panel.ui.acceptSegmentButton)
        panel.decisions.select(300)
        panel.ui.reasonCombo.setCurrentText("leaks into neighbours")
        assert panel.ui.rejectSegmentButton.text == "Reject 'vessel'"
        harness.click(panel.ui.rejectSegmentButton)
        assert _decisions(panel) == [("case_2", "accepted", (7,)), ("case_2", "rejected", (300,))]
        assert [panel.view.scene.status(label.value) for label in LABELS] == ["not started", "completed", "flagged"]
        assert _last(panel).reason == "leaks into neighbours"

    def test_a_rejection_needs_a_reason(self, panel: Any) -> None:
        harness.click(panel.ui.rejectButton)
        assert _decisions(panel) == [] and "reason" in panel.ui.statusLabel.text
        panel.ui.reasonCombo.setCurrentText("moved during the scan")
        harness.click(panel.ui.rejectButton)
        assert (_last(panel).kind, _last(panel).reason) == ("rejected", "moved during the scan")
        assert panel.decisions.reason() == ""
        assert panel.view.scene.status(1) == "flagged"

    def test_a_changed_mask_is_kept_as_a_correction(self, panel: Any, case: GeneratedCase) -> None:
        panel.toggle_correcting()
        mask = _paint(panel)
        assert panel.ui.acceptButton.text.startswith("Save corrected case")
        harness.click(panel.ui.acceptButton)
        assert _decisions(panel) == [("case_2", "corrected", ())]
        kept = Review(panel.session.project).label_map(_last(panel))
        np.testing.assert_array_equal(kept.array, np.where(mask, 7, case.propagated.array))
        assert kept.geometry.mismatch(case.image.geometry) is None

    def test_a_correction_of_one_segment_leaves_the_others_open(self, panel: Any) -> None:
        panel.toggle_correcting()
        _paint(panel, value=7)
        panel.decisions.select(1)
        harness.click(panel.ui.acceptSegmentButton)
        assert _decisions(panel)[-1] == ("case_2", "accepted" if not _touches(panel, 1) else "corrected", (1,))
        panel.decisions.select(7)
        harness.click(panel.ui.acceptSegmentButton)
        assert _decisions(panel)[-1] == ("case_2", "corrected", (7,))

    def test_only_the_corrected_slices_may_be_kept(self, panel: Any) -> None:
        panel.toggle_correcting()
        assert not panel.ui.saveSlicesButton.enabled
        _paint(panel, k=4)
        harness.click(panel.ui.saveSlicesButton)
        assert (_last(panel).kind, _last(panel).slices) == ("corrected", (4,))
        assert panel.view.scene.status(7) == "not started"

    def test_the_last_one_is_taken_back(self, panel: Any) -> None:
        assert not panel.ui.takeBackButton.enabled and "nothing that could be taken back" in panel.ui.takeBackButton.toolTip
        harness.click(panel.ui.acceptButton)
        harness.click(panel.ui.nextCaseButton)
        harness.click(panel.ui.takeBackButton)
        assert _decisions(panel) == [] and "case_2" in panel.ui.statusLabel.text
        assert _rows(panel) == ["case_2", "case_1", "case_3"]

    def test_a_correction_that_is_taken_back_is_not_lost(self, panel: Any) -> None:
        panel.toggle_correcting()
        _paint(panel)
        harness.click(panel.ui.acceptButton)
        drawn = _shown(panel)
        harness.click(panel.ui.takeBackButton)
        np.testing.assert_array_equal(_shown(panel), drawn)
        drafts = Drafts(panel.session.project)
        draft = drafts.newest(panel.view.material.case, "Dr. A")
        np.testing.assert_array_equal(drafts.read(panel.view.material.case, draft).array, drawn)

    def test_a_decision_is_saved_though_a_segment_was_removed(self, panel: Any) -> None:
        panel.view.scene.node("proposal").GetSegmentation().RemoveSegment("segment_of_label_300")
        harness.click(panel.ui.advanceBox)
        harness.click(panel.ui.acceptButton)
        assert harness.dialogs.texts("error") == []
        assert _decisions(panel) == [("case_2", "corrected", ())]
        assert panel.view.material.case.id == "case_1" and "Saved: case_2" in panel.ui.statusLabel.text

    def test_a_rejection_is_saved_though_the_whole_mask_was_removed(self, panel: Any, scene: Any) -> None:
        scene.RemoveNode(panel.view.scene.node("proposal"))
        panel.ui.reasonCombo.setCurrentText("image too poor")
        harness.click(panel.ui.rejectButton)
        assert harness.dialogs.texts("error") == []
        assert _decisions(panel) == [("case_2", "rejected", ())] and "Saved: case_2" in panel.ui.statusLabel.text

    def test_a_decision_is_told_as_saved_though_the_rest_cannot_be_kept(self, panel: Any, full_disk: Any) -> None:
        panel.toggle_correcting()
        _paint(panel, value=7)
        panel.decisions.select(1)
        with full_disk():
            panel.ui.reasonCombo.setCurrentText("image too poor")
            harness.click(panel.ui.rejectSegmentButton)
        (error,) = harness.dialogs.texts("error")
        assert error.startswith("The decision is saved, but") and "the disk is full" in error
        assert _decisions(panel) == [("case_2", "rejected", (1,))] and "Saved: case_2" in panel.ui.statusLabel.text

    def test_the_next_case_may_open_by_itself(self, panel: Any) -> None:
        harness.click(panel.ui.advanceBox)
        harness.press("A", panel.ui.caseSection)
        harness.press("A", panel.ui.caseSection)
        assert _decisions(panel) == [("case_2", "accepted", ()), ("case_1", "accepted", ())]
        assert panel.view.material.case.id == "case_3"

    def test_two_reviewers_stand_side_by_side(self, panel: Any, make_panel: Any, folder: Path) -> None:
        harness.click(panel.ui.acceptButton)
        second = make_panel(folder, reviewer="Dr. B")
        harness.click(second.ui.nextCaseButton)
        np.testing.assert_array_equal(_shown(second), second.view.material.proposal.array)
        assert "<b>Dr. A</b> decided; what was said shows once" in second.ui.historyLabel.text, "nobody is swayed"
        assert "accepted" not in second.ui.historyLabel.text
        second.toggle_correcting()
        _paint(second)
        harness.click(second.ui.acceptButton)
        text = second.ui.historyLabel.text
        assert "<b>Dr. A</b>" in text and "<b>Dr. B</b>" in text
        assert "differ: accepted against corrected" in text and "gland 0." in text
        assert second.ui.takeBackButton.enabled
        assert [d.reviewer for d in Review(second.session.project).decisions()] == ["Dr. A", "Dr. B"]

    def test_the_other_reviewers_mask_is_drawn_beside_ones_own(self, panel: Any, make_panel: Any, folder: Path) -> None:
        assert panel.ui.otherButton.isHidden(), "nobody else decided"
        panel.toggle_correcting()
        first = _paint(panel)
        harness.click(panel.ui.acceptButton)
        second = make_panel(folder, reviewer="Dr. B")
        harness.click(second.ui.nextCaseButton)
        assert second.ui.otherButton.text == "Mask of Dr. A (K)" and second.ui.otherCombo.isHidden()
        scene = second.view.scene
        harness.click(second.ui.acceptButton)
        harness.press("K", second.ui.caseSection)
        assert scene.visible("other")
        node = scene.node("other")
        np.testing.assert_array_equal(_labels_of(node, scene.geometry)[first], 7)
        assert (_shown(second)[first] != 7).any(), "one's own mask is as the round left it"
        display = node.GetDisplayNode()
        assert not display.GetVisibility2DFill()
        colours = {label.value: display.GetSegmentOverrideColor(f"segment_of_label_{label.value}") for label in LABELS}
        for label in LABELS:
            own = np.array(label.colour) / 255
            assert (np.array(colours[label.value]) > own + 0.1).any(), "paler than one's own"
            others = [colours[value] for value in colours if value != label.value]
            assert all(np.abs(np.subtract(colours[label.value], other)).max() > 0.1 for other in others), "told from the other labels"
        harness.press("K", second.ui.caseSection)
        assert not scene.visible("other") and not second.ui.otherButton.checked
        harness.press("K", second.ui.caseSection)
        harness.click(second.ui.compareButton)
        assert not scene.visible("other"), "side by side, each view has one mask"
        harness.click(second.ui.compareButton)
        assert scene.visible("other")
        harness.click(second.ui.nextCaseButton)
        assert second.ui.otherButton.isHidden() and scene.node("other") is None

    def test_nobody_sees_anothers_mask_before_deciding_about_the_whole_case(self, panel: Any, make_panel: Any, folder: Path) -> None:
        review = Review(panel.session.project)
        for case in ("case_2", "case_1"):
            review.accept(panel.session.project.case(case), reviewer="Dr. A")
        second = make_panel(folder, reviewer="Dr. B")
        harness.click(second.ui.nextCaseButton)
        scene, button = second.view.scene, second.ui.otherButton

        def hidden() -> bool:
            harness.press("K", second.ui.caseSection)
            return not scene.visible("other") and not button.enabled and "does not sway you" in button.toolTip

        assert not button.checked and not button.isHidden() and hidden() and scene.node("other") is None
        second.decisions.select(7)
        harness.click(second.ui.acceptSegmentButton)
        assert hidden(), "a segment is not the case"
        harness.click(second.ui.acceptButton)
        assert button.enabled and not button.checked and not scene.visible("other"), "offered, but not pushed on anybody"
        harness.press("K", second.ui.caseSection)
        assert scene.visible("other")
        harness.click(second.ui.takeBackButton)
        assert hidden()
        harness.click(second.ui.acceptButton)
        assert scene.visible("other")
        harness.click(second.ui.nextCaseButton)
        assert second.view.material.case.id == "case_1" and button.checked and hidden(), "the switch is still on"

    def test_anothers_mask_that_is_missing_is_told(self, panel: Any) -> None:
        review, case = Review(panel.session.project), panel.session.project.case("case_2")
        decision = review.accept(case, reviewer="Dr. B")
        harness.click(panel.ui.acceptButton)
        (panel.session.project.folder / decision.label_file).unlink()
        harness.click(panel.ui.otherButton)
        assert "missing or was changed" in harness.dialogs.texts("error")[0]
        assert not panel.ui.otherButton.checked and panel.view.scene.node("other") is None

    def test_with_several_others_one_is_chosen(self, panel: Any, make_panel: Any, folder: Path) -> None:
        project = panel.session.project
        review, case = Review(project), project.case("case_2")
        review.accept(case, reviewer="Dr. B", segments=(7,))
        review.accept(case, reviewer="Dr. C")
        review.reject(case, reviewer="Dr. D", reason="poor")
        review.accept(case, reviewer="Dr. A")
        panel.reopen()
        harness.click(panel.ui.otherButton)
        combo = panel.ui.otherCombo
        assert not combo.isHidden() and [combo.itemText(n) for n in range(combo.count)] == ["Dr. C", "Dr. B"], "who rejected has no mask"
        whole = _labels_of(panel.view.scene.node("other"), panel.view.scene.geometry)
        assert set(np.unique(whole)) == {0, 1, 7, 300}
        harness.choose(combo, "Dr. B")
        assert panel.ui.otherButton.text == "Mask of Dr. B (K)"
        assert set(np.unique(_labels_of(panel.view.scene.node("other"), panel.view.scene.geometry))) == {0, 7}, "what was vouched for"

    def test_an_accepted_case_opens_as_it_was_decided_and_can_be_corrected_again(self, panel: Any, make_panel: Any, folder: Path) -> None:
        panel.toggle_correcting()
        _paint(panel)
        harness.click(panel.ui.acceptButton)
        decided = _shown(panel)
        again = make_panel(folder)
        assert again.open_case("case_2")
        np.testing.assert_array_equal(_shown(again), decided)
        assert again.view.scene.status(7) == "completed"
        again.toggle_correcting()
        _paint(again, k=9)
        harness.click(again.ui.acceptButton)
        kept = sorted((folder / "cases" / "case_2" / "reviews").iterdir())
        assert [path.name for path in kept] == ["1.nrrd", "2.nrrd"]

    def test_without_a_name_nothing_is_decided(self, make_panel: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import getpass

        def nobody() -> str:
            raise OSError

        monkeypatch.setattr(getpass, "getuser", nobody)
        panel = make_panel(folder, reviewer="")
        harness.click(panel.ui.nextCaseButton)
        assert not panel.ui.acceptButton.enabled and "reviewer's name" in panel.ui.acceptButton.toolTip
        harness.type_text(panel.ui.reviewerLine, "Dr. C")
        panel.ui.reviewerLine.editingFinished.emit()
        harness.click(panel.ui.acceptButton)
        assert _last(panel).reviewer == "Dr. C"

    def test_a_segment_of_ones_own_is_refused_in_a_sentence(self, panel: Any) -> None:
        panel.view.scene.node("proposal").GetSegmentation().AddEmptySegment("mine", "Cyst")
        panel.accept()
        assert "'Cyst' belongs to none" in harness.dialogs.texts("error")[0]
        assert _decisions(panel) == []
        harness.wait_until(lambda: "Cyst" in panel.ui.changesLabel.text, "it is told before anything is decided, too")
        panel.view.scene.node("proposal").GetSegmentation().RemoveSegment("mine")
        panel.accept()
        assert _decisions(panel) == [("case_2", "accepted", ())]
        harness_faults.forget()  # a segment that a program adds has no colours yet when the table asks for them


def _touches(panel: Any, value: int) -> bool:
    proposal = panel.view.material.proposal.array
    return not np.array_equal(_shown(panel) == value, proposal == value)


class TestCorrection:
    def test_the_editor_works_on_the_mask_under_review(self, panel: Any) -> None:
        harness.press("E", panel.ui.caseSection)
        assert panel.correction.editing.active and not panel.ui.correctionSection.collapsed
        assert panel.ui.editor.segmentationNode() is panel.view.scene.node("proposal")
        assert panel.ui.editor.sourceVolumeNode() is panel.view.scene.image_node()
        panel.decisions.select(300)
        assert panel.ui.editor.currentSegmentID() == "segment_of_label_300"
        panel.ui.editor.setCurrentSegmentID("segment_of_label_7")
        assert panel.decisions.selected_value() == 7
        harness.press("E", panel.ui.caseSection)
        assert not panel.correction.editing.active and panel.ui.editor.activeEffect() is None
        panel.close_case()
        assert panel.ui.editor.segmentationNode() is None

    def test_the_editors_keys_choose_what_is_locked_and_accepted(self, panel: Any) -> None:
        """The editor tells of a segment that was clicked, but not of one that its keys chose."""
        panel.toggle_correcting()
        panel.decisions.select(7)
        panel.ui.editor.setCurrentSegmentID("segment_of_label_300")  # W, or the full stop
        assert "Lock" in panel.ui.lockButton.text and panel.decisions.selected_value() == 300
        harness.press("L", panel.ui.caseSection)
        assert panel.view.scene.locked() == (300,)

    def test_a_section_that_was_opened_before_the_case_works_as_well(self, make_panel: Any, folder: Path) -> None:
        panel = make_panel(folder)
        panel.ui.correctionSection.collapsed = False
        assert not panel.correction.editing.active
        harness.click(panel.ui.nextCaseButton)
        assert panel.correction.editing.active and panel.ui.segmentsTable.isHidden()
        assert panel.ui.editor.segmentationNode() is panel.view.scene.node("proposal")
        harness.click(panel.ui.nextCaseButton)
        assert panel.ui.editor.segmentationNode() is panel.view.scene.node("proposal")
        harness.press("E", panel.ui.caseSection)
        assert not panel.correction.editing.active and not panel.ui.segmentsTable.isHidden()

    def test_what_was_corrected_is_told(self, panel: Any) -> None:
        panel.toggle_correcting()
        _paint(panel, value=7, k=3)
        _paint(panel, value=7, k=5)
        assert (panel.correction.change.axis, panel.correction.change.slices) == (0, (3, 5))
        assert "gland" in panel.ui.changesLabel.text and "slice 4, 6" in panel.ui.changesLabel.text

    def test_strokes_are_noticed_by_themselves(self, panel: Any) -> None:
        panel.toggle_correcting()
        from SAM2IterativeGUI.scene.segmentations import segment_id_of

        node = panel.view.scene.node("proposal")
        mask = np.zeros(panel.view.scene.geometry.size, bool)
        mask[3, 10:14, 20:26] = True
        harness.paint_segment(node, segment_id_of(node, 7), mask, panel.ui.editor)
        harness.wait_until(lambda: panel.correction.change is not None, "the stroke is looked at")

    def test_a_correction_is_carried_and_one_undo_takes_it_back(self, panel: Any) -> None:
        panel.toggle_correcting()
        _paint(panel, k=3)
        drawn = _shown(panel)
        harness.click(panel.ui.propagateButton)
        assert panel.ui.workingBar.isVisibleTo(panel.widget) and not panel.ui.propagateButton.enabled
        panel.session.corrector.poll()
        np.testing.assert_array_equal(_shown(panel), np.broadcast_to(drawn[3], drawn.shape))
        request = FakeClient.sent[-1]
        assert isinstance(request, PropagateCorrection)
        assert (request.case, request.slices, request.axis, request.reach) == ("case_2", (3,), 0, 0)
        assert panel.correction.change is None, "the next correction counts from the result"
        harness.click(panel.ui.undoButton)
        np.testing.assert_array_equal(_shown(panel), drawn)
        assert panel.correction.change.slices == (3,), "the correction counts again"
        harness.click(panel.ui.undoButton)
        np.testing.assert_array_equal(_shown(panel), panel.view.material.proposal.array)

    @pytest.mark.parametrize("away", ["tab", "section"])
    def test_what_was_drawn_before_looking_elsewhere_can_be_undone(self, panel: Any, away: str) -> None:
        assert not panel.ui.undoButton.enabled and "Nothing was drawn" in panel.ui.undoButton.toolTip
        panel.toggle_correcting()
        assert not panel.ui.undoButton.enabled
        _paint(panel)
        assert panel.ui.undoButton.enabled
        if away == "tab":
            panel.exit()
            panel.enter()
        else:
            panel.toggle_correcting()
        assert panel.ui.undoButton.enabled, "the editor is closed, its states are not"
        panel.toggle_correcting()
        _paint(panel, k=5)
        for _stroke in range(2):
            harness.click(panel.ui.undoButton)
        np.testing.assert_array_equal(_shown(panel), panel.view.material.proposal.array)
        assert not panel.ui.undoButton.enabled
        _paint(panel)
        harness.click(panel.ui.nextCaseButton)
        assert not panel.ui.undoButton.enabled, "that was another case"

    def test_a_draft_that_was_taken_up_can_be_undone_in_the_editor(self, panel: Any, make_panel: Any, folder: Path) -> None:
        panel.toggle_correcting()
        _paint(panel)
        again = make_panel(folder)
        harness.click(again.ui.nextCaseButton)
        harness.click(again.ui.continueDraftButton)
        again.toggle_correcting()
        harness.click(again.ui.undoButton)
        np.testing.assert_array_equal(_shown(again), again.view.material.proposal.array)

    def test_what_is_drawn_while_sam2_works_is_kept(self, panel: Any) -> None:
        panel.toggle_correcting()
        _paint(panel, k=3)
        harness.click(panel.ui.propagateButton)
        later = _paint(panel, value=300, k=9, i=40)
        panel.session.corrector.poll()
        assert (_shown(panel)[later] == 300).all()
        assert panel.correction.change.slices == (9,)

    def test_an_answer_for_a_case_that_was_left_changes_nothing(self, panel: Any) -> None:
        panel.toggle_correcting()
        _paint(panel, k=3)
        harness.click(panel.ui.propagateButton)
        harness.click(panel.ui.nextCaseButton)
        before = _shown(panel)
        panel.session.corrector.poll()
        np.testing.assert_array_equal(_shown(panel), before)
        assert any("no longer open" in text for text in harness.dialogs.texts("status"))

    @pytest.mark.parametrize("again", ["opened again", "another reviewer"])
    def test_an_answer_for_a_mask_that_was_opened_anew_is_discarded(self, panel: Any, again: str) -> None:
        panel.toggle_correcting()
        _paint(panel, k=3)
        harness.click(panel.ui.propagateButton)
        if again == "opened again":
            panel.reopen()
        else:
            harness.click(panel.ui.queueSection)
            harness.type_text(panel.ui.reviewerLine, "Dr. B")
            panel.ui.reviewerLine.editingFinished.emit()
        panel.session.corrector.poll()
        np.testing.assert_array_equal(_shown(panel), panel.view.material.proposal.array)
        assert any("discarded" in text for text in harness.dialogs.texts("status"))
        _paint(panel, k=5)
        assert panel.ui.propagateButton.enabled, "the next correction can be sent"

    def test_locked_segments_stay(self, panel: Any) -> None:
        panel.decisions.select(300)
        harness.press("L", panel.ui.caseSection)
        assert panel.view.scene.locked() == (300,) and panel.ui.lockButton.checked
        panel.toggle_correcting()
        vessel = panel.view.material.proposal.array == 300
        _paint(panel, k=3)
        harness.click(panel.ui.propagateButton)
        panel.session.corrector.poll()
        np.testing.assert_array_equal(_shown(panel) == 300, vessel)
        k, j, i = np.argwhere(vessel)[0]
        stroke = np.zeros(vessel.shape, bool)
        stroke[k, j, i] = True
        harness.paint_segment(panel.view.scene.node("proposal"), "segment_of_label_1", stroke, panel.ui.editor)
        panel.correction.look()
        np.testing.assert_array_equal(_shown(panel) == 300, vessel)
        assert any("Locked segments" in text for text in harness.dialogs.texts("status"))
        panel.decisions.select(300)
        harness.press("L", panel.ui.caseSection)
        assert panel.view.scene.locked() == ()

    def test_a_locked_correction_is_not_carried(self, panel: Any) -> None:
        panel.toggle_correcting()
        proposal = panel.view.material.proposal.array
        k, j, i = np.argwhere(proposal == 0)[len(np.argwhere(proposal == 0)) // 2]
        stroke = np.zeros(proposal.shape, bool)
        stroke[k, j, i] = True
        harness.paint_segment(panel.view.scene.node("proposal"), "segment_of_label_7", stroke, panel.ui.editor)
        panel.correction.look()
        assert panel.ui.propagateButton.enabled
        panel.decisions.select(7)
        harness.click(panel.ui.lockButton)
        assert not panel.ui.propagateButton.enabled and "unlock it first" in panel.ui.propagateButton.toolTip
        panel.propagate()
        assert "unlock it first" in harness.dialogs.texts("error")[0] and not panel.session.corrector.running
        harness.click(panel.ui.lockButton)
        harness.click(panel.ui.propagateButton)
        assert FakeClient.sent[-1].values == (7,)  # type: ignore[attr-defined]

    def test_locks_are_there_again_when_the_case_is_opened_again(self, panel: Any, make_panel: Any, folder: Path) -> None:
        panel.decisions.select(300)
        harness.click(panel.ui.lockButton)
        panel.step(1)
        assert panel.view.scene.locked() == (), "of the other case nothing is locked"
        panel.step(-1)
        assert panel.view.scene.locked() == (300,)
        again = make_panel(folder)
        harness.click(again.ui.nextCaseButton)
        assert again.view.scene.locked() == (300,)
        again.decisions.select(300)
        assert again.ui.lockButton.checked and again.ui.lockButton.text == "Unlock 'vessel' (L)"
        harness.click(again.ui.lockButton)
        again.reopen()
        assert again.view.scene.locked() == ()
        other = make_panel(folder, reviewer="Dr. B")
        harness.click(other.ui.nextCaseButton)
        assert other.view.scene.locked() == (), "each reviewer's own"

    def test_a_draft_brings_its_locked_segment_as_it_was_drawn(self, panel: Any, make_panel: Any, folder: Path) -> None:
        panel.toggle_correcting()
        drawn = _paint(panel, value=300)
        panel.decisions.select(300)
        harness.click(panel.ui.lockButton)
        panel.close_case()
        again = make_panel(folder)
        harness.click(again.ui.nextCaseButton)
        assert again.view.scene.locked() == (300,) and not (_shown(again) == 300)[drawn].all()
        harness.click(again.ui.continueDraftButton)
        assert (_shown(again) == 300)[drawn].all() and again.view.scene.locked() == (300,)

    def test_a_lock_that_cannot_be_kept_is_told(self, panel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from SAM2IterativeLib import drafts
        from SAM2IterativeLib.errors import ResourceError

        def full(*_arguments: Any) -> None:
            raise ResourceError("the disk is full.", cure="Free some space.")

        monkeypatch.setattr(drafts, "write_text", full)
        panel.decisions.select(300)
        harness.click(panel.ui.lockButton)
        assert "the disk is full" in harness.dialogs.texts("error")[0]
        assert panel.view.scene.locked() == () and not panel.ui.lockButton.checked

    @pytest.mark.parametrize(
        "answer",
        [
            RunFailed("The package 'torch' is not installed. Install what is missing in the Setup tab.", "MissingPackageError"),
            WorkerEnded(False, "The worker died: the memory of this computer did not suffice."),
        ],
    )
    def test_a_failure_is_told_and_the_correction_stays(self, panel: Any, answer: Message) -> None:
        FakeClient.answer = lambda _request: answer
        panel.toggle_correcting()
        _paint(panel)
        drawn = _shown(panel)
        harness.click(panel.ui.propagateButton)
        panel.session.corrector.poll()
        assert answer.sentence in harness.dialogs.texts("error")[0]  # type: ignore[attr-defined]
        np.testing.assert_array_equal(_shown(panel), drawn)
        assert panel.ui.propagateButton.enabled

    def test_without_a_correction_there_is_nothing_to_carry(self, panel: Any) -> None:
        panel.toggle_correcting()
        assert not panel.ui.propagateButton.enabled and "Correct a slice first" in panel.ui.propagateButton.toolTip
        harness.press("Shift+P", panel.ui.caseSection)
        assert "Correct a slice first" in panel.ui.statusLabel.text


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """While it is entered, no draft can be written."""
    from SAM2IterativeLib import drafts
    from SAM2IterativeLib.errors import ResourceError

    def full(*_: Any) -> None:
        raise ResourceError("the disk is full.", cure="Make room.")

    @contextmanager
    def entered() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(drafts, "write_label_map", full)
            yield

    return entered


class TestDrafts:
    def test_an_unfinished_correction_survives_closing_and_is_offered(self, panel: Any, make_panel: Any, folder: Path) -> None:
        panel.toggle_correcting()
        _paint(panel)
        drawn = _shown(panel)
        again = make_panel(folder)
        harness.click(again.ui.nextCaseButton)
        assert again.ui.draftFrame.isVisibleTo(again.widget) and "was not finished" in again.ui.draftLabel.text
        assert "unfinished correction" in again.ui.queueTable.item(0, 2).text()
        assert not np.array_equal(_shown(again), drawn)
        harness.click(again.ui.continueDraftButton)
        np.testing.assert_array_equal(_shown(again), drawn)
        assert not again.ui.draftFrame.isVisibleTo(again.widget)
        assert again.correction.change.slices == (3,)
        harness.click(again.ui.acceptButton)
        assert list((folder / "cases" / "case_2" / "drafts").iterdir()) == []
        assert _decisions(again) == [("case_2", "corrected", ())]

    def test_closing_the_project_keeps_it(self, panel: Any, folder: Path) -> None:
        panel.toggle_correcting()
        _paint(panel)
        panel.session.close()
        assert panel.view.material is None
        with Project.open(folder) as project:
            assert Drafts(project).newest(project.case("case_2"), "Dr. A") is not None

    def test_the_next_case_and_the_next_slice_save_it(self, panel: Any) -> None:
        drafts = Drafts(panel.session.project)
        panel.toggle_correcting()
        _paint(panel)
        panel.view.scene.jump_to_slice(1)
        first = drafts.newest(panel.view.material.case, "Dr. A")
        assert first is not None
        _paint(panel, k=5)
        case = panel.view.material.case
        harness.click(panel.ui.nextCaseButton)
        assert drafts.newest(case, "Dr. A").number == first.number + 1

    def test_another_segment_saves_it(self, panel: Any) -> None:
        panel.toggle_correcting()
        _paint(panel)
        panel.ui.editor.setCurrentSegmentID("segment_of_label_300")
        assert Drafts(panel.session.project).newest(panel.view.material.case, "Dr. A") is not None

    def test_it_can_be_discarded_after_asking(self, panel: Any, make_panel: Any, folder: Path) -> None:
        panel.toggle_correcting()
        _paint(panel)
        again = make_panel(folder)
        harness.click(again.ui.nextCaseButton)
        harness.dialogs.answer(False, True)
        harness.click(again.ui.discardDraftButton)
        assert again.ui.draftFrame.isVisibleTo(again.widget)
        harness.click(again.ui.discardDraftButton)
        assert not again.ui.draftFrame.isVisibleTo(again.widget)
        assert list((folder / "cases" / "case_2" / "drafts").iterdir()) == []

    def test_one_that_is_not_taken_up_is_not_overwritten(self, panel: Any, make_panel: Any, folder: Path) -> None:
        panel.toggle_correcting()
        _paint(panel)
        again = make_panel(folder)
        harness.click(again.ui.nextCaseButton)
        again.toggle_correcting()
        _paint(again, k=8)
        again.correction.drafts.keep()
        assert sorted(path.name for path in (folder / "cases" / "case_2" / "drafts").glob("*.nrrd")) == ["1.nrrd", "2.nrrd"]

    def test_undoing_everything_leaves_no_draft(self, panel: Any, folder: Path) -> None:
        panel.toggle_correcting()
        _paint(panel)
        panel.correction.drafts.keep()
        harness.click(panel.ui.undoButton)
        panel.correction.drafts.keep()
        assert list((folder / "cases" / "case_2" / "drafts").iterdir()) == []

    def test_another_reviewer_does_not_get_it(self, panel: Any) -> None:
        panel.toggle_correcting()
        _paint(panel)
        harness.click(panel.ui.queueSection)
        harness.type_text(panel.ui.reviewerLine, "Dr. B")
        panel.ui.reviewerLine.editingFinished.emit()
        np.testing.assert_array_equal(_shown(panel), panel.view.material.proposal.array)
        assert not panel.ui.draftFrame.isVisibleTo(panel.widget)
        assert Drafts(panel.session.project).newest(panel.view.material.case, "Dr. A") is not None

    def test_a_segment_of_ones_own_does_not_keep_the_rest_from_being_saved(self, panel: Any) -> None:
        panel.toggle_correcting()
        _paint(panel)
        drawn, case = _shown(panel), panel.view.material.case
        panel.view.scene.node("proposal").GetSegmentation().AddEmptySegment("mine", "Cyst")
        panel.correction.drafts.keep()
        panel.correction.drafts.keep()
        harness.click(panel.ui.nextCaseButton)
        assert panel.view.material.case.id == "case_1"
        (remark,) = harness.dialogs.texts("warning")
        assert "Cyst" in remark and harness.dialogs.texts("error") == []
        drafts = Drafts(panel.session.project)
        np.testing.assert_array_equal(drafts.read(case, drafts.newest(case, "Dr. A")).array, drawn)
        harness_faults.forget()  # a segment that a program adds has no colours yet when the table asks for them

    def test_a_case_that_cannot_be_saved_is_only_left_when_the_person_says_so(self, panel: Any, full_disk: Any) -> None:
        panel.toggle_correcting()
        _paint(panel)
        drawn = _shown(panel)
        with full_disk():
            panel.correction.drafts.keep()
            harness.dialogs.answer(False, False, True)
            harness.click(panel.ui.nextCaseButton)
            harness.click(panel.ui.nextCaseButton)
            assert panel.view.material.case.id == "case_2" and _rows(panel)[panel.ui.queueTable.currentRow()] == "case_2"
            np.testing.assert_array_equal(_shown(panel), drawn)
            harness.click(panel.ui.nextCaseButton)
        assert panel.view.material.case.id == "case_1"
        questions = harness.dialogs.texts("question")
        assert len(questions) == 3 and all("the disk is full" in text and "without saving" in text for text in questions)
        assert len(harness.dialogs.texts("error")) == 1, "what the person gave up is not told again"

    def test_another_reviewer_waits_for_what_cannot_be_saved(self, panel: Any, full_disk: Any) -> None:
        panel.toggle_correcting()
        _paint(panel)
        drawn, case = _shown(panel), panel.view.material.case
        harness.click(panel.ui.queueSection)
        with full_disk():
            harness.dialogs.answer(False)
            harness.type_text(panel.ui.reviewerLine, "Dr. B")
            panel.ui.reviewerLine.editingFinished.emit()
        assert panel.session.reviewer == panel.ui.reviewerLine.text == "Dr. A"
        np.testing.assert_array_equal(_shown(panel), drawn)
        panel.correction.drafts.keep()
        assert Drafts(panel.session.project).newest(case, "Dr. A") is not None

    def test_closing_the_project_asks_for_what_cannot_be_saved(self, panel: Any, full_disk: Any) -> None:
        panel.toggle_correcting()
        _paint(panel)
        with full_disk():
            harness.dialogs.answer(False, True)
            assert not panel.session.may_close()
            assert panel.session.may_close()
            panel.session.close()
        assert panel.view.material is None and harness.dialogs.texts("error") == []

    def test_what_goes_with_the_scene_unsaved_is_told_each_time(self, panel: Any, scene: Any, full_disk: Any) -> None:
        panel.toggle_correcting()
        _paint(panel)
        with full_disk():
            panel.correction.drafts.keep()
            scene.Clear(0)
            harness.process_events()
        assert len(harness.dialogs.texts("error")) == 2

    def test_a_full_disk_is_told_and_nothing_is_lost(self, panel: Any, full_disk: Any) -> None:
        panel.toggle_correcting()
        _paint(panel)
        drawn = _shown(panel)
        with full_disk():
            panel.correction.drafts.keep()
        assert "the disk is full" in harness.dialogs.texts("error")[0]
        np.testing.assert_array_equal(_shown(panel), drawn)


class TestFaults:
    def test_a_project_that_is_read_only_can_be_looked_at(self, make_panel: Any, folder: Path) -> None:
        with Project.open(folder):
            panel = make_panel(folder)
            assert "in use by process" in panel.ui.noticeLabel.text and "not decide" in panel.ui.noticeLabel.text
            harness.click(panel.ui.nextCaseButton)
            for button in (panel.ui.acceptButton, panel.ui.rejectButton, panel.ui.takeBackButton, panel.ui.propagateButton):
                assert not button.enabled and "in use by" in button.toolTip
            panel.toggle_correcting()
            _paint(panel)
            panel.correction.drafts.keep()
            panel.exit()
        assert not (folder / "cases" / "case_2" / "drafts").exists()

    def test_the_scene_is_closed_during_review(self, panel: Any, scene: Any, folder: Path) -> None:
        panel.toggle_correcting()
        _paint(panel)
        drawn = _shown(panel)
        scene.Clear(0)
        harness.process_events()
        assert panel.view.material is None and not panel.correction.editing.active
        assert "No case is open" in panel.ui.caseLabel.text and not panel.ui.acceptButton.enabled
        for key in "CSMUPODJAXEL":
            harness.press(key, panel.ui.caseSection)
        assert panel.open_case("case_2")
        harness.click(panel.ui.continueDraftButton)
        np.testing.assert_array_equal(_shown(panel), drawn)

    def test_a_proposal_that_was_changed_on_disk_is_refused_and_the_open_case_stays(self, panel: Any) -> None:
        project = panel.session.project
        project.artefact(1, "case_1", "pseudo_label.nii.gz").write_bytes(b"other")
        assert not panel.open_case("case_1")
        assert "missing or was changed" in harness.dialogs.texts("error")[0]
        assert panel.view.material.case.id == "case_2" and _shown(panel).any()

    def test_the_person_deletes_the_segmentation(self, panel: Any, scene: Any) -> None:
        scene.RemoveNode(panel.view.scene.node("proposal"))
        panel.accept()
        assert "no proposal is shown" in harness.dialogs.texts("error")[0]
        assert panel.open_case("case_2")
        harness.click(panel.ui.acceptButton)

    def test_another_round_made_a_newer_proposal(self, panel: Any, case: GeneratedCase) -> None:
        project = panel.session.project
        write_round(project, project.case("case_2"), case, 2, 0.3, proposal=case.truth)
        panel.session.notify("rounds")
        assert "Round 2 has made a newer one" in panel.ui.caseLabel.text
        panel.ui.queueTable.cellClicked.emit(0, 0)
        np.testing.assert_array_equal(_shown(panel), case.truth.array)
        harness.click(panel.ui.acceptButton)
        assert (_last(panel).kind, _last(panel).round) == ("accepted", 2)


class TestKeys:
    def test_the_legend_shows_what_the_tab_can_do(self, panel: Any) -> None:
        assert panel.ui.legendSection.collapsed
        harness.press("H", panel.ui.caseSection)
        assert not panel.ui.legendSection.collapsed and "<b>Shift+P</b>" in panel.ui.legendLabel.text
        assert panel.ui.coarseButton.text == "Coarse mask (C)"

    def test_deciding_by_key(self, panel: Any) -> None:
        harness.press("A", panel.ui.caseSection)
        harness.press("Shift+A", panel.ui.caseSection)
        assert _decisions(panel) == []
        panel.ui.reasonCombo.setCurrentText("image too poor")
        harness.press("X", panel.ui.caseSection)
        assert _decisions(panel) == [("case_2", "rejected", ())]
        harness.press("N", panel.ui.caseSection)
        harness.press("Shift+N", panel.ui.caseSection)
        assert panel.view.material.case.id == "case_2"

    @pytest.mark.parametrize("ended", ["effect", "editor"])
    def test_the_keys_that_decide_belong_to_an_effect_while_it_is_active(self, panel: Any, ended: str) -> None:
        panel.toggle_correcting()
        panel.ui.editor.setActiveEffectByName("Draw")
        for key in ("A", "X", "Shift+A"):
            harness.press(key, panel.ui.caseSection)
        assert _decisions(panel) == [] and panel.ui.statusLabel.text == ""
        for button in (panel.ui.acceptButton, panel.ui.rejectButton, panel.ui.takeBackButton):
            assert "its key rests" in button.toolTip
        if ended == "effect":
            panel.ui.editor.setActiveEffect(None)
        else:
            panel.toggle_correcting()
        harness.press("A", panel.ui.caseSection)
        assert _decisions(panel) == [("case_2", "accepted", ())]

    def test_keys_rest_while_the_tab_is_left(self, panel: Any) -> None:
        panel.exit()
        harness.press("A", panel.ui.caseSection)
        assert _decisions(panel) == []
        panel.enter()
        harness.press("A", panel.ui.caseSection)
        assert len(_decisions(panel)) == 1


def test_a_real_worker_carries_a_correction(make_panel: Any, tmp_path: Path) -> None:
    """A child process with random weights: the way there and back is real, the result is not good."""
    pytest.importorskip("torch")
    pytest.importorskip("sam2")
    from small_projects import tiny_weights

    from SAM2IterativeGUI.worker_process import WorkerProcess

    settings = Settings(name="real", labels=LABELS, foundation=FoundationSettings(weights=str(tiny_weights(tmp_path))), device="cpu")
    make_project(tmp_path / "project", generated_case(size=(6, 32, 32)), cases=1, settings=settings).close()
    panel = make_panel(tmp_path / "project", WorkerProcess())
    harness.click(panel.ui.nextCaseButton)
    panel.toggle_correcting()
    _paint(panel, value=1, k=2)
    drawn = _shown(panel)
    harness.click(panel.ui.propagateButton)
    harness.wait_until(lambda: panel.ui.propagateButton.enabled or not panel.session.corrector.busy, "SAM2 has answered", seconds=180)
    harness.process_events()
    panel.session.corrector.poll()
    assert harness.dialogs.texts("error") == []
    assert any("One undo takes it back" in text for text in harness.dialogs.texts("status"))
    np.testing.assert_array_equal(_shown(panel)[2], drawn[2])
    panel.correction.undo()
    np.testing.assert_array_equal(_shown(panel), drawn)
    harness.click(panel.ui.acceptButton)
    assert _decisions(panel) == [("case_1", "corrected", ())]
