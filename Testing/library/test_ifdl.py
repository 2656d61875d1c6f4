"""IFDL on generated and real volumes: the checks of the method that need the whole of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from slice_choices import SliceChoices
from small_projects import CPU, run_rounds, shipped_weights, small_project, tiny_weights

from SAM2IterativeLib.dedicated.cases import prepare_case
from SAM2IterativeLib.dedicated.prediction import Predictor
from SAM2IterativeLib.dedicated.training import Task, train
from SAM2IterativeLib.dedicated.weights import load_weights
from SAM2IterativeLib.evaluation import evaluate
from SAM2IterativeLib.foundation.checkpoints import load_foundation
from SAM2IterativeLib.foundation.features import Window, encode_volume
from SAM2IterativeLib.foundation.propagation import Guidance, Propagator
from SAM2IterativeLib.geometry import Geometry
from SAM2IterativeLib.iteration import Iteration
from SAM2IterativeLib.methods import load_method, method_names
from SAM2IterativeLib.methods.ifdl import IFDL
from SAM2IterativeLib.methods.method import RunContext
from SAM2IterativeLib.methods.training_set import training_cases
from SAM2IterativeLib.methods.working_grid import WorkingGrid
from SAM2IterativeLib.metrics import class_dice
from SAM2IterativeLib.phantom import phantom_case
from SAM2IterativeLib.project import Project, load_arrays, load_probabilities
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.settings import DedicatedSettings, FoundationSettings, Label, MemorySettings, Settings, replaced
from SAM2IterativeLib.volumes import LabelMap, read_label_map, read_volume

pytestmark = pytest.mark.usefixtures("one_thread")


def test_methods_are_found_by_their_file_name() -> None:
    assert "ifdl" in method_names() and "method" not in method_names()
    assert load_method("ifdl").stages == ("coarse", "propagation", "pseudo_label")


@pytest.mark.parametrize("orientation", ["SPL", "SAR", "LSP"])
def test_the_working_grid_turns_there_and_back(orientation: str) -> None:
    geometry = Geometry((4, 5, 6), (3.0, 1.0, 2.0), (10.0, -5.0, 2.0), (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, -1.0))
    grid = WorkingGrid(geometry, orientation)
    array = np.arange(120).reshape(4, 5, 6)
    turned = grid.turned(array)
    assert np.array_equal(grid.turned_back(turned), array)
    index = np.array([1, 2, 1])
    value = turned[tuple(index)]
    own = np.argwhere(array == value)[0]
    assert np.allclose(grid.ras_of(index[None])[0], geometry.ras_of(own))


def test_files_of_a_round_fit_together(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "p", weights) as project:
        run_rounds(project, 1)
        case = project.case("case_2")
        image = project.read_case_image(case)
        history = load_probabilities(project.artefact(1, case, "history.npz"))
        assert history.shape == (3, *image.array.shape) and np.allclose(history.sum(0), 1, atol=1e-5)
        doubt = read_volume(project.artefact(1, case, "uncertainty.nii.gz")).array
        assert doubt.dtype == np.float32 and doubt.min() >= 0 and doubt.max() <= 1
        for name in ("coarse", "propagated", "pseudo_label"):
            labels = read_label_map(project.artefact(1, case, f"{name}.nii.gz"))
            assert labels.geometry.mismatch(image.geometry) is None and set(labels.values) <= {1, 2}
        prompts = json.loads(project.artefact(1, case, "prompts.json").read_text())
        assert prompts["coordinates"] == "RAS mm"
        shares = load_arrays(project.artefact(1, case, "weights.npz"))["weights"]
        assert shares.shape == image.array.shape


@pytest.mark.parametrize("mode", ["G0", "G1", "G1+G2"])
def test_every_memory_mode_runs(tmp_path: Path, weights: Path, mode: str) -> None:
    with small_project(tmp_path / "p", weights, unlabelled=1) as project:
        project.change_settings(replaced(project.settings, "memory.mode", mode))
        Iteration(project, CPU, lambda m: None).run(1)
        assert project.artefact(1, "case_2", "propagated.nii.gz").is_file()


def test_rounds_use_the_volumes_that_agree_best(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "p", weights, unlabelled=4) as project:
        run_rounds(project, 1)
        run = RunContext(project, Iteration(project, CPU, lambda m: None).plan(), CPU, lambda m: None)
        shares = [IFDL(run).share_learned(round) for round in range(6)]
        assert shares == [0, 0.5, 0.75, 1, 1, 1]
        names = ["case_2", "case_3", "case_4", "case_5"]
        agreements = {name: project.journal.numbers(1, name)["agreement"] or 0.0 for name in names}
        learned = [case.name for case in training_cases(run, 2, 0.5) if not case.labelled]
        assert learned == sorted(names, key=lambda name: -agreements[name])[:2] and agreements[learned[-1]] > 0


def test_partly_reviewed_slices_become_exact_prompts(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "p", weights, unlabelled=1) as project:
        run_rounds(project, 1)
        case = project.case("case_2")
        image = project.read_case_image(case)
        drawn = np.zeros(image.array.shape, np.uint8)
        drawn[3, 8:20, 8:20] = 1
        Review(project).correct(case, LabelMap(drawn, image.geometry), reviewer="A", slices=[3])
        run_rounds(project, 1)
        prompts = json.loads(project.artefact(2, case, "prompts.json").read_text())["prompts"]
        assert [(p["label"], p["slice"]) for p in prompts if p["reviewed"]] == [(1, 3)]
        proposal = Review(project).proposal(case)[1].array
        assert (proposal[3] == drawn[3]).all()


def test_what_a_person_erased_is_neither_prompted_nor_proposed_again(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "p", weights, unlabelled=1, size=(12, 48, 48), steps=60) as project:
        run_rounds(project, 1)
        case, first = project.case("case_2"), project.values[0]
        proposal = Review(project).proposal(case)[1]
        claimed = [int(k) for k in np.flatnonzero((proposal.array == first).any(axis=(1, 2)))]
        assert len(claimed) > 3
        erased = claimed[1:]
        labels = proposal.array.copy()
        labels[erased] = np.where(labels[erased] == first, 0, labels[erased])
        Review(project).correct(case, LabelMap(labels, proposal.geometry), reviewer="A", segments=[first], slices=erased)
        run_rounds(project, 1)
        prompts = json.loads(project.artefact(2, case, "prompts.json").read_text())["prompts"]
        assert not [p for p in prompts if p["label"] == first and p["slice"] in erased]
        assert not (Review(project).proposal(case)[1].array[erased] == first).any()


@pytest.mark.parametrize("count", [3, 12])
def test_the_first_history_leaves_out_the_last_snapshot_alone(tmp_path: Path, weights: Path, count: int) -> None:
    """The last snapshot is the network itself, which is counted already."""
    with small_project(tmp_path / "p", weights, unlabelled=1, steps=40) as project:
        project.change_settings(replaced(project.settings, "dedicated.snapshots", count))
        method = IFDL(RunContext(project, Iteration(project, CPU, lambda m: None).plan(), CPU, lambda m: None))
        method.train(0, lambda fraction, text: None)
        files = [path.name for path in method.history_files(0)]
        assert files == ["round_0.safetensors", *(f"round_0_snapshot_{n}.safetensors" for n in range(count - 1))]


def test_a_volume_without_key_frames_is_labelled_through_the_labelled_cases() -> None:
    """The anatomical prior: no prompt at all, memories of two other individuals only."""
    foundation = load_foundation(shipped_weights(), CPU)
    propagator = Propagator(foundation.model, CPU, MemorySettings())
    support = []
    for seed in (0, 1):
        image, label = phantom_case(seed)
        volume = encode_volume(foundation, image.array, Window.around(label.array > 0), CPU)
        support += propagator.support_entries(f"case_{seed}", volume, label.array, 2)
    image, label = phantom_case(5)
    volume = encode_volume(foundation, image.array, Window.around(label.array > 0), CPU)
    result = propagator.propagate(volume, Guidance(2, {}), support)
    found = result.probabilities().argmax(0)
    assert not result.abstained
    overlap = 2 * np.sum((found == 1) & (label.array == 1)) / (np.sum(found == 1) + np.sum(label.array == 1))
    assert overlap > 0.2


def test_in_a_round_too_labelled_cases_label_a_volume_without_key_frames(tmp_path: Path) -> None:
    """A network of 20 steps, none of whose slices is sure enough: by memories alone SAM2 finds more than the network."""
    size = (24, 64, 64)
    with small_project(tmp_path / "p", shipped_weights(), unlabelled=1, size=size, steps=20) as project:
        settings = replaced(project.settings, "key_frames.minimum_confidence", 1.0)
        project.change_settings(replaced(settings, "prompts.dense", "none"))
        run_rounds(project, 1)
        case, truth = project.case("case_2"), phantom_case(2, size=size)[1].array
        assert json.loads(project.artefact(0, case, "prompts.json").read_text())["prompts"] == []

        def score(name: str) -> float:
            return float(np.mean(class_dice(read_label_map(project.artefact(0, case, f"{name}.nii.gz")).array, truth, 2)))

        assert score("propagated") > max(0.3, score("coarse") + 0.1), (score("propagated"), score("coarse"))


@pytest.fixture(scope="module")
def hippocampi(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Real volumes after rounds 0 and 1: three labelled hippocampi, six unlabelled, few steps."""
    torch.set_num_threads(1)  # before any test's own fixture
    folder = tmp_path_factory.mktemp("hippocampi")
    files = sorted((real_data / "hippocampus" / "images").iterdir())
    settings = Settings(
        labels=(Label(1, "anterior"), Label(2, "posterior")),
        dedicated=DedicatedSettings(first_steps=90, round_steps=1, batch=8),
        foundation=FoundationSettings(weights=str(tiny_weights(folder)), adaptation_steps=0),
    )
    with Project.create(folder / "p", settings) as project:
        for number, path in enumerate(files[:9]):
            label = read_label_map(real_data / "hippocampus" / "labels" / path.name) if number < 3 else None
            project.add_case(path.name.split(".")[0], read_volume(path), label)
        run_rounds(project, 1)
        yield project


