from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_rounds import write_round
from small_cases import OBLIQUE, small_image, small_labels

from SAM2IterativeLib.cli.tables import rounds_table, scores_legend, scores_table
from SAM2IterativeLib.dedicated.plan import Plan, write_plan
from SAM2IterativeLib.errors import DataError
from SAM2IterativeLib.evaluation import evaluate
from SAM2IterativeLib.files import sha256_of
from SAM2IterativeLib.learning import note_training
from SAM2IterativeLib.project import Project, label_of
from SAM2IterativeLib.references import match_references, read_reference
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.round_files import PROPAGATED
from SAM2IterativeLib.settings import Settings
from SAM2IterativeLib.volumes import Geometry, LabelMap, write_label_map

TRUE = small_labels().array
DIAGONAL = float(np.linalg.norm(np.multiply(OBLIQUE.size, OBLIQUE.spacing)))


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """References of the cases b and c, both ``TRUE``."""
    folder = tmp_path / "references"
    for name in ("b", "c"):
        write_label_map(folder / f"{name}.nii.gz", small_labels())
    return folder


def finish(project: Project, rounds: int = 1, **layers: np.ndarray) -> None:
    """Finished rounds in which both unlabelled cases have the same layers; what is not given equals ``TRUE``."""
    usual: dict[str, Any] = {"coarse": TRUE, "propagated": TRUE, "pseudo_label": TRUE, "uncertainty": np.zeros(TRUE.shape)}
    for round in range(rounds):
        for case in project.cases("unlabelled", usable=True):
            write_round(project, round, case, **(usual | layers))
        project.journal.finish_round(round, {})


def test_every_round_and_label_map_is_scored(project: Project, references: Path) -> None:
    finish(project, rounds=2, coarse=small_labels(shift=1).array)
    found = evaluate(project, references)
    assert found["cases"] == 2
    assert found["labels"] == ["anterior", "posterior"]
    assert [entry["round"] for entry in found["rounds"]] == [0, 1]
    # Both boxes are two columns wide and one of them overlaps: 2 * 1 / (2 + 2).
    assert found["rounds"][0]["coarse"]["dice"] == pytest.approx(0.5)
    assert found["rounds"][1]["pseudo_label"]["dice"] == 1.0
    assert found["rounds"][1]["propagated"]["hd95_mm"] == 0.0
    assert found["rounds"][0]["coarse"]["per_class"]["posterior"]["dice"] == pytest.approx(0.5)
    assert found["rounds"][0]["coarse"]["per_case"]["b"]["per_class"]["anterior"]["dice"] == pytest.approx(0.5)
    json.dumps(found, allow_nan=False)


def test_a_missed_structure_is_counted_and_worsens_the_means(project: Project, references: Path) -> None:
    finish(project, pseudo_label=np.where(TRUE == 2, 0, TRUE))
    scores = evaluate(project, references)["rounds"][0]["pseudo_label"]
    assert scores["missed"] == 2
    assert scores["dice"] == pytest.approx(0.5)
    assert scores["hd95_mm"] == pytest.approx(DIAGONAL / 2)
    assert scores["hd95_mm_found"] == 0.0


def damaged() -> tuple[np.ndarray, np.ndarray]:
    """A coarse mask that gets worse from slice to slice, and how wrong each slice is, in [0, 1]."""
    coarse, error = TRUE.copy(), np.zeros(TRUE.shape[0])
    for z in range(1, 5):
        coarse[z, 2 : 2 + z, 1:3] = 0  # of six rows of label 1
        error[z] = z / 6
    return coarse, error


def test_uncertainty_that_knows_the_errors_correlates_with_them(project: Project, references: Path) -> None:
    coarse, error = damaged()
    doubt = np.zeros(TRUE.shape) + (0.02 * error)[:, None, None]
    finish(project, coarse=coarse, uncertainty=doubt)
    entry = evaluate(project, references)["rounds"][0]
    assert entry["uncertainty_error"]["per_class"]["anterior"] == pytest.approx(1.0)
    assert entry["uncertainty_error"]["per_case"]["b"] == entry["uncertainty_error"]["per_case"]["c"]
    assert entry["uncertainty_error"]["slices"] == 2 * (4 + 2)


def test_uncertainty_that_is_sure_where_it_errs_correlates_negatively(project: Project, references: Path) -> None:
    coarse, error = damaged()
    # Divided by the mask's area, an equal doubt counts more on a small mask, hence the steep fall.
    doubt = np.zeros(TRUE.shape) + (0.02 * (1 - error) ** 4)[:, None, None]
    finish(project, coarse=coarse, uncertainty=doubt)
    assert evaluate(project, references)["rounds"][0]["uncertainty_error"]["per_class"]["anterior"] == pytest.approx(-1.0)


