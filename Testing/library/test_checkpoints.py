from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_sam2 import CPU, SIDE, TINY, full_disk, tiny_model

from SAM2IterativeLib import presets
from SAM2IterativeLib.errors import ResourceError, WeightsError
from SAM2IterativeLib.files import sha256_of
from SAM2IterativeLib.foundation import checkpoints
from SAM2IterativeLib.foundation.checkpoints import (
    Foundation,
    download,
    export_official,
    load_foundation,
    locate,
    read_tensors,
    remove,
    save_compact,
    verify,
)
from SAM2IterativeLib.foundation.sam2_model import build_official, encode_images
from SAM2IterativeLib.foundation.tracking import NO_MEMORIES, padding_points, track_slice
from SAM2IterativeLib.presets import PRESETS, download_folder, installed, preset_path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compact weight file."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_compact(tiny_model(), TINY, path, {"made_for": "tests"})
    return path


@pytest.fixture
def weights(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copy(made, tmp_path))


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for downloads."""
    monkeypatch.setenv("SAM2_ITERATIVE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def said(foundation: Foundation) -> torch.Tensor:
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = encode_images(foundation.model, images)
        return track_slice(foundation.model, features, 0, NO_MEMORIES, points=padding_points(2, torch.device("cpu"))).logits


def refusal(path: Path | str) -> WeightsError:
    """What a person reads; the file and a cure are always named."""
    with pytest.raises(WeightsError) as caught:
        load_foundation(str(path), CPU)
    assert Path(path).name in caught.value.sentence
    assert caught.value.cure
    return caught.value


# Compact weights


def test_compact_weights_are_half_as_long_and_say_the_same(weights: Path) -> None:
    foundation = load_foundation(str(weights), CPU)
    parameters = sum(t.numel() for t in foundation.model.state_dict().values())
    assert 2 * parameters < weights.stat().st_size < 2 * parameters + 200_000
    assert (foundation.name, foundation.side, foundation.imagenet) == ("tiny.safetensors", SIDE, False)
    assert foundation.digest == sha256_of(weights)
    assert not foundation.model.training and not any(p.requires_grad for p in foundation.model.parameters())
    original = Foundation(tiny_model(), "", "", SIDE, False)
    torch.testing.assert_close(said(foundation), said(original), atol=2e-2, rtol=1e-2)


def test_the_notes_stand_in_the_file(weights: Path) -> None:
    with safe_open(weights, framework="pt") as file:
        assert json.loads(file.metadata()["notes"]) == {"made_for": "tests"}


def test_the_shipped_weights_load_and_fit_their_published_size() -> None:
    if not preset_path("compact").is_file():
        pytest.skip("The shipped weights are not there.")
    foundation = load_foundation("compact", CPU)
    assert foundation.side == 192
    assert preset_path("compact").stat().st_size < 20e6
    assert PRESETS["compact"].sha256 == foundation.digest


def test_a_full_disk_leaves_the_old_file_and_a_sentence(weights: Path, tmp_path: Path) -> None:
    target, before = tmp_path / "exported.pt", weights.read_bytes()
    with full_disk(50_000):
        with pytest.raises(ResourceError, match="disk is full"):
            save_compact(tiny_model(1), TINY, weights, {})
        with pytest.raises(ResourceError, match="disk is full"):
            export_official(weights, target)
    assert weights.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [weights.name]


def test_an_export_takes_no_other_files_place(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(WeightsError, match="is there already"):
        export_official(weights, tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


# Files that are refused


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "neither a model's name nor a file" in refusal(tmp_path / "nowhere.pt").what
    assert "sam2.1-tiny" in refusal(tmp_path).cure  # a folder is no file


@pytest.mark.parametrize("kept", [0, 5, 100, 5000, -1])
def test_a_truncated_file_is_refused(weights: Path, kept: int) -> None:
    weights.write_bytes(weights.read_bytes()[:kept])
    refusal(weights)


@pytest.mark.parametrize("kept", [0, 5, 1000, -100])
def test_a_truncated_official_file_is_refused(made: Path, tmp_path: Path, kept: int) -> None:
    target = tmp_path / "exported.pt"
    export_official(made, target)
    target.write_bytes(target.read_bytes()[:kept])
    assert "truncated, damaged or of another kind" in refusal(target).what


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_file_is_refused_with_a_sentence_or_fits_exactly(made: Path, tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    official = tmp_path / "exported.pt"
    export_official(made, official)
    legacy = tmp_path / "legacy.pt"
    torch.save({"model": {"a": torch.ones(3)}}, legacy, _use_new_zipfile_serialization=False)
    for path in (Path(shutil.copy(made, tmp_path)), official, legacy):
        content = bytearray(path.read_bytes())
        for place in random.integers(min(len(content), 3000), size=4):
            content[place] = int(random.integers(256))
        path.write_bytes(content)
        try:
            load_foundation(str(path), CPU)
        except WeightsError as error:
            assert path.name in error.sentence


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    text, archive, numbers = tmp_path / "notes.txt", tmp_path / "archive.pt", tmp_path / "numbers.safetensors"
    text.write_text("these are no weights\n" * 50)
    shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path, "notes.txt")
    (tmp_path / "zipped.zip").rename(archive)
    save_file({"a": torch.ones(3)}, numbers)
    assert "another kind" in refusal(text).what
    refusal(archive)
    assert "foreign model" in refusal(numbers).what


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"state_dict": {"a": torch.ones(2)}},
        {"model": [torch.ones(2)]},
        {"model": {"a": 1.5}},
        {"model": {7: torch.ones(2)}},
    ],
)
def test_a_checkpoint_without_a_model_of_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    assert 'a dict with "model"' in refusal(tmp_path / "other.pt").what


class Hostile:
    """What an attacker would put into a pickle."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("written_by", ["pickle", "torch"])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, written_by: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"hostile{suffix}"
    content = {"model": {"weight": torch.ones(2), "code": Hostile()}}
    if written_by == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    refusal(path)
    assert not (tmp_path / "executed").exists()