def test_uncertainty_tells_errors_on_real_volumes(hippocampi: Project, real_data: Path) -> None:
    """Spearman(U(z, c), 1 - Dice to the hidden reference) > 0.3, method's table."""
    scores = evaluate(hippocampi, real_data / "hippocampus" / "labels")
    assert scores["rounds"][0]["uncertainty_error_spearman"] > 0.3


def test_key_frames_are_truer_than_other_slices_of_real_volumes(hippocampi: Project, real_data: Path) -> None:
    """Of the history of a network that a few steps trained (mean true Dice; seeds 0 to 2: 0.75 to 0.82, others 0.40 to 0.73)."""
    choices = SliceChoices(hippocampi.settings.key_frames)
    orientation = Iteration(hippocampi, CPU, lambda m: None).plan().orientation
    for case in hippocampi.cases():
        if case.role != "unlabelled":
            continue
        reference = read_label_map(real_data / "hippocampus" / "labels" / f"{case.id}.nii.gz")
        grid = WorkingGrid(reference.geometry, orientation)
        history = grid.turned(load_probabilities(hippocampi.artefact(1, case, "history.npz")))
        key_frames: dict[int, tuple[int, ...]] = {}
        for prompt in json.loads(hippocampi.artefact(1, case, "prompts.json").read_text())["prompts"]:
            key_frames[prompt["label"]] = (*key_frames.get(prompt["label"], ()), prompt["slice"])
        choices.add(history.argmax(0), grid.turned(reference.array), key_frames)
    mean = choices.means()
    assert mean["key"] > max(mean["random"], mean["middle"], mean["largest"]) + 0.02, mean


def test_training_sees_only_what_it_may(tmp_path: Path, weights: Path) -> None:
    """Round 0's network equals one that was trained on the labelled cases outside the project, whatever else lies in it."""
    with small_project(tmp_path / "p", weights, unlabelled=2) as project:
        iteration = Iteration(project, CPU, lambda m: None)
        run = RunContext(project, iteration.plan(), CPU, lambda m: None)
        project.add_label(project.case("case_3"), phantom_case(3, size=(8, 32, 32))[1])
        project.set_role("case_3", "unlabelled")
        load_method("ifdl")(run).train(0, lambda fraction, text: None)
        phantoms = [(n, *phantom_case(n, size=(8, 32, 32))) for n in (0, 1)]
        cases = [prepare_case(f"case_{n}", image.array, image.geometry, run.plan, label.array) for n, image, label in phantoms]
        alone = train(Task(run.plan, cases, CPU, 0)).weights
        kept = load_weights(project.models_folder / "round_0.safetensors")[0]
        assert all(torch.equal(alone[name], kept[name]) for name in alone)
        image = project.read_case_image(project.case("case_2"))
        assert Predictor(run.plan, kept, CPU).predict(image.array, image.geometry).shape == (3, *image.array.shape)
