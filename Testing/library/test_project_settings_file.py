"""project.toml: what is written is read again, and what a person edits is checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from SAM2IterativeLib.errors import SettingsError
from SAM2IterativeLib.project import label_of
from SAM2IterativeLib.project.settings_file import read_settings, settings_text, write_settings
from SAM2IterativeLib.settings import Label, MemorySettings, RoundSettings, Settings

CHANGED = Settings(
    name='a "quoted" näme \\ with\ttabs\x7f',
    seed=7,
    labels=(label_of(3, "left"), Label(9, "right", (1, 2, 3), "list~SCT^1^x~SCT^2^y")),
    rounds=RoundSettings(maximum=5, shares=(0.1, 1.0), minimum_gain=1e-05),
    memory=MemorySettings(mode="G0", compete=False),
)


@pytest.mark.parametrize("settings", [Settings(), CHANGED], ids=["defaults", "changed"])
def test_round_trip(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "project.toml"
    write_settings(path, settings)
    assert read_settings(path) == settings


def test_defaults_stand_as_comments(tmp_path: Path) -> None:
    text = settings_text(CHANGED)
    assert "\nmaximum = 5\n" in text and "# converged_dice = 0.99\n" in text
    path = tmp_path / "project.toml"
    path.write_text(text.replace("# converged_dice = 0.99", "converged_dice = 0.5"), encoding="utf-8")
    assert read_settings(path) == replace(CHANGED, rounds=replace(CHANGED.rounds, converged_dice=0.5))


def test_a_persons_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "project.toml"
    path.write_text('# my own words\nname = "x"\n')
    write_settings(path, CHANGED)
    assert "my own words" in (tmp_path / "project.previous.toml").read_text()


@pytest.mark.parametrize("base", [CHANGED, Settings()], ids=["changed", "defaults"])
def test_what_a_person_wrote_between_the_settings_stays(tmp_path: Path, base: Settings) -> None:
    path = tmp_path / "project.toml"
    path.write_text("# for the thesis\n" + settings_text(base).replace("[rounds]", "# agreed with Ada\n[rounds]"), encoding="utf-8")
    for changed in (
        replace(base, seed=7),
        replace(base, rounds=replace(base.rounds, maximum=9, shares=(0.25, 1.0))),
        replace(base, foundation=replace(base.foundation, weights="C:\\weights #2\\a.pt")),
        replace(base, labels=(*base.labels, Label(11, "eleventh"))),
        base,
    ):
        write_settings(path, changed)
        assert read_settings(path) == changed
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# for the thesis\n") and "# agreed with Ada\n[rounds]" in text


def test_a_file_of_unusual_form_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "project.toml"
    path.write_text('name = "x"\nrounds = {maximum = 3} # in one line\n')
    changed = replace(read_settings(path), rounds=replace(read_settings(path).rounds, maximum=4))
    write_settings(path, changed)
    assert read_settings(path) == changed
    assert "in one line" in (tmp_path / "project.previous.toml").read_text()


def test_labels_without_a_colour_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "project.toml"
    path.write_text("[[labels]]\nvalue = 1\nname = 'a'\n[[labels]]\nvalue = 2\nname = 'b'\n")
    first, second = read_settings(path).labels
    assert first.colour != second.colour and second == Label(2, "b")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = ", r"project\.toml: the file cannot be read"),
        ("nam = 'x'", "unknown setting 'nam'.* Did you mean 'name'"),
        ("first_step = 5", r"unknown setting 'first_step'.* Did you mean 'dedicated.first_steps', which stands under \[dedicated\]"),
        ("[memory]\ndecay = 2", r"unknown setting 'decay'.* Did you mean 'foundation.decay'"),
        ("[memory]\nqqq = 2", "unknown setting 'qqq'.* Known are: mode, support"),
        ("[rounds]\nmaximum = 0", "maximum: 0 is out of range"),
        ("[dedicated]\nlearning_rate = nan", "learning_rate: nan is out of range"),
        ("[rounds]\nshares = []", "shares: has 0 values"),
        ("[rounds]\nshares = [0.5, -3.0]", "shares: -3.0 is out of range"),
        ("[rounds]\nmaximum = 'many'", "must be int"),
        ("[[labels]]\nvalue = 1\nname = 'a'\n[[labels]]\nvalue = 1\nname = 'b'", "two labels have the value 1"),
        ("[[labels]]\nvalue = 1\nname = 'a'\n[[labels]]\nvalue = 2\nname = 'a'", "two labels have the name 'a'"),
        ("\n".join(f"[[labels]]\nvalue = {n}\nname = 'l{n}'" for n in range(1, 257)), "256 labels are more than the 255"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "project.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=says):
        read_settings(path)