def rewritten(path: Path, change: Callable[[dict[str, torch.Tensor]], None], architecture: object = None) -> Path:
    """The compact file with other tensors or another stated architecture."""
    tensors = load_file(path)
    change(tensors)
    stated = asdict(TINY) if architecture is None else architecture
    save_file(tensors, path, metadata={"architecture": json.dumps(stated)})
    return path


def test_a_missing_a_foreign_and_a_reshaped_tensor_are_counted(weights: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["no_mem_embed"] = torch.ones(1, 1, 5)
        tensors["extra.weight"] = tensors.pop("maskmem_tpos_enc").clone()

    error = refusal(rewritten(weights, change))
    assert "1 tensors missing, 1 foreign, 1 of another size" in error.what
    assert "maskmem_tpos_enc" in error.what


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(weights: Path, value: float) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["no_mem_embed"][..., 3] = value

    assert "not finite (no_mem_embed)" in refusal(rewritten(weights, change)).what


@pytest.mark.parametrize(
    "stated",
    [
        "compact",
        {"image_size": "large"},
        {"colour": 3},
        asdict(TINY) | {"image_size": -64},
        asdict(TINY) | {"embed_dim": 10**9},
        asdict(TINY) | {"stages": [1, 1]},
        asdict(TINY) | {"global_blocks": [0]},
    ],
)
def test_a_stated_architecture_that_cannot_be_is_refused(weights: Path, stated: object) -> None:
    refusal(rewritten(weights, lambda tensors: None, stated))


def test_weights_of_other_sizes_than_stated_are_refused(weights: Path) -> None:
    stated = asdict(replace(TINY, feedforward=96))
    assert "of another size" in refusal(rewritten(weights, lambda tensors: None, stated)).what


def test_without_a_stated_architecture_ours_is_a_foreign_model(weights: Path) -> None:
    save_file(load_file(weights), weights)
    assert "foreign model" in refusal(weights).what


# The official format


def test_a_compact_checkpoint_exported_to_the_official_format_says_the_same(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "exported.pt"
    export_official(weights, target)
    content = torch.load(target, weights_only=True)
    assert set(content) == {"model", "compact_architecture"}
    assert all(t.dtype == torch.float32 for t in content["model"].values())
    before, after = load_foundation(str(weights), CPU), load_foundation(str(target), CPU)
    assert torch.equal(said(before), said(after))
    assert (after.side, after.imagenet) == (before.side, before.imagenet)
    with pytest.raises(WeightsError, match=r"states no architecture|already in the official format"):
        export_official(saved_official(tmp_path), tmp_path / "again.pt")


def saved_official(folder: Path, name: str = "official.pt") -> Path:
    """A small file in the official format that holds an official trunk's first tensors only."""
    tensors = {"image_encoder.trunk.patch_embed.proj.weight": torch.zeros(96, 3, 7, 7)}
    tensors |= {f"image_encoder.trunk.blocks.{n}.norm1.weight": torch.zeros(1) for n in range(12)}
    torch.save({"model": tensors}, folder / name)
    return folder / name


def test_an_official_checkpoint_loads_through_the_same_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    original = build_official("sam2.1-tiny", SIDE)
    path = tmp_path / "my_fine_tuned.pt"
    torch.save({"model": original.state_dict()}, path)
    monkeypatch.setattr(checkpoints, "build_official", lambda name: build_official(name, SIDE))
    foundation = load_foundation(str(path), CPU)
    assert (foundation.side, foundation.imagenet) == (SIDE, True)
    loaded = foundation.model.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in original.state_dict().items())


@pytest.mark.parametrize(
    ("width", "blocks", "file", "name"),
    [
        (96, 12, "model.pt", "sam2.1-tiny"),
        (96, 16, "model.pt", "sam2.1-small"),
        (112, 24, "model.pt", "sam2.1-base-plus"),
        (144, 48, "model.pt", "sam2.1-large"),
        (96, 12, "MedSAM2_latest.pt", "medsam2"),
    ],
)
def test_official_sizes_are_recognised_by_their_trunk(width: int, blocks: int, file: str, name: str) -> None:
    tensors = {"image_encoder.trunk.patch_embed.proj.weight": torch.zeros(width, 3, 7, 7)}
    tensors |= {f"image_encoder.trunk.blocks.{n}.norm1.weight": torch.zeros(1) for n in range(blocks)}
    assert checkpoints._recognise(tensors, Path(file)) == name


def test_part_of_an_official_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "build_official", lambda name: build_official(name, SIDE))
    assert "tensors missing" in refusal(saved_official(tmp_path)).what


