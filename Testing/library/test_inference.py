"""The trained network on a folder of images: names, grids, what cannot be used, and going on after a stop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from dicom_files import write_series
from small_cases import OBLIQUE
from small_projects import CPU, small_project

from SAM2IterativeLib.dedicated.networks import build_network, weights_of
from SAM2IterativeLib.dedicated.prediction import Predictor
from SAM2IterativeLib.dedicated.weights import network_path, save_weights
from SAM2IterativeLib.errors import DataError, ProjectError, Stopped
from SAM2IterativeLib.exchange.dicom import read_series
from SAM2IterativeLib.exchange.dicom_series import find_series
from SAM2IterativeLib.inference import RECORD, predict_folder, trained_network
from SAM2IterativeLib.iteration import TRAINING, Iteration
from SAM2IterativeLib.messages import CaseSetAside, Message, Progress, Warned
from SAM2IterativeLib.phantom import phantom_case
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.volumes import Geometry, Volume, read_label_map, write_label_map, write_volume


def finish_training(project: Project, round: int, seed: int) -> None:
    """A network with random weights in place of a trained one."""
    plan = Iteration(project, CPU, lambda message: None).plan()
    path = network_path(project.models_folder, round)
    save_weights(path, weights_of(build_network(plan, seed)), {"kind": "network"})
    project.journal.finish_unit(round, TRAINING, "", [path])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    torch.set_num_threads(1)
    with small_project(tmp_path_factory.mktemp("inference") / "project", "compact", labelled=1, unlabelled=0) as made:
        finish_training(made, 0, seed=1)
        yield made


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three usable images in three formats, one oblique, and a broken file."""
    folder = tmp_path / "images"
    write_volume(folder / "a.nii.gz", phantom_case(5, size=(5, 24, 30))[0])
    write_volume(folder / "b.nrrd", Volume(phantom_case(6, size=OBLIQUE.size)[0].array, OBLIQUE))
    write_volume(folder / "c.png", Volume(np.random.default_rng(0).integers(0, 255, (1, 40, 33), dtype=np.uint8), Geometry((1, 40, 33))))
    (folder / "broken.nii.gz").write_bytes(b"no image")
    return folder


