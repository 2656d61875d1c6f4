"""dedicated.plan: a file that a person can read and edit, read strictly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from dedicated_cases import PLAN_2D, PLAN_3D

from SAM2IterativeLib.dedicated.plan import AugmentationPlan, Normalisation, Plan, change_plan, read_plan, write_plan
from SAM2IterativeLib.errors import SettingsError


@pytest.mark.parametrize("plan", [PLAN_2D, PLAN_3D, replace(PLAN_2D, normalisation=Normalisation("ct", -160.5, 240, 71.2, 33))])
def test_what_is_written_is_read(tmp_path: Path, plan: Plan) -> None:
    write_plan(tmp_path / "plan.toml", plan)
    assert read_plan(tmp_path / "plan.toml") == plan


def test_every_decision_is_explained(tmp_path: Path) -> None:
    write_plan(tmp_path / "plan.toml", PLAN_2D)
    lines = (tmp_path / "plan.toml").read_text().splitlines()
    decisions = [n for n, line in enumerate(lines) if " = " in line and not line.startswith("#")]
    assert len(decisions) > 40
    assert all(lines[n - 1].startswith("# ") for n in decisions)


def test_an_edit_is_seen_and_changes_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    write_plan(path, PLAN_2D)
    path.write_text(path.read_text().replace("batch = 8", "batch = 12  # more"))
    edited = read_plan(path)
    assert edited.batch == 12
    assert edited.digest != PLAN_2D.digest and len(edited.digest) == 64


def test_comments_do_not_change_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    write_plan(path, PLAN_2D)
    path.write_text("# mine\n" + path.read_text())
    assert read_plan(path).digest == PLAN_2D.digest


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch = 8", "bach = 8", r"unknown setting 'bach'.*Did you mean 'batch'"),
        ("batch = 8", "batch = 0", r"batch: 0 is out of range \[1, 4096\]"),
        ("batch = 8", 'batch = "many"', r"batch: must be int"),
        ("patch = [1, 32, 32]", "patch = [1, 30, 32]", r"must be divisible by the product of the strides, \(1, 4, 4\)"),
        ("patch = [1, 32, 32]", "patch = [4, 32, 32]", r"unet2d must have 1 as the first number"),
        ("features = [8, 16, 32]", "features = [8, 16]", r"one entry per level"),
        ("spacing = [1.0, 1.0, 1.0]", "spacing = [1.0, 0.0, 1.0]", r"must lie between"),
        ('scheme = "zscore"', 'scheme = "minmax"', r"'minmax' is not one of zscore, ct, colour"),
        ("format_version = 1", "format_version = 2", r"newer version"),
        ("batch = 8", "batch = = 8", r"not a TOML file"),
        ("format_version = 1", 'format_version = "a"', r"format_version: must be int"),
        ("spacing = [1.0, 1.0, 1.0]", "spacing = [nan, 1.0, 1.0]", r"must lie between"),
        ("weight_decay = 0.01", "weight_decay = nan", r"nan is out of range"),
        ('orientation = "SPL"', 'orientation = "XYZ"', r"must name each body axis once"),
        ("strides = [[1, 1, 1]", "strides = [[1, 0, 1]", r"must be 1 at least"),
        ("features = [8, 16, 32]", "features = [8, 0, 32]", r"must be 1 at least"),
        ("kernels = [[1, 3, 3]", "kernels = [[1, 2, 3]", r"kernels must be odd"),
        ("strides = [[1, 1, 1]", "strides = [[1, 2, 2]", r"first level's stride"),
        ("mirror_axes = []", "mirror_axes = [5]", r"must be some of 0, 1 and 2"),
        ("scale = [0.7, 1.4]", "scale = [-1.0, 0.0]", r"augmentation\.scale"),
        ("coarse = [0.5, 1.0]", "coarse = [5.0, 9.0]", r"augmentation\.coarse"),
        ("gain = [0.75, 1.25]", "gain = [0.75, inf]", r"augmentation\.gain"),
        ("lower = 0.5", "lower = 99.9", r"lower below upper"),
        ("upper = 99.5", "upper = 500.0", r"percentiles"),
        ("deviation = 1.0", "deviation = inf", r"needs numbers"),
        ('scheme = "zscore"', 'scheme = "colour"', r"not for grey images"),
        ("single_component = []", "single_component = [7]", r"must be some of the 2 classes"),
    ],
)
def test_a_wrong_edit_is_refused_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "plan.toml"
    write_plan(path, PLAN_2D)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(SettingsError, match=message) as caught:
        read_plan(path)
    assert "plan.toml" in str(caught.value)


def test_an_empty_plan_and_one_of_other_labels_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text("")
    with pytest.raises(SettingsError, match="the plan is empty"):
        read_plan(path)
    write_plan(path, PLAN_2D)
    assert read_plan(path, classes=PLAN_2D.classes) == PLAN_2D
    with pytest.raises(SettingsError, match=r"know 2 labels, project\.toml has 3"):
        read_plan(path, classes=3)


def test_a_plan_from_a_windows_editor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    write_plan(path, PLAN_2D)
    path.write_text(path.read_text().replace("\n", "\r\n"), encoding="utf-8-sig", newline="")
    assert read_plan(path) == PLAN_2D


def test_a_missing_plan_is_explained(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"plan\.toml: the plan is missing"):
        read_plan(tmp_path / "plan.toml")


def test_input_channels_count_neighbours_only_in_2d() -> None:
    assert PLAN_2D.input_channels == 3
    assert replace(PLAN_2D, channels=3, neighbours=0).input_channels == 3
    assert PLAN_3D.input_channels == 1


@pytest.mark.parametrize("views", [(), (0, 0), (3,), (-1,)])
def test_views_are_axes(views: tuple[int, ...]) -> None:
    with pytest.raises(SettingsError, match="each once"):
        replace(PLAN_2D, views=views)


def test_each_view_may_have_its_own_patch(tmp_path: Path) -> None:
    plan = replace(PLAN_2D, views=(0, 2), view_patches=((1, 32, 32), (1, 16, 24)))
    assert plan.across(0).patch == (1, 32, 32) and plan.across(2).patch == (1, 16, 24)
    assert plan.across(2).block == (3, 16, 24)
    assert PLAN_2D.across(0) is PLAN_2D
    write_plan(tmp_path / "plan.toml", plan)
    assert read_plan(tmp_path / "plan.toml") == plan
    with pytest.raises(SettingsError, match=r"one for each of the views \[0, 2\]"):
        replace(plan, view_patches=((1, 32, 32),))
    with pytest.raises(SettingsError, match="divisible"):
        replace(plan, view_patches=((1, 32, 32), (1, 17, 24)))
    with pytest.raises(SettingsError, match="1 as the first number"):
        replace(plan, view_patches=((1, 32, 32), (2, 16, 24)))


def test_single_numbers_change_and_a_persons_comments_stay(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    write_plan(path, PLAN_2D)
    mine = path.read_text().replace(f"round_steps = {PLAN_2D.round_steps}", "round_steps  =  7_000 # as Ada wished")
    path.write_text("# mine\n" + mine.replace(f"first_steps = {PLAN_2D.first_steps}\n", ""))
    plan = change_plan(path, round_steps=2500, first_steps=900)
    assert plan == read_plan(path) == replace(PLAN_2D, round_steps=2500, first_steps=900)
    assert "# mine\n" in path.read_text() and "round_steps = 2500 # as Ada wished" in path.read_text()
    written = path.read_bytes()
    with pytest.raises(SettingsError, match=r"round_steps: 0 is out of range"):
        change_plan(path, round_steps=0)
    assert path.read_bytes() == written
    path.write_text(path.read_text().replace("round_steps =", '"round_steps" ='))
    with pytest.raises(SettingsError, match=r"Set round_steps = 5 there by hand"):
        change_plan(path, round_steps=5)
    assert '"round_steps" = 2500' in path.read_text()


def test_views_are_for_slices_that_are_not_mirrored() -> None:
    with pytest.raises(SettingsError, match=r"2-D networks without mirror_axes.*Set network = \"unet2d\" again.*remove plan.toml"):
        replace(PLAN_3D, views=(0, 1))
    with pytest.raises(SettingsError, match=r"2-D networks without mirror_axes.*Set mirror_axes = \[\] under .*, or views = \[0\]"):
        replace(PLAN_2D, views=(0, 1), augmentation=AugmentationPlan(mirror_axes=(1,)))