# Presets


def test_a_preset_that_is_not_there_says_how_to_get_it(models: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_foundation("sam2.1-tiny", CPU)
    assert "models download sam2.1-tiny" in caught.value.cure
    assert str(models / "sam2.1_hiera_tiny.pt") in caught.value.cure


def test_missing_shipped_weights_are_never_replaced_by_random_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "shipped_folder", lambda: tmp_path)
    with pytest.raises(WeightsError, match="Reinstall"):
        load_foundation("compact", CPU)


def place(name: str, content: bytes) -> Path:
    path = preset_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_preset_of_another_length_or_content_is_refused_before_it_is_read(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place("sam2.1-tiny", b"short")
    with pytest.raises(WeightsError, match="156,008,466 are expected"):
        load_foundation("sam2.1-tiny", CPU)
    place("sam2.1-small", b"not the published file")
    with pytest.raises(WeightsError, match="SHA-256"):
        load_foundation("sam2.1-small", CPU)
    with pytest.raises(WeightsError, match="SHA-256"):
        verify("sam2.1-small")


def test_an_altered_shipped_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path) -> None:
    shutil.copy(made, tmp_path / "compact.safetensors")
    monkeypatch.setattr(presets, "shipped_folder", lambda: tmp_path)
    with pytest.raises(WeightsError, match="Reinstall"):
        load_foundation("compact", CPU)


def test_an_unknown_name_lists_the_known_ones() -> None:
    for ask in (verify, remove, locate):
        with pytest.raises(WeightsError, match="medsam2"):
            ask("sam4")


