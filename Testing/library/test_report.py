from __future__ import annotations

import importlib.util
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_rounds import prompt, write_round
from small_cases import OBLIQUE, small_image, small_labels

from SAM2IterativeLib.dedicated.plan import Plan, write_plan
from SAM2IterativeLib.errors import MissingPackageError, ProjectError
from SAM2IterativeLib.evaluation import evaluate
from SAM2IterativeLib.learning import note_training
from SAM2IterativeLib.project import Project, label_of
from SAM2IterativeLib.report import page, write_report
from SAM2IterativeLib.review import PROPOSAL, Review
from SAM2IterativeLib.settings import Settings, replaced
from SAM2IterativeLib.volumes import Geometry, Volume, write_label_map

TRUE = small_labels().array
_VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """What a test asks of a page; raises AssertionError on tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        """All that is read, with single spaces."""
        return " ".join(" ".join(self.words).split())

    def values(self, attribute: str) -> list[str]:
        """Every value of an attribute."""
        return [value for _, found in self.tags if (value := found.get(attribute)) is not None]

    def count(self, tag: str, style: str) -> int:
        """How many elements of a tag bear a CSS class."""
        return sum(tag == t and style in (found.get("class") or "").split() for t, found in self.tags)


@pytest.fixture
def done(project: Project) -> Project:
    """Two finished rounds over the cases b (a key frame on slice 2) and c (none; most doubt on slice 4)."""
    doubt = np.full(TRUE.shape, 0.1)
    doubt[4] = 0.5
    for round in range(2):
        for case, prompts, mean in (("b", [prompt(OBLIQUE, 1, 2, (2, 1, 8, 3), (4, 2))], 0.2), ("c", [], 0.3)):
            numbers = {"uncertainty": mean, "agreement": 0.8}
            layers = {"coarse": small_labels(1).array, "propagated": TRUE, "pseudo_label": TRUE, "uncertainty": doubt}
            write_round(project, round, project.case(case), prompts=prompts, numbers=numbers, **layers)
        project.journal.finish_round(round, {"cases": 2, "agreement": 0.8, "uncertainty": 0.25, "stability": 0.97 if round else None})
    return project


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_stands_alone(done: Project) -> None:
    path = write_report(done)
    assert path == done.folder / "report.html"
    html = path.read_text(encoding="utf-8")
    shown = Page(html)
    ids = shown.values("id")
    assert len(ids) == len(set(ids)) > 0
    for link in shown.values("href") + shown.values("src"):
        assert link.startswith("data:image/png;base64,") or link.removeprefix("#") in ids
    assert not {"script", "link", "iframe"} & {tag for tag, _ in shown.tags}
    assert not re.search(r"https?://|url\(|@import", html)


def test_every_picture_says_what_it_is(done: Project) -> None:
    shown = read(write_report(done))
    drawings = [found for tag, found in shown.tags if tag == "svg"]
    assert drawings
    assert all(found.get("role") == "img" and found.get("aria-label") for found in drawings)
    assert all(found.get("alt") for tag, found in shown.tags if tag == "img")


def test_a_clinician_is_answered_first(done: Project) -> None:
    text = read(write_report(done)).text
    assert "How many cases? 3 1 labelled by people, 2 to be labelled" in text
    assert "What waits for review? 2 of 2 most uncertain first: c, b" in text
    assert "Did the labels settle? not yet Dice 0.970 between the labels of rounds 0 and 1" in text
    assert "not measured no references; network and SAM2 agree with Dice 0.800" in text


def test_review_and_settling_change_the_answers(done: Project) -> None:
    for case in done.cases("unlabelled"):
        Review(done).accept(case, reviewer="Ada")
    done.journal.finish_round(1, {"stability": 0.995})
    text = read(write_report(done)).text
    assert "What waits for review? nothing all 2 proposals are decided" in text
    assert "Did the labels settle? yes" in text


def test_the_answers_say_no_more_than_the_rounds_did(done: Project) -> None:
    for case in done.cases("unlabelled"):
        Review(done).accept(case, reviewer="Ada")
    done.add_case("late", small_image(7), None)
    done.add_case("checked", small_image(8), small_labels(), role="validation")
    done.journal.finish_round(0, {"stability": 0.9, "validation": {"pseudo_label": {"dice": 0.5, "missed": 0}}, "validation_cases": 1})
    done.journal.finish_round(1, {"stability": 0.9001, "converged": True})
    done.add_case("more", small_image(9), small_labels(), role="validation")
    text = read(write_report(done)).text
    assert "all 2 proposals are decided; 1 case without a proposal yet" in text
    assert "Did the labels settle? yes Dice 0.900" in text and "or where that grows no more" in text
    assert "against 1 validation case of the project" in text


def test_scores_stand_where_references_are(done: Project, tmp_path: Path) -> None:
    for name in ("b", "c"):
        write_label_map(tmp_path / "references" / f"{name}.nii.gz", small_labels())
    references = tmp_path / "references"
    assert read(write_report(done, evaluation=evaluate(done, references))).count("path", "dashed") == 0
    shown = read(write_report(done, evaluation=evaluate(done, references), references=references))
    assert shown.count("path", "dashed") > 0, "references are drawn over the pseudo-labels"
    assert "How good are the labels? Dice 1.000 pseudo-labels of round 1 against 2 references" in shown.text
    assert "that the loop never saw; those of round 0 had 1.000; 0 structures missed" in shown.text, "pseudo-labels, not the network"
    assert "Dice with the reference 1.000" in shown.text


def test_the_headline_is_of_the_cases_that_no_person_touched(done: Project, tmp_path: Path) -> None:
    half = np.where(TRUE == 2, 0, TRUE)  # every label map of c lacks one of the two labels
    write_round(done, 0, done.case("c"), pseudo_label=half)
    write_round(done, 1, done.case("c"), pseudo_label=half)
    Review(done).correct(done.case("b"), small_labels(), reviewer="Ada", round=0)  # before round 1, which has it from her
    for name in ("b", "c"):
        write_label_map(tmp_path / "references" / f"{name}.nii.gz", small_labels())
    text = read(write_report(done, evaluation=evaluate(done, tmp_path / "references"))).text
    assert "How good are the labels? Dice 0.500 pseudo-labels of round 1 against 1 reference that the loop never saw" in text
    assert "(over all 2, those too in which people had a hand: 0.750); those of round 0 had 0.500" in text
    assert "With people’s" in text
    assert "1 case with a reference in which people had a hand before the newest round" in text


def test_where_people_touched_every_case_the_loop_is_not_measured(done: Project, tmp_path: Path) -> None:
    write_label_map(tmp_path / "references" / "b.nii.gz", small_labels())
    Review(done).correct(done.case("b"), small_labels(), reviewer="Ada", round=0)
    text = read(write_report(done, evaluation=evaluate(done, tmp_path / "references"))).text
    assert "How good are the labels? not measured only 1 reference of cases in all of which people had a hand" in text
    assert "with their help the pseudo-labels of round 1 have Dice 1.000" in text


def test_an_evaluation_that_lacks_much_is_shown_with_its_gaps(done: Project, tmp_path: Path) -> None:
    write_label_map(tmp_path / "references" / "b.nii.gz", small_labels())
    write_label_map(tmp_path / "references" / "Jane_Doe.nii.gz", small_labels())
    text = read(write_report(done, evaluation=evaluate(done, tmp_path / "references"))).text
    assert "1 case without a reference" in text
    assert "1 reference that fit no case" in text
    assert "Jane_Doe" not in text


def test_validation_cases_are_scores_too(done: Project) -> None:
    done.add_label(done.case("c"), small_labels())
    done.set_role("c", "validation")
    done.journal.finish_round(1, {"validation": {"pseudo_label": {"dice": 0.75, "hd95_mm": 3.0, "missed": 1}}})
    shown = read(write_report(done))
    assert "Dice 0.750 pseudo-labels of round 1 against 1 validation case of the project (older rounds kept no record" in shown.text
    assert "never trained on" not in shown.text, "older versions kept no record"
    assert "1 structure missed" in shown.text
    assert shown.count("path", "dashed") > 0  # its reference is drawn over the pseudo-label


def test_never_trained_on_is_said_only_of_cases_that_nothing_learned_from(done: Project) -> None:
    done.add_case("checked", small_image(8), small_labels(), role="validation")
    for round in range(2):
        note_training(done, round, ["a", "b"], ["a"])
        done.journal.finish_unit(round, "training", "", [])
        scores = {"pseudo_label": {"dice": 0.5 + 0.1 * round, "hd95_mm": 3.0, "missed": 0}}
        done.journal.finish_round(round, {"validation": scores, "validation_cases": 1, "validation_scored": ["checked"]})
    source = "against 1 validation case of the project, never trained on"
    text = read(write_report(done)).text
    assert f"Dice 0.600 pseudo-labels of round 1 {source}; those of round 0 had 0.500" in text
    done.set_role("a", "validation")
    write_round(done, 1, done.case("a"), pseudo_label=TRUE, numbers={"uncertainty": 0.9})
    text = read(write_report(done)).text
    assert f"{source}, without a, which the models learned from" in text
    assert "role validation, but rounds 0 and 1 learned from it" in text


def test_scores_of_other_cases_are_not_compared(done: Project) -> None:
    for round, cases in enumerate((["x"], ["x", "y"])):
        scores = {"pseudo_label": {"dice": 0.5, "hd95_mm": 3.0, "missed": 0}}
        done.journal.finish_round(round, {"validation": scores, "validation_cases": len(cases), "validation_scored": cases})
    assert "those of round 0 had" not in read(write_report(done)).text


def test_key_frames_are_shown_with_their_prompts(done: Project) -> None:
    shown = read(write_report(done))
    assert "Slice 2 of 0 to 5, S 105.1 mm : key frame of anterior" in shown.text
    assert "Slice 4 of 0 to 5, S 110.1 mm : the slice with most doubt" in shown.text
    assert shown.count("circle", "inside") == 1
    assert shown.count("path", "box") == 1
    assert shown.text.count("no prompt here") == 2  # the most doubtful slices of both cases


def test_a_case_without_a_key_frame_shows_its_most_doubtful_slice(done: Project) -> None:
    text = read(write_report(done)).text
    only = text[text.index("uncertainty rank 1 of 2") : text.index("uncertainty rank 2 of 2")]
    assert only.count("Slice ") == 1
    assert "Slice 4 of 0 to 5" in only


def test_an_empty_border_slice_full_of_doubt_is_not_the_most_doubtful(done: Project) -> None:
    structures = np.zeros(TRUE.shape, np.uint8)
    structures[0:2, 4:6, 3:5] = 1
    doubt = np.zeros(TRUE.shape)
    doubt[5], doubt[1, 4, 3] = 0.9, 0.8
    write_round(done, 1, done.case("c"), coarse=structures, pseudo_label=structures, uncertainty=doubt, prompts=[])
    text = read(write_report(done)).text
    assert "Slice 1 of 0 to 5, S 102.6 mm : the slice with most doubt" in text


def test_slices_are_shown_in_the_plans_orientation(done: Project) -> None:
    write_plan(done.plan_path, Plan(classes=2, orientation="PSL"))
    assert "of 0 to 9, " in read(write_report(done)).text  # ten rows are ten slices now


def test_no_path_and_no_name_of_a_patient_comes_in(tmp_path: Path) -> None:
    settings = replaced(Settings(name="study", labels=(label_of(1), label_of(2))), "foundation.weights", "/home/ada/w/mine.pt")
    with Project.create(tmp_path / "Jane_Doe" / "project", settings) as project:
        project.add_case("case_0001", small_image(1), source="Jane_Doe.nii.gz", details={"patient": "Jane_Doe"})
        bad = project.add_case("case_0002", small_image(2))
        project.set_aside(bad, "case_0002: cannot read /data/Jane_Doe/scan 3/image.nrrd.")
        project.journal.note("set aside", "Jane_Doe.nii.gz: no image.")
        write_round(project, 0, project.case("case_0001"), pseudo_label=TRUE)
        project.journal.finish_round(0, {"provenance": {"weights": "C:\\Users\\Jane_Doe\\mine.pt", "seed": 3}})
        Review(project).reject(project.case("case_0001"), reviewer="Ada", reason="see /data/Jane_Doe/notes.txt")
        html = write_report(project).read_text(encoding="utf-8")
    assert "Jane_Doe" not in html
    assert "/home/ada" not in html
    text = Page(html).text
    assert "cannot read image.nrrd." in text
    assert "SAM2 weights mine.pt" in text
    assert "Not imported because unusable: 1 file" in text


def test_what_people_wrote_is_text_and_never_markup(project: Project) -> None:
    write_round(project, 0, project.case("b"), pseudo_label=TRUE)
    project.journal.finish_round(0, {})
    Review(project).accept(project.case("b"), reviewer="<i>Ada</i>", comment="<script>alert(1)</script> a/b 1 / 2")
    shown = read(write_report(project))
    assert "script" not in {tag for tag, _ in shown.tags}
    assert "<script>alert(1)</script> a/b 1 / 2" in shown.text
    assert "<i>Ada</i>" in shown.text


def test_a_foreign_file_is_never_written_over(done: Project, tmp_path: Path) -> None:
    write_report(done, tmp_path / "report.html")
    write_report(done, tmp_path / "report.html")
    (tmp_path / "thesis.txt").write_text("years of work")
    for path in (tmp_path / "thesis.txt", done.folder / "project.toml"):
        before = path.read_bytes()
        with pytest.raises(ProjectError, match="is no report; it is kept"):
            write_report(done, path)
        assert path.read_bytes() == before


def test_decisions_and_disagreement_are_listed(done: Project) -> None:
    review = Review(done)
    review.accept(done.case("b"), reviewer="Ada")
    review.correct(done.case("b"), small_labels(1), reviewer="Grace")
    review.accept(done.case("c"), reviewer="Ada", segments=(2,), slices=(2, 3))
    review.reject(done.case("c"), reviewer="Ada")
    review.take_back_last()
    text = read(write_report(done)).text
    assert "b corrected the whole case 1 Grace" in text
    assert "c accepted posterior 2 slices 1 Ada" in text
    assert "Taken back since: 1." in text
    assert "Ada and Grace accepted and corrected differ 0.500 0.500" in text


def test_changed_settings_plan_and_provenance_are_told(done: Project) -> None:
    done.change_settings(replaced(done.settings, "memory.mode", "G1"))
    write_plan(done.plan_path, Plan(classes=2, patch=(1, 96, 80)))
    for round in range(2):
        done.journal.finish_round(round, {"provenance": {"seed": round, "packages": {"torch": "2.15.0"}}})
    text = read(write_report(done)).text
    assert "memory.mode G1 G1+G2" in text
    assert "1, 96, 80" in text
    assert "round 0 round 1 seed 0 1 torch 2.15.0 2.15.0" in text


def test_a_file_that_was_not_imported_is_counted_once_and_while_it_is_not(done: Project) -> None:
    for name in ("x", "x", "y", "DICOM series of s/00.dcm (5 files)"):
        done.journal.note("set aside", f"{name}: the file is empty (0 bytes).")
    assert "Not imported because unusable: 3 files" in read(write_report(done)).text
    for name in ("y", "DICOM series of s/00.dcm"):
        done.journal.note("taken after all", name)
    assert "Not imported because unusable: 1 file." in read(write_report(done)).text


def test_a_plan_that_cannot_be_read_does_not_prevent_the_report(done: Project) -> None:
    done.plan_path.write_text("this is not TOML", encoding="utf-8")
    assert "What the software decided" not in read(write_report(done)).text


def test_a_changed_file_is_named_and_the_others_are_shown(done: Project) -> None:
    write_label_map(done.artefact(1, "b", PROPOSAL), small_labels(1))
    shown = read(write_report(done))
    assert f"No pictures: b: {PROPOSAL} of round 1 is missing or was changed." in shown.text
    assert shown.count("svg", "slice") == 6  # one row of the other case


def test_a_project_without_rounds_has_a_page(project: Project) -> None:
    text = read(write_report(project)).text
    assert "No round is finished yet" in text
    assert "no round has proposed labels" in text


def test_colour_pictures_are_shown_in_colour(tmp_path: Path) -> None:
    planar = Geometry((1, 10, 8), planar=True)
    with Project.create(tmp_path / "project", Settings(labels=(label_of(1), label_of(2)))) as project:
        project.add_case("picture", Volume(np.full((1, 10, 8, 3), (200, 30, 40), np.uint8), planar))
        flat = TRUE[2:3]
        write_round(project, 0, project.case("picture"), coarse=flat, pseudo_label=flat, uncertainty=np.zeros(flat.shape))
        project.journal.finish_round(0, {})
        shown = read(write_report(project))
    assert "The whole picture : nothing here prompted SAM2" in shown.text
    assert shown.text.count("not made") == 1  # there is no propagated mask
    assert shown.count("path", "key-frame") == 0


def test_the_same_cases_are_drawn_by_lot_again(tmp_path: Path) -> None:
    with Project.create(tmp_path / "project", Settings(labels=(label_of(1), label_of(2)), seed=7)) as project:
        for n in range(9):
            case = project.add_case(f"case{n}", small_image(n))
            write_round(project, 0, case, pseudo_label=TRUE, numbers={"uncertainty": n / 10})
        project.journal.finish_round(0, {})
        first, second = (page.rendered(project) for _ in range(2))
    assert re.sub(r"20\d\d-[\d:\- ]+", "", first) == re.sub(r"20\d\d-[\d:\- ]+", "", second)
    shown = re.findall(r"<h3>(case\d)</h3>", first)
    assert shown[:3] == ["case8", "case7", "case6"]
    assert len(shown) == 6


def test_without_vtk_the_page_says_that_surfaces_are_missing(done: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vtkmodules", None)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "vtkmodules" else real(name, *rest))
    shown = read(write_report(done))
    assert "the package vtk is not installed" in shown.text
    assert shown.values("src") == []


def test_without_jinja_the_cure_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "jinja2" else real(name, *rest))
    with pytest.raises(MissingPackageError, match="pip install jinja2"):
        write_report(project)


def test_a_project_open_for_reading_is_reported_elsewhere(done: Project, tmp_path: Path) -> None:
    done.close()
    with Project.open(done.folder, read_only=True) as reopened:
        with pytest.raises(ProjectError, match="reading only"):
            write_report(reopened)
        assert write_report(reopened, tmp_path / "there.html") == tmp_path / "there.html"
    assert not (done.folder / "report.html").exists()


def test_large_noisy_volumes_give_a_small_file(tmp_path: Path) -> None:
    geometry = Geometry((2, 400, 400))
    rng = np.random.default_rng(0)
    labels = np.zeros(geometry.size, np.uint8)
    labels[:, 40:360, 40:360] = 1
    with Project.create(tmp_path / "project", Settings(labels=(label_of(1),))) as project:
        case = project.add_case("large", Volume(rng.integers(0, 3000, geometry.size, dtype=np.int16), geometry))
        layers: dict[str, Any] = dict.fromkeys(("coarse", "propagated", "pseudo_label"), labels)
        prompts = [prompt(geometry, 1, z, (40, 40, 360, 360), (200, 200)) for z in range(2)]
        write_round(project, 0, case, uncertainty=rng.random(geometry.size), prompts=prompts, **layers)
        project.journal.finish_round(0, {})
        size = write_report(project).stat().st_size
    assert size < 10e6 / 24 * 2  # a report shows at most 24 slices