def test_a_stack_of_pages_gets_a_label_map_that_can_hold_it(project: Project, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    pages = np.random.default_rng(0).integers(0, 255, (4, 24, 30), dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(pages), str(tmp_path / "images" / "stack.tif"))
    result = predict_folder(project, tmp_path / "images", tmp_path / "labels", CPU)
    assert result.written == ("stack.nii.gz",) and not result.set_aside
    assert read_label_map(tmp_path / "labels" / "stack.nii.gz").array.shape == pages.shape


def test_label_maps_bear_the_names_and_grids_of_their_images(project: Project, images: Path, tmp_path: Path) -> None:
    messages: list[Message] = []
    result = predict_folder(project, images, tmp_path / "labels", CPU, report=messages.append)
    assert result.written == ("a.nii.gz", "b.nrrd", "c.png")
    assert [name for name, _ in result.set_aside] == ["broken.nii.gz"]
    assert [m.case for m in messages if isinstance(m, CaseSetAside)] == ["broken.nii.gz"]
    assert messages[-1] == Progress(0, "prediction", 1.0, 0.0)
    label_map = read_label_map(tmp_path / "labels" / "b.nrrd")
    assert label_map.geometry.mismatch(OBLIQUE) is None
    assert set(label_map.values) <= set(project.values)
    assert read_label_map(tmp_path / "labels" / "c.png").array.shape == (1, 40, 33)


def test_voxels_that_are_no_numbers_are_told(project: Project, tmp_path: Path) -> None:
    image, _ = phantom_case(5, size=(5, 24, 30))
    array = image.array.astype(np.float32)
    array[2, 3, 4] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "images.nrrd"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images.nrrd").rename(tmp_path / "images" / "a.nrrd")
    messages: list[Message] = []
    predict_folder(project, tmp_path / "images", tmp_path / "labels", CPU, report=messages.append)
    [warned] = [m.sentence for m in messages if isinstance(m, Warned)]
    assert warned.startswith("a.nrrd: ") and "1" in warned


def test_a_size_that_nobody_has_is_told(project: Project, tmp_path: Path) -> None:
    image, _ = phantom_case(5, size=(5, 24, 30))
    write_volume(tmp_path / "images" / "a.nrrd", replace(image, geometry=replace(image.geometry, spacing=(2e-3, 1e-3, 1e-3))))
    messages: list[Message] = []
    predict_folder(project, tmp_path / "images", tmp_path / "labels", CPU, report=messages.append)
    assert any(isinstance(m, Warned) and "another unit than mm" in m.sentence for m in messages)


def test_an_image_too_large_for_memory_does_not_cost_the_others(
    project: Project, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = Predictor.predict

    def short_of_memory(self: Predictor, image: np.ndarray, *arguments: Any, **named: Any) -> np.ndarray:
        if image.shape == (5, 24, 30):
            raise MemoryError
        return predict(self, image, *arguments, **named)

    monkeypatch.setattr(Predictor, "predict", short_of_memory)
    result = predict_folder(project, images, tmp_path / "labels", CPU)
    assert result.written == ("b.nrrd", "c.png")
    assert ("a.nii.gz", "the memory of this computer does not suffice") in [(name, said[10:54]) for name, said in result.set_aside]


def test_it_goes_on_after_a_stop_and_keeps_what_is_whole(project: Project, images: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels"
    with pytest.raises(Stopped):
        predict_folder(project, images, output, CPU, stop=(output / "a.nii.gz").exists)
    finished = [p.name for p in output.iterdir() if p.name != RECORD]
    assert finished == ["a.nii.gz"]
    kept = (output / "a.nii.gz").stat().st_mtime_ns
    assert len(predict_folder(project, images, output, CPU).written) == 3
    assert (output / "a.nii.gz").stat().st_mtime_ns == kept
    whole = (output / "b.nrrd").read_bytes()
    (output / "b.nrrd").write_bytes(whole[:-20])
    predict_folder(project, images, output, CPU)
    assert (output / "b.nrrd").read_bytes() == whole, "a file that is not whole is made again"


def test_a_stop_during_the_last_image_comes_too_late(project: Project, images: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels"
    assert len(predict_folder(project, images, output, CPU, stop=(output / "c.png").exists).written) == 3


def test_dicom_series_get_label_maps_named_after_their_folders(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write_series(folder / "one")
    write_series(folder / "two" / "CT")
    write_series(folder / "two" / "CT", slices=4, prefix="second_")
    (folder / "one" / "cut.dcm").write_bytes(b"")
    result = predict_folder(project, folder, tmp_path / "labels", CPU)
    assert result.written == ("one.nii.gz", "two_CT_1.nii.gz", "two_CT_2.nii.gz")
    assert [name for name, _ in result.set_aside] == ["one/cut.dcm"]
    found = read_label_map(tmp_path / "labels" / "one.nii.gz")
    assert found.geometry.size == read_series(find_series(folder / "one")[0], "one").geometry.size
    again = predict_folder(project, folder, tmp_path / "labels", CPU)
    assert again.written == result.written


def test_a_link_to_nothing_is_named_and_the_others_go_on(project: Project, images: Path, tmp_path: Path) -> None:
    predict_folder(project, images, tmp_path / "labels", CPU)
    (images / "a.nii.gz").unlink()
    (images / "a.nii.gz").symlink_to(tmp_path / "annex" / "a.nii.gz")
    result = predict_folder(project, images, tmp_path / "labels", CPU)
    assert result.written == ("b.nrrd", "c.png")
    assert any(name == "a.nii.gz" and "link to a file that is not here" in said for name, said in result.set_aside)


def test_it_goes_on_after_a_kill_at_the_first_file(project: Project, images: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels"
    with pytest.raises(Stopped):
        predict_folder(project, images, output, CPU, stop=lambda: True)
    (output / ".writing-12345678-a.nii.gz").write_bytes(b"half")
    assert len(predict_folder(project, images, output, CPU).written) == 3


def test_results_of_two_networks_are_never_mixed(project: Project, images: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels"
    predict_folder(project, images, output, CPU)
    table = json.loads((output / RECORD).read_text())
    (output / RECORD).write_text(json.dumps(table | {"network_sha256": "0" * 64}))
    with pytest.raises(DataError, match="of another network"):
        predict_folder(project, images, output, CPU)
    (output / RECORD).write_text("{ not json")
    with pytest.raises(DataError, match="of another network"):
        predict_folder(project, images, output, CPU)


def test_nothing_of_a_person_is_overwritten(project: Project, images: Path) -> None:
    with pytest.raises(DataError, match="not empty"):
        predict_folder(project, images, images, CPU)


def test_what_a_person_corrected_or_put_there_is_kept_and_named(project: Project, images: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels"
    predict_folder(project, images, output, CPU)
    corrected = read_label_map(output / "a.nii.gz")
    write_label_map(output / "a.nii.gz", replace(corrected, array=np.full_like(corrected.array, project.values[0])))
    write_volume(images / "d.nii.gz", phantom_case(7, size=(5, 24, 30))[0])
    write_label_map(output / "d.nii.gz", corrected)
    before = {name: (output / name).read_bytes() for name in ("a.nii.gz", "d.nii.gz")}
    result = predict_folder(project, images, output, CPU)
    assert {name: (output / name).read_bytes() for name in before} == before
    told = dict(result.set_aside)
    assert "was changed after it was written, and is kept" in told["a.nii.gz"]
    assert "is not the network's, and is kept" in told["d.nii.gz"]
    assert result.written == ("b.nrrd", "c.png")


def test_of_several_channels_one_is_taken(project: Project, tmp_path: Path) -> None:
    for number in (0, 1):
        write_volume(tmp_path / "images" / f"p_{number:04d}.nii.gz", phantom_case(5 + number, size=(5, 24, 30))[0])
    with pytest.raises(DataError, match="look like channels of one case"):
        predict_folder(project, tmp_path / "images", tmp_path / "labels", CPU)
    assert predict_folder(project, tmp_path / "images", tmp_path / "labels", CPU, channel=0).written == ("p_0000.nii.gz",)


def test_two_images_of_one_name_do_not_share_a_label_map(project: Project, tmp_path: Path) -> None:
    picture = Volume(np.random.default_rng(0).integers(0, 255, (1, 40, 40), dtype=np.uint8), Geometry((1, 40, 40)))
    for name in ("x.jpg", "x.png"):
        write_volume(tmp_path / "images" / name, picture)
    result = predict_folder(project, tmp_path / "images", tmp_path / "labels", CPU)
    assert result.written == ("x.png",) and result.set_aside[0][0] == "x.png"
    assert "overwrite that of x.jpg" in result.set_aside[0][1]


def test_colour_pictures_are_set_aside_by_a_grey_network(project: Project, tmp_path: Path) -> None:
    picture = Volume(np.zeros((1, 40, 40, 3), np.uint8), Geometry((1, 40, 40)))
    write_volume(tmp_path / "images" / "colour.png", picture)
    result = predict_folder(project, tmp_path / "images", tmp_path / "labels", CPU)
    assert result.written == () and "3 channels" in result.set_aside[0][1]


def test_the_newest_whole_network_is_taken(tmp_path: Path) -> None:
    with small_project(tmp_path / "project", "compact", labelled=1, unlabelled=0) as project:
        with pytest.raises(ProjectError, match="no trained network"):
            trained_network(project)
        finish_training(project, 0, seed=1)
        finish_training(project, 1, seed=2)
        assert trained_network(project)[0] == 1
        path = project.models_folder / "round_1.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        assert trained_network(project)[0] == 0, "a damaged file is not used"
