"""From a folder of DICOM files to a DICOM segmentation, through the panels, with real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import harness
import numpy as np
import pytest
from opened_module import column, make_sample, open_tab

pydicom = pytest.importorskip("pydicom")


@pytest.fixture
def series(real_data: Path) -> Path:
    """The folder of one real series, some folders deep; skips where it is absent."""
    folder = real_data / "dicom_brain"
    if not folder.is_dir():
        pytest.skip(f"no DICOM files in {folder}; set SAM2_ITERATIVE_DATA to the folder of the real data")
    return folder


@pytest.fixture
def imported(pretending: Any, series: Path, tmp_path: Path) -> Any:
    """The module with a new project, to which the folder was added by its buttons."""
    ui = pretending.widget.ui
    harness.dialogs.answer(str(tmp_path / "new"))
    harness.click(ui.createButton)
    ui.imagesEdit.setCurrentPath(str(series))
    harness.click(ui.addFolderButton)
    assert harness.dialogs.texts("error") == []
    return pretending


def _source(series: Path) -> Any:
    return pydicom.dcmread(next(series.rglob("*.dcm")), stop_before_pixels=True)


def test_a_series_becomes_a_case_that_names_nobody(imported: Any, series: Path) -> None:
    ui, project = imported.widget.ui, imported.widget.session.project
    assert ui.caseTable.rowCount == 1 and "1 cases added, 0 of them labelled" in ui.importLabel.text
    assert column(ui.caseTable, 2) == ["not labelled yet"]
    (case,) = project.cases()
    source = _source(series)
    image = project.read_case_image(case)
    assert image.array.shape == (len(list(series.rglob("*.dcm"))), source.Rows, source.Columns)
    shown = [ui.caseTable.item(0, number) for number in range(ui.caseTable.columnCount)]
    texts = " ".join([ui.importLabel.text, *(item.text() + item.toolTip() for item in shown)])
    for secret in (str(source.PatientName), str(source.PatientID)):
        assert not secret or secret not in texts


def test_what_a_person_drew_is_exported_as_a_dicom_segmentation_of_the_series(imported: Any, series: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    session, ui = imported.widget.session, imported.widget.ui
    case = session.project.cases()[0].id
    harness.click(ui.addLabelButton)
    ui.labelTable.item(0, 2).setText("brain")
    harness.choose(ui.labelTable.cellWidget(0, 3), "Brain")

    imported.widget.goTo("review", case=case)
    harness.process_events()
    review = imported.widget.panels["review"]
    drawn = np.zeros(review.view.scene.geometry.size, bool)
    drawn[3:6, 20:30, 15:40] = True
    review.toggle_correcting()
    harness.paint_segment(review.view.scene.node("proposal"), "segment_of_label_1", drawn, ui.editor)
    harness.click(ui.acceptButton)

    open_tab(imported, "Results")
    harness.choose(ui.formatCombo, "DICOM segmentation (.dcm)")
    ui.exportFolderEdit.setCurrentPath(str(tmp_path / "out"))
    harness.click(ui.exportButton)
    assert harness.dialogs.texts("error") == []
    assert "1 files written" in ui.exportLabel.text
    (written,) = (tmp_path / "out").rglob("*.dcm")
    made, source = pydicom.dcmread(written), _source(series)
    assert made.Modality == "SEG"
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert made.get(name) == source.get(name), name
    (segment,) = made.SegmentSequence
    assert segment.SegmentLabel == "brain"
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodingSchemeDesignator, kind.CodeValue, kind.CodeMeaning) == ("SCT", "12738006", "Brain")
    assert int(made.pixel_array.sum()) == int(drawn.sum())
    _lies_where_it_was_drawn(made, drawn, session.project)


def _lies_where_it_was_drawn(made: Any, drawn: np.ndarray, project: Any) -> None:
    geometry = project.read_case_image(project.cases()[0]).geometry
    frames = made.pixel_array if made.pixel_array.ndim == 3 else made.pixel_array[None]
    for frame, groups in zip(frames, made.PerFrameFunctionalGroupsSequence, strict=True):
        corner = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float) * (-1, -1, 1)
        k, j, i = np.rint(geometry.kji_of(corner)).astype(int)
        assert (j, i) == (0, 0)
        np.testing.assert_array_equal(frame > 0, drawn[k])


def test_cases_that_did_not_come_from_dicom_are_left_out_by_name(pretending: Any, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    make_sample(pretending, tmp_path / "p")
    ui = open_tab(pretending, "Results")
    harness.choose(ui.formatCombo, "DICOM segmentation (.dcm)")
    ui.exportFolderEdit.setCurrentPath(str(tmp_path / "out"))
    harness.click(ui.exportButton)
    said = ui.exportLabel.text + " ".join(harness.dialogs.texts("error"))
    assert "phantom_000" in said and "did not come from DICOM" in said


def test_a_folder_of_broken_files_says_so(pretending: Any, tmp_path: Path, series: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in sorted(series.rglob("*.dcm"))[:3]:
        (folder / path.name).write_bytes(path.read_bytes()[:400])
    ui = pretending.widget.ui
    harness.dialogs.answer(str(tmp_path / "new"))
    harness.click(ui.createButton)
    ui.imagesEdit.setCurrentPath(str(folder))
    harness.click(ui.addFolderButton)
    said = " ".join(harness.dialogs.texts("error")) + ui.importLabel.text
    assert "broken" in said or "1.dcm" in said, said
    assert ui.caseTable.rowCount == 0