def test_nothing_is_downloaded_without_consent(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "fetch", lambda *args: pytest.fail("downloaded without consent"))
    with pytest.raises(WeightsError, match="156 MB") as caught:
        download("sam2.1-tiny", lambda text: None, consent=False)
    assert "--yes" in caught.value.cure
    assert not models.exists()


def served(monkeypatch: pytest.MonkeyPatch, content: bytes | Exception) -> list[str]:
    """What the server sends, through the real fetching; the addresses that were asked for are kept."""
    asked: list[str] = []

    class Server:
        def open(self, request: urllib.request.Request, timeout: float) -> Any:
            asked.append(request.full_url)
            if isinstance(content, Exception):
                raise content
            answer: Any = io.BytesIO(content)
            answer.headers, answer.status = {"Content-Length": str(len(content))}, 200
            return answer

    monkeypatch.setattr(urllib.request, "build_opener", lambda *handlers: Server())
    return asked


def test_a_download_is_held_to_the_published_hash(models: Path, monkeypatch: pytest.MonkeyPatch, made: Path) -> None:
    content = made.read_bytes()
    known = replace(PRESETS["sam2.1-small"], sha256=sha256_of(made), size=len(content))
    monkeypatch.setitem(PRESETS, "sam2.1-small", known)
    asked, told = served(monkeypatch, content), []
    path = download("sam2.1-small", told.append, consent=True)
    assert path == models / "sam2.1_hiera_small.pt" and path.read_bytes() == content
    assert asked == [known.url] and known.url in told[0]
    assert download("sam2.1-small", told.append, consent=True) == path and len(asked) == len(told) == 1, "it is there already"
    assert {name: found for name, _, found in installed()}["sam2.1-small"] == path
    assert verify("sam2.1-small") == known.sha256
    assert remove("sam2.1-small") and not path.exists()
    assert not remove("sam2.1-small")


def test_every_preset_comes_over_https() -> None:
    assert all(preset.url.startswith("https://") for preset in PRESETS.values() if not preset.shipped)


@pytest.mark.parametrize("name", ["sam2.1-small", "medsam2"])
def test_a_wrong_file_that_came_does_not_stay(models: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    served(monkeypatch, b"<html>captive portal</html>")
    with pytest.raises(WeightsError):
        download(name, lambda text: None, consent=True)
    assert not preset_path(name).exists()


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (urllib.error.URLError("no route"), ResourceError, r"could not be fetched \(no route\).* goes on where it was cut off"),
        (TimeoutError("timed out"), ResourceError, r"could not be fetched \(timed out\)"),
        (OSError(28, "No space left on device"), ResourceError, "No space left"),
    ],
)
def test_a_failed_download_says_why(
    models: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, kind: type[Exception], words: str
) -> None:
    served(monkeypatch, fault)
    with pytest.raises(kind, match=words):
        download("sam2.1-tiny", lambda text: None, consent=True)


def test_shipped_weights_are_neither_downloaded_nor_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path) -> None:
    shutil.copy(made, tmp_path / "compact.safetensors")
    monkeypatch.setattr(presets, "shipped_folder", lambda: tmp_path)
    monkeypatch.setattr(checkpoints, "fetch", lambda *args: pytest.fail("downloaded shipped weights"))
    assert download("compact", lambda text: None, consent=True) == tmp_path / "compact.safetensors"
    assert not remove("compact")
    assert (tmp_path / "compact.safetensors").is_file()


def test_the_list_names_every_preset_and_what_is_there(models: Path) -> None:
    listed = {name: path for name, _, path in installed()}
    assert set(listed) == set(PRESETS)
    assert all(listed[name] is None for name in PRESETS if not PRESETS[name].shipped)
    assert download_folder() == models


def test_tensors_of_a_compact_file_come_in_single_precision(weights: Path) -> None:
    tensors, architecture = read_tensors(weights)
    assert architecture == TINY
    assert all(t.dtype == torch.float32 for t in tensors.values())