def test_slices_that_the_coarse_mask_misses_are_counted_apart(project: Project, references: Path) -> None:
    finish(project, coarse=np.where(TRUE == 2, 0, TRUE))
    found = evaluate(project, references)["rounds"][0]["uncertainty_error"]
    assert found["missed_slices"] == 2 * 2  # label 2 lies on two slices of each case
    assert found["slices"] == 2 * 4


def test_slices_are_those_of_the_plans_orientation(project: Project, references: Path) -> None:
    write_plan(project.plan_path, Plan(classes=2, orientation="PSL"))
    finish(project)
    # Label 1 has six rows and label 2 three, which are slices now.
    assert evaluate(project, references)["rounds"][0]["uncertainty_error"]["slices"] == 2 * (6 + 3)


def test_nothing_is_dropped_silently(project: Project, references: Path) -> None:
    finish(project)
    (references / "c.nii.gz").unlink()
    for name in ("a", "stranger"):
        write_label_map(references / f"{name}.nii.gz", small_labels())
    found = evaluate(project, references)
    assert found["cases"] == 1
    assert found["cases_without_reference"] == ["c"]
    assert found["references_without_case"] == ["stranger.nii.gz"]
    assert found["labelled_cases"] == ["a"]


def test_a_second_file_for_one_case_is_named(project: Project, references: Path) -> None:
    finish(project)
    write_label_map(references / "b_seg.nrrd", small_labels())
    assert evaluate(project, references)["references_without_case"] == ["b_seg.nrrd"]


def test_a_reference_on_another_grid_is_an_error_of_its_case_alone(project: Project, references: Path) -> None:
    finish(project)
    moved = replace(OBLIQUE, origin=(0.0, 0.0, 0.0))
    write_label_map(references / "b.nii.gz", LabelMap(TRUE, moved))
    found = evaluate(project, references)
    assert "origin" in found["errors"]["b"]
    assert list(found["rounds"][0]["coarse"]["per_case"]) == ["c"]


def test_references_of_foreign_values_are_an_error_of_their_case_alone(project: Project, references: Path) -> None:
    finish(project)
    write_label_map(references / "b.nii.gz", LabelMap(np.where(TRUE > 0, 7, 0).astype(np.uint8), OBLIQUE))
    write_label_map(references / "c.nii.gz", LabelMap(np.where(TRUE == 2, 9, TRUE).astype(np.uint8), OBLIQUE))
    found = evaluate(project, references)
    assert "[7]" in found["errors"]["b"]
    assert "[9]" in found["remarks"]["c"]
    assert found["rounds"][0]["pseudo_label"]["false_alarms"] == 1


def test_a_mask_of_0_and_255_is_understood_where_there_is_one_label(tmp_path: Path) -> None:
    mask = (TRUE == 1).astype(np.uint8)
    with Project.create(tmp_path / "project", Settings(labels=(label_of(1, "organ"),))) as project:
        project.add_case("b", small_image())
        finish(project, coarse=mask, propagated=mask, pseudo_label=mask)
        write_label_map(tmp_path / "references" / "b.nii.gz", LabelMap(mask * 255, OBLIQUE))
        found = evaluate(project, tmp_path / "references")
    assert found["rounds"][0]["coarse"]["dice"] == 1.0
    assert "255" in found["remarks"]["b"]


def test_references_bear_the_name_of_the_case_or_of_its_source(tmp_path: Path) -> None:
    with Project.create(tmp_path / "project", Settings(labels=(label_of(1), label_of(2)))) as project:
        project.add_case("case_0001", small_image(1), source="scan one.nii.gz")
        project.add_case("case_0002", small_image(2), source="two_0000.nii.gz")
        finish(project)
        write_label_map(tmp_path / "references" / "scan one-label.nrrd", small_labels())
        write_label_map(tmp_path / "references" / "two.nii.gz", small_labels())
        found = evaluate(project, tmp_path / "references")
    assert found["cases"] == 2
    assert found["references_without_case"] == []


def test_an_id_never_takes_the_reference_of_another_source(tmp_path: Path) -> None:
    """ "a b" becomes the id a_b, so the file a_b.nii.gz is not its reference but that of the case whose source bore this name."""
    with Project.create(tmp_path / "project", Settings(labels=(label_of(1), label_of(2)))) as project:
        first = project.add_case("a b", small_image(1), source="a b.nii.gz")
        second = project.add_case("a_b", small_image(2), source="a_b.nii.gz")
        assert (first.id, second.id) == ("a_b", "a_b_2")
        write_label_map(tmp_path / "references" / "a_b.nii.gz", small_labels())
        matched = match_references(project, tmp_path / "references")
        assert list(matched.of_case) == ["a_b_2"]


