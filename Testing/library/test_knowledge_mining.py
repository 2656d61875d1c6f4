"""Knowledge Mining on generated volumes and colour pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from small_projects import CPU, artefact_hashes, run_rounds, shipped_weights, small_project
from typer.testing import CliRunner

from SAM2IterativeLib.cli import app
from SAM2IterativeLib.dedicated.weights import load_weights, save_weights
from SAM2IterativeLib.errors import SettingsError, Stopped
from SAM2IterativeLib.geometry import Geometry
from SAM2IterativeLib.iteration import Iteration
from SAM2IterativeLib.messages import Message, StageFinished, StageStarted
from SAM2IterativeLib.methods import load_method, method_names
from SAM2IterativeLib.methods.knowledge_mining import KnowledgeMining
from SAM2IterativeLib.methods.method import RunContext
from SAM2IterativeLib.methods.network_method import weights_path
from SAM2IterativeLib.methods.training_set import training_cases
from SAM2IterativeLib.metrics import class_dice
from SAM2IterativeLib.project import Project, load_arrays
from SAM2IterativeLib.report import write_report
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.round_method import method_of_round, method_under_way
from SAM2IterativeLib.settings import DedicatedSettings, FoundationSettings, Label, Settings, replaced
from SAM2IterativeLib.volumes import LabelMap, Volume, read_label_map, read_volume

FLAT = Geometry((1, 64, 64), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


pytestmark = pytest.mark.usefixtures("one_thread")


def mining_project(folder: Path, weights: str | Path, **options: int) -> Project:
    project = small_project(folder, weights, **options)
    project.change_settings(replaced(project.settings, "method", "knowledge_mining"))
    return project


def polyps(seed: int) -> tuple[Volume, LabelMap]:
    """A colour picture as of an endoscope, made up: one or two reddish polyps on a pink wall with light and shade."""
    random = np.random.default_rng(seed)
    rows, columns = np.indices((64, 64))
    inside = np.zeros((64, 64), bool)
    for row, column in [(18, 20), (45, 44)][: 1 + seed % 2]:
        row, column, radius = row + random.normal(0, 4), column + random.normal(0, 4), random.uniform(7, 12)
        inside |= ((rows - row) / radius) ** 2 + ((columns - column) / (0.8 * radius)) ** 2 < 1
    light = ndimage.gaussian_filter(random.normal(0, 1, (64, 64)), 10)
    colour = np.array([205.0, 130.0, 120.0]) + 40 * (light / light.std())[..., None] * 0.5
    colour = colour + inside[..., None] * np.array([20.0, -45.0, -40.0]) + random.normal(0, 6, (64, 64, 3))
    return Volume(colour.clip(0, 255).astype(np.uint8)[None], FLAT), LabelMap(inside[None].astype(np.uint8), FLAT)


def polyp_project(folder: Path, weights: str | Path, steps: int) -> Project:
    settings = Settings(
        method="knowledge_mining",
        labels=(Label(1, "polyp"),),
        dedicated=DedicatedSettings(first_steps=steps, round_steps=max(1, steps // 2), batch=4),
        foundation=FoundationSettings(weights=str(weights)),
    )
    project = Project.create(folder, settings)
    for number in range(9):
        image, label = polyps(number)
        project.add_case(f"picture_{number}", image, label if number < 4 else None)
    return project


def labels_of(project: Project, round: int, case: str, name: str) -> np.ndarray:
    return read_label_map(project.artefact(round, project.case(case), f"{name}.nii.gz")).array


def test_it_is_a_method_with_a_network_of_its_own(tmp_path: Path, weights: Path) -> None:
    assert "knowledge_mining" in method_names() and load_method("knowledge_mining") is KnowledgeMining
    with mining_project(tmp_path / "p", weights) as project:
        plan = Iteration(project, CPU, lambda m: None).plan()
        assert (plan.network, len(plan.strides)) == ("unetplusplus", 5)
    with mining_project(tmp_path / "q", weights) as project:
        project.change_settings(replaced(project.settings, "dedicated.network", "unet2d"))
        assert Iteration(project, CPU, lambda m: None).plan().network == "unet2d", "unless a person wants another"


def test_files_of_a_round_fit_together(tmp_path: Path, weights: Path) -> None:
    with mining_project(tmp_path / "p", weights, steps=40) as project:
        run_rounds(project, 1)
        numbers = project.journal.rounds()[1]
        assert 0 <= numbers["uncertainty"] <= 1 and 0 <= numbers["agreement"] <= 1 and 0 <= numbers["foundation_share"] <= 1
        assert numbers["stability"] is not None
        for name in ("case_2", "case_3"):
            case = project.case(name)
            image = project.read_case_image(case)
            doubt = read_volume(project.artefact(1, case, "uncertainty.nii.gz")).array
            assert doubt.shape == image.array.shape and doubt.min() >= 0 and doubt.max() <= 1
            assert (load_arrays(project.artefact(1, case, "weights.npz"))["weights"] == 255).all(), "every voxel teaches alike"
            assert set(np.unique(labels_of(project, 1, name, "pseudo_label"))) <= {0, 1, 2}
            prompts = json.loads(project.artefact(1, case, "prompts.json").read_text())["prompts"]
            assert all(len(prompt["box"]) == 4 and len(prompt["positive"]) == 1 and not prompt["negative"] for prompt in prompts)
        assert not list(project.models_folder.glob("*snapshot*")) and not (project.folder / "models" / "adapted.safetensors").exists()


@pytest.mark.parametrize(("acceptance", "source"), [(1.0, "coarse"), (0.0, "propagated")])
def test_what_does_not_fit_is_not_taken(tmp_path: Path, weights: Path, acceptance: float, source: str) -> None:
    """With 1.0 the network's own masks are kept, since random weights fit nothing exactly; with 0 SAM2's are taken, unfit as they are."""
    with mining_project(tmp_path / "p", weights, steps=40, unlabelled=1) as project:
        settings = replaced(project.settings, "knowledge_mining.acceptance", acceptance)
        project.change_settings(replaced(settings, "key_frames.minimum_area", 1))
        run_rounds(project, 1)
        assert labels_of(project, 0, "case_2", "coarse").any()
        assert np.array_equal(labels_of(project, 0, "case_2", "pseudo_label"), labels_of(project, 0, "case_2", source))
        assert project.journal.numbers(0, "case_2")["foundation_share"] == pytest.approx(1 - acceptance, abs=0.05), "but for single pixels"


def test_all_images_but_rejected_ones_are_learned_from(tmp_path: Path, weights: Path) -> None:
    with mining_project(tmp_path / "p", weights, steps=40, unlabelled=4) as project:
        run_rounds(project, 1)
        Review(project).reject(project.case("case_3"), reviewer="A", reason="wrong organ")
        run = RunContext(project, Iteration(project, CPU, lambda m: None).plan(), CPU, lambda m: None)
        learned = {case.name for case in training_cases(run, 2, KnowledgeMining(run).share_learned(2))}
        assert learned == {"case_0", "case_1", "case_2", "case_4", "case_5"}


def test_stopped_after_every_unit_it_ends_with_the_same_files(tmp_path: Path, weights: Path) -> None:
    with mining_project(tmp_path / "whole", weights) as project:
        run_rounds(project, 1)
        whole = artefact_hashes(project)
    seen: list[Message] = []
    with mining_project(tmp_path / "parts", weights) as project:
        for count in range(1, 100):
            try:
                Iteration(project, CPU, seen.append, lambda count=count: sum(isinstance(m, StageFinished) for m in seen) >= count).run(1)
                break
            except Stopped:
                continue
        assert artefact_hashes(project) == whole and count > 10


def test_a_stop_between_two_pieces_leaves_nothing_behind(tmp_path: Path, weights: Path) -> None:
    with mining_project(tmp_path / "whole", weights, steps=40, unlabelled=1) as project:
        run_rounds(project, 1)
        whole = artefact_hashes(project)
    with mining_project(tmp_path / "parts", weights, steps=40, unlabelled=1) as project:
        asked: list[Message] = []

        def stop() -> bool:
            begun = [m for m in asked if isinstance(m, StageStarted) and m.stage == "propagation"]
            stop.calls += bool(begun)  # type: ignore[attr-defined]
            return stop.calls == 4  # type: ignore[attr-defined]

        stop.calls = 0  # type: ignore[attr-defined]
        with pytest.raises(Stopped):
            Iteration(project, CPU, asked.append, stop).run(1)
        assert project.journal.unit(0, "propagation", "case_2") is None
        run_rounds(project, 1)
        assert artefact_hashes(project) == whole


def test_methods_may_change_between_rounds_but_not_within_one(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "p", weights) as project:
        run_rounds(project, 1)
        messages: list[Message] = []
        project.change_settings(replaced(project.settings, "method", "knowledge_mining"))
        run_rounds(project, 1, messages)
        assert project.journal.rounds()[2]["stability"] is not None, "both propose label maps, which can be compared"
        assert any("plan.toml was made for a unet2d" in getattr(m, "sentence", "") for m in messages)
        assert [method_of_round(project, round) for round in (0, 1, 2)] == ["ifdl", "ifdl", "knowledge_mining"]
        project.change_settings(replaced(project.settings, "method", "ifdl"))
        run_rounds(project, 1, messages)
        assert project.journal.rounds()[3]["stability"] is None, "a history begins anew after a round that had none"
        assert not [m for m in messages if "missing or were changed" in getattr(m, "sentence", "")]
        with pytest.raises(Stopped):
            Iteration(project, CPU, messages.append, lambda: True).run(1)
        project.change_settings(replaced(project.settings, "method", "knowledge_mining"))
        assert method_under_way(project) is None, "nothing is computed yet"
        with pytest.raises(Stopped):
            Iteration(project, CPU, messages.append, lambda: isinstance(messages[-1], StageFinished)).run(1)
        project.change_settings(replaced(project.settings, "method", "ifdl"))
        assert method_under_way(project) == (4, "knowledge_mining")
        with pytest.raises(SettingsError, match=r"round 4 was begun with 'knowledge_mining' and is not finished. Finish that round first"):
            run_rounds(project, 1)
        project.change_settings(replaced(project.settings, "method", "knowledge_mining"))
    refused = CliRunner().invoke(app, ["run", str(tmp_path / "p"), "--method", "ifdl"])
    assert refused.exit_code == 1
    with Project.open(tmp_path / "p", read_only=True) as project:
        assert project.settings.method == "knowledge_mining", "what was refused is not kept"


def test_an_image_in_which_nothing_is_found_prompts_nothing_and_is_not_learned_from(tmp_path: Path, weights: Path) -> None:
    with polyp_project(tmp_path / "p", weights, steps=1) as project:
        iteration = Iteration(project, CPU, lambda m: None)
        run = RunContext(project, iteration.plan(), CPU, lambda m: None)
        method = KnowledgeMining(run)
        method.train(0, lambda fraction, text: None)
        path = weights_path(run, 0)
        tensors, notes = load_weights(path)
        tensors["final_conv_0_4.bias"] = torch.tensor([50.0, -50.0])  # background everywhere
        save_weights(path, tensors, notes)
        case = project.case("picture_5")
        for stage in method.stages:
            method.begin_stage(0, stage)
            outcome = method.process(0, stage, case)
            project.journal.finish_unit(0, stage, case.id, outcome.files, numbers=outcome.numbers)
            method.end_stage()
        assert json.loads(project.artefact(0, case, "prompts.json").read_text())["prompts"] == []
        assert not labels_of(project, 0, "picture_5", "propagated").any() and not labels_of(project, 0, "picture_5", "pseudo_label").any()
        assert (load_arrays(project.artefact(0, case, "weights.npz"))["weights"] == 0).all(), "where every labelled case shows a polyp"
        assert project.journal.numbers(0, "picture_5")["foundation_share"] is None
        assert "picture_5" not in {c.name for c in training_cases(run, 1, method.share_learned(1))}


def test_what_people_decided_of_a_slice_stands_in_the_proposal(tmp_path: Path, weights: Path) -> None:
    with mining_project(tmp_path / "p", weights, steps=40, unlabelled=1, validation=1) as project:
        run_rounds(project, 1)
        case = project.case("case_2")
        drawn = np.zeros(project.read_case_image(case).array.shape, np.uint8)
        drawn[3, 8:20, 8:20] = 1
        Review(project).correct(case, LabelMap(drawn, project.read_case_image(case).geometry), reviewer="A", slices=[3])
        run_rounds(project, 1)
        assert (Review(project).proposal(case)[1].array[3] == drawn[3]).all()
        assert project.journal.rounds()[2]["validation"]["pseudo_label"]["dice"] >= 0


def test_new_pictures_keep_both_polyps_although_the_labelled_ones_show_one(tmp_path: Path, weights: Path) -> None:
    with polyp_project(tmp_path / "p", weights, steps=1) as project:
        for number in (1, 3):
            project.set_role(f"picture_{number}", "excluded")  # those with two
        assert Iteration(project, CPU, lambda m: None).plan().single_component == ()


def test_a_plan_for_this_network_is_checked(tmp_path: Path, weights: Path) -> None:
    with mining_project(tmp_path / "p", weights) as project:
        Iteration(project, CPU, lambda m: None).plan()
        text = project.plan_path.read_text()
        project.plan_path.write_text(text.replace("[1, 2, 2]", "[1, 1, 1]", 1))
        with pytest.raises(SettingsError, match="a unetplusplus has five levels"):
            Iteration(project, CPU, lambda m: None).plan()


def test_the_report_says_what_this_method_did(tmp_path: Path, weights: Path) -> None:
    with mining_project(tmp_path / "p", weights, steps=40) as project:
        run_rounds(project, 1)
        text = write_report(project).read_text(encoding="utf-8")
        assert "of each piece of the coarse mask" in text and "carried from the key frames" not in text
        project.change_settings(replaced(project.settings, "method", "ifdl"))
        assert "of each piece of the coarse mask" in write_report(project).read_text(encoding="utf-8"), "the round was made so"


def test_polyps_in_colour_pictures_are_found(tmp_path: Path) -> None:
    """Four labelled pictures, five others, few steps; the shipped weights of SAM2 as they are."""
    with polyp_project(tmp_path / "p", shipped_weights(), steps=60) as project:
        run_rounds(project, 1)
        for name, least in (("coarse", 0.7), ("propagated", 0.7), ("pseudo_label", 0.75)):
            scores = [class_dice(labels_of(project, 1, f"picture_{n}", name), polyps(n)[1].array, 1)[0] for n in range(4, 9)]
            assert np.mean(scores) > least, (name, scores)
        prompts = json.loads(project.artefact(1, project.case("picture_5"), "prompts.json").read_text())["prompts"]
        assert len(prompts) == 2, "two polyps, two prompt sets"