def test_references_pair_however_accents_are_written_and_links_are_named(project: Project, tmp_path: Path) -> None:
    name = "Müller"
    nfd, nfc = (unicodedata.normalize(form, name) for form in ("NFD", "NFC"))
    project.add_case("d", small_image(4), source=f"{nfd}_0000.nii.gz")
    write_label_map(tmp_path / "references" / f"{nfc}_seg.nii.gz", small_labels())
    (tmp_path / "references" / "b.nii.gz").symlink_to("nowhere")
    matched = match_references(project, tmp_path / "references")
    assert set(matched.of_case) == {"b", "d"}
    with pytest.raises(DataError, match="a link to a file that is not here"):
        read_reference(project, *matched.of_case["b"])


def test_before_any_round_there_is_nothing_to_compare(tmp_path: Path) -> None:
    with (
        Project.create(tmp_path / "project", Settings(labels=(label_of(1),))) as project,
        pytest.raises(DataError, match="no round is fin"),
    ):
        evaluate(project, tmp_path)


def test_no_fitting_reference_is_refused(project: Project, references: Path, tmp_path: Path) -> None:
    finish(project)
    for path in references.iterdir():
        path.rename(references / f"other_{path.name}")
    with pytest.raises(DataError, match="none of its 2 label maps"):
        evaluate(project, references)
    with pytest.raises(DataError, match="no such folder"):
        evaluate(project, tmp_path / "nowhere")


def test_a_case_without_a_label_map_is_named_and_the_others_go_on(project: Project, references: Path) -> None:
    finish(project)
    project.set_aside("b", "its file changed.")
    write_round(project, 1, project.case("c"), coarse=TRUE, pseudo_label=TRUE, uncertainty=np.zeros(TRUE.shape))
    project.journal.finish_round(1, {})
    entry = evaluate(project, references)["rounds"][1]
    assert entry["missing"] == {"coarse": ["b"], "propagated": ["b", "c"], "pseudo_label": ["b"]}
    assert entry["coarse"]["dice"] == 1.0
    assert entry["propagated"]["dice"] is None


def test_a_changed_label_map_is_an_error_of_its_case_alone(project: Project, references: Path) -> None:
    finish(project, rounds=2)
    write_label_map(project.artefact(0, "b", PROPAGATED), small_labels(shift=1))
    found = evaluate(project, references)
    assert "changed" in found["errors"]["b"]
    assert [list(entry["coarse"]["per_case"]) for entry in found["rounds"]] == [["c"], ["b", "c"]]
    assert found["rounds"][0]["missing"]["coarse"] == ["b"]


def test_cases_in_which_people_had_a_hand_are_named(project: Project, references: Path) -> None:
    finish(project)
    Review(project).accept(project.case("b"), reviewer="Ada")
    found = evaluate(project, references)
    assert found["reviewed_cases"] == ["b"]
    assert (found["touched_cases"], len(found["compared_cases"])) == ([], 2), "a decision leaves the proposal that it is about as it is"
    assert found["rounds"][0]["compared"]["pseudo_label"]["dice"] == found["rounds"][0]["pseudo_label"]["dice"]


def test_cases_that_people_touched_are_scored_apart(project: Project, references: Path) -> None:
    finish(project, rounds=2)
    write_round(project, 1, project.case("c"), coarse=TRUE, pseudo_label=np.where(TRUE == 2, 0, TRUE), uncertainty=np.zeros(TRUE.shape))
    Review(project).correct(project.case("b"), small_labels(), reviewer="Ada", round=0)
    found = evaluate(project, references)
    assert (found["touched_cases"], len(found["compared_cases"]), found["cases"]) == (["b"], 1, 2)
    newest = found["rounds"][1]
    assert newest["pseudo_label"]["dice"] == pytest.approx(0.75), "the documented means stay those of all cases"
    assert newest["compared"]["pseudo_label"]["dice"] == pytest.approx(0.5)
    assert "per_case" not in newest["compared"]["pseudo_label"]
    json.dumps(found, allow_nan=False)


def test_rounds_are_compared_over_the_cases_that_every_round_labelled(project: Project, references: Path) -> None:
    b, c = project.case("b"), project.case("c")
    half = np.where(TRUE == 2, 0, TRUE)
    for round, case, labels in ((0, b, half), (1, b, TRUE), (1, c, half)):
        write_round(project, round, case, coarse=labels, pseudo_label=labels, uncertainty=np.zeros(TRUE.shape))
    for round in (0, 1):
        project.journal.finish_round(round, {})
    found = evaluate(project, references)
    assert (found["late_cases"], found["compared_cases"], found["cases"]) == (["c"], ["b"], 2)
    assert [entry["compared"]["pseudo_label"]["dice"] for entry in found["rounds"]] == [pytest.approx(0.5), 1.0]
    assert found["rounds"][1]["pseudo_label"]["dice"] == pytest.approx(0.75), "the documented means stay those of all cases"
    Review(project).correct(b, small_labels(), reviewer="Ada", round=0)
    assert evaluate(project, references)["compared_cases"] == ["c"], "a late one rather than none"


def test_the_terminal_says_which_cases_compare_rounds(project: Project, references: Path) -> None:
    for round, cases in ((0, "b"), (1, "bc")):
        for case in cases:
            write_round(project, round, project.case(case), coarse=TRUE, pseudo_label=TRUE, uncertainty=np.zeros(TRUE.shape))
        project.journal.finish_round(round, {})
    found = evaluate(project, references)
    assert str(scores_table(found).title).startswith("1 case that every round labelled, of 2 with references")
    assert "Not every round labelled c." in scores_legend(found)
    Review(project).correct(project.case("b"), small_labels(), reviewer="Ada", round=0)
    found = evaluate(project, references)
    assert str(scores_table(found).title).startswith("1 case that no person touched, of 2")
    assert "So the rounds are not compared over the same cases." in scores_legend(found)


def test_rounds_with_other_validation_cases_are_told_apart(project: Project) -> None:
    for round, cases in ((0, ["v"]), (1, ["v"]), (2, ["v", "w"])):
        scores = {"validation": {"pseudo_label": {"dice": 0.8}}, "validation_scored": cases, "validation_cases": len(cases)}
        project.journal.finish_round(round, scores)
        table, terms = rounds_table(project)
        assert ("validation_cases" in terms) == (round == 2)
    assert [str(cell) for cell in table.columns[terms.index("validation_cases") + 1].cells] == ["1", "1", "2"]


def test_what_was_learned_from_a_persons_labels_is_touched(project: Project, references: Path) -> None:
    finish(project, rounds=2)
    note_training(project, 1, ["a", "b", "c"], ["a", "b"])  # b was labelled then
    project.journal.finish_unit(1, "training", "", [])
    assert evaluate(project, references)["touched_cases"] == ["b"]


def test_references_none_of_which_can_be_used_are_refused(project: Project, references: Path) -> None:
    finish(project)
    for name in ("b", "c"):
        write_label_map(references / f"{name}.nii.gz", LabelMap(np.full(TRUE.shape, 7, np.uint8), OBLIQUE))
    with pytest.raises(DataError, match=r"references: none of 2 references could be compared .*: b: its reference holds the values"):
        evaluate(project, references)


def test_nothing_is_written_and_a_read_only_project_suffices(project: Project, references: Path) -> None:
    finish(project)
    project.close()
    before = {path: sha256_of(path) for path in project.folder.rglob("*") if path.is_file()}
    with Project.open(project.folder, read_only=True) as reopened:
        assert evaluate(reopened, references)["cases"] == 2
    assert {path: sha256_of(path) for path in project.folder.rglob("*") if path.is_file()} == before


def test_pictures_are_compared_as_one_slice(tmp_path: Path) -> None:
    planar = Geometry((1, 10, 8), planar=True)
    with Project.create(tmp_path / "project", Settings(labels=(label_of(1), label_of(2)))) as project:
        project.add_case("b", small_image(geometry=planar))
        flat = TRUE[2:3]
        finish(project, coarse=flat, propagated=flat, pseudo_label=flat, uncertainty=np.zeros(flat.shape))
        write_label_map(tmp_path / "references" / "b.png", LabelMap(flat, planar))
        found = evaluate(project, tmp_path / "references")
    assert found["rounds"][0]["pseudo_label"]["dice"] == 1.0
    assert found["rounds"][0]["uncertainty_error"]["slices"] == 2


def test_progress_names_every_case(project: Project, references: Path) -> None:
    finish(project)
    told: list[tuple[int, int, str]] = []
    evaluate(project, references, on_case=lambda *case: told.append(case))
    assert told == [(0, 2, "b"), (1, 2, "c")]


def test_neither_evaluation_nor_report_needs_torch() -> None:
    program = "import SAM2IterativeLib.evaluation, SAM2IterativeLib.report.page, sys; sys.exit('torch' in sys.modules)"
    repository = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=repository, check=False).returncode == 0
