"""nnU-Net and Decathlon datasets, in and out."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from small_cases import small_image, small_labels
from test_review import propose

from SAM2IterativeLib.errors import DataError
from SAM2IterativeLib.exchange import ImportOptions, export_labels, import_any
from SAM2IterativeLib.exchange.nnunet import export_nnunet, import_nnunet
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.volumes import Geometry, LabelMap, Volume, read_label_map, write_label_map, write_volume


@pytest.fixture
def empty(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "fresh")


def _nnunet(root: Path, **changes: object) -> Path:
    for n in (1, 2):
        write_volume(root / "imagesTr" / f"x_{n:03d}_0000.nii.gz", small_image(n))
    write_label_map(root / "labelsTr" / "x_001.nii.gz", small_labels())
    write_volume(root / "imagesTs" / "x_009_0000.nii.gz", small_image(9))
    description = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "front": 1, "back": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description | changes))
    return root


def test_nnunet_in(empty: Project, tmp_path: Path) -> None:
    report = import_any(empty, _nnunet(tmp_path / "Dataset001_X") / "dataset.json")
    assert [(c.id, c.role) for c in report.added] == [("x_001", "labelled"), ("x_002", "unlabelled"), ("x_009", "unlabelled")]
    assert empty.label_names == ("front", "back")


def test_a_dataset_may_be_for_validation(empty: Project, tmp_path: Path) -> None:
    report = import_any(empty, _nnunet(tmp_path / "Dataset001_X"), role="validation")
    assert [(c.id, c.role) for c in report.added] == [("x_001", "validation")]
    assert set(dict(report.set_aside)) == {"x_002", "x_009"}


def test_several_channels_need_a_choice(empty: Project, tmp_path: Path) -> None:
    root = _nnunet(tmp_path / "d", channel_names={"0": "T1", "1": "T2"})
    with pytest.raises(DataError, match="2 channels"):
        import_any(empty, root)
    write_volume(root / "imagesTr" / "x_001_0001.nii.gz", small_image(5))
    report = import_nnunet(empty, root, options=ImportOptions(channel=1))
    assert [c.id for c in report.added] == ["x_001"]
    assert np.array_equal(empty.read_case_image(report.added[0]).array, small_image(5).array)


def test_a_folder_with_channels_needs_a_choice(empty: Project, tmp_path: Path) -> None:
    for name, number in (("p1", 0), ("p1", 1), ("p2", 0), ("p2", 1)):
        write_volume(tmp_path / "i" / f"{name}_{number:04d}.nii.gz", small_image(10 * number + int(name[1])))
    write_volume(tmp_path / "i" / "scan_2019.nii.gz", small_image(7))
    write_label_map(tmp_path / "l" / "p1.nii.gz", small_labels())
    with pytest.raises(DataError, match="p1_0000, p1_0001 look like channels of one case"):
        import_any(empty, tmp_path / "i", tmp_path / "l")
    report = import_any(empty, tmp_path / "i", tmp_path / "l", options=ImportOptions(channel=1))
    assert [(c.id, c.role) for c in report.added] == [("p1", "labelled"), ("p2", "unlabelled"), ("scan_2019", "unlabelled")]
    assert np.array_equal(empty.read_case_image(empty.case("p2")).array, small_image(12).array)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": ["background", "front"]}, "no table of names and values"),
        ({"labels": {"background": 0, "front": -1}}, "values run from 0 to 65535"),
        ({"labels": {"background": 0, "front": None}}, "values run from 0 to 65535"),
        ({"training": 5}, "no list of files"),
    ],
)
def test_an_unsound_description_is_refused_in_a_sentence(empty: Project, tmp_path: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(DataError, match=says):
        import_any(empty, _nnunet(tmp_path / "d", **changes))


def test_both_ways_of_writing_labels_are_read_in_both_data_sets(empty: Project, tmp_path: Path) -> None:
    entries = [{"image": "imagesTr/x_001_0000.nii.gz", "label": "labelsTr/x_001.nii.gz"}]
    report = import_any(empty, _nnunet(tmp_path / "d", labels={"background": "0", "front": "1", "back": 2}, training=entries))
    assert len(report.added) == 1 and empty.label_names == ("front", "back")


def test_nnunets_ignore_is_called_by_its_name(empty: Project, tmp_path: Path) -> None:
    root = _nnunet(tmp_path / "d", labels={"background": 0, "front": 1, "back": 2, "ignore": 3})
    write_label_map(root / "labelsTr" / "x_002.nii.gz", small_labels(values=(1, 3)))
    report = import_any(empty, root)
    assert [case.id for case in report.added] == ["x_001", "x_009"] and empty.values == (1, 2)
    assert "it holds nnU-Net's label 'ignore' (3)" in dict(report.set_aside)["x_002"]
    assert "project.toml" not in dict(report.set_aside)["x_002"]


def test_regions_are_refused(empty: Project, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="regions"):
        import_any(empty, _nnunet(tmp_path / "d", labels={"background": 0, "all": [1, 2], "back": 2}))


def test_decathlon_in(empty: Project, tmp_path: Path) -> None:
    for n in (1, 2):
        write_volume(tmp_path / "d" / "imagesTr" / f"x_{n}.nii.gz", small_image(n))
    write_label_map(tmp_path / "d" / "labelsTr" / "x_1.nii.gz", small_labels())
    description = {
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "training": [{"image": "./imagesTr/x_1.nii.gz", "label": "./labelsTr/x_1.nii.gz"}],
        "test": ["./imagesTr/x_2.nii.gz", "./imagesTr/gone.nii.gz"],
    }
    (tmp_path / "d" / "dataset.json").write_text(json.dumps(description))
    report = import_any(empty, tmp_path / "d")
    assert [(c.id, c.role) for c in report.added] == [("x_1", "labelled"), ("x_2", "unlabelled")]
    assert empty.label_names == ("Anterior", "Posterior")
    assert "gone.nii.gz: the file does not exist" in dict(report.set_aside)["gone"]


def test_a_listed_link_keeps_the_name_that_the_list_gives_it(empty: Project, tmp_path: Path) -> None:
    """git-annex keeps the content under another name, or elsewhere."""
    write_volume(tmp_path / "d" / "objects" / "1234.nii.gz", small_image(1))
    (tmp_path / "d" / "here.nii.gz").symlink_to("objects/1234.nii.gz")
    (tmp_path / "d" / "gone.nii.gz").symlink_to("objects/5678.nii.gz")
    description = {"labels": {"1": "x"}, "training": [], "test": ["./here.nii.gz", "./gone.nii.gz"]}
    (tmp_path / "d" / "dataset.json").write_text(json.dumps(description))
    report = import_any(empty, tmp_path / "d")
    assert [(case.id, case.source) for case in report.added] == [("here", "here.nii.gz")]
    assert "gone.nii.gz: it is a link to a file that is not here" in dict(report.set_aside)["gone"]


def test_a_hostile_dataset_stays_in_its_folder(empty: Project, tmp_path: Path) -> None:
    write_volume(tmp_path / "secret.nii.gz", small_image())
    (tmp_path / "d").mkdir()
    for name in ("../secret.nii.gz", str(tmp_path / "secret.nii.gz")):
        (tmp_path / "d" / "dataset.json").write_text(json.dumps({"labels": {"1": "x"}, "training": [], "test": [name]}))
        with pytest.raises(DataError, match="leads out of its folder"):
            import_any(empty, tmp_path / "d")


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_unreadable_descriptions(empty: Project, tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=r"dataset\.json"):
        import_any(empty, tmp_path)


def test_nnunet_out_and_in_again(tmp_path: Path) -> None:
    from SAM2IterativeLib.project import label_of
    from SAM2IterativeLib.settings import Settings

    with Project.create(tmp_path / "p", Settings(name="My organ", labels=(label_of(3, "front"), label_of(17, "back")))) as project:
        project.add_case("a", small_image(1), small_labels(values=(3, 17)))
        project.add_case("b", small_image(2))
        project.add_case("c", small_image(3))
        path = project.artefact(1, "c", "pseudo_label.nii.gz")
        write_label_map(path, small_labels(values=(3, 17)))
        project.journal.finish_unit(1, "fuse", "c", [path])
        root, refused = export_nnunet(project, tmp_path / "out")
        assert root.name == "Dataset501_My_organ"
        assert {case: "imagesTs" in sentence for case, sentence in refused.items()} == {"b": True, "c": True}
        assert {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()} == {
            "dataset.json",
            "imagesTr/a_0000.nii.gz",
            "labelsTr/a.nii.gz",
            "imagesTs/b_0000.nii.gz",
            "imagesTs/c_0000.nii.gz",
        }
        description = json.loads((root / "dataset.json").read_text())
        assert description["labels"] == {"background": 0, "front": 1, "back": 2}
        assert description["numTraining"] == 1 and description["file_ending"] == ".nii.gz"
        assert np.array_equal(read_label_map(root / "labelsTr" / "a.nii.gz").array, small_labels().array)
        image, label = (nibabel.Nifti1Image.from_filename(root / p) for p in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"))
        assert np.array_equal(image.affine, label.affine) and image.shape == label.shape
        Review(project).accept(project.case("c"), reviewer="Ada")
        second, _ = export_nnunet(project, tmp_path / "out2")
        assert json.loads((second / "dataset.json").read_text())["numTraining"] == 2
    again = Project.create(tmp_path / "again")
    assert len(import_any(again, root).added) == 3
    assert again.label_names == ("front", "back")


def test_pseudo_labels_may_go_along(project: Project, tmp_path: Path) -> None:
    propose(project, "b")
    report = export_labels(project, tmp_path / "out", "nnunet")
    assert {p.name for p in report.written if p.parent.name == "labelsTr"} == {"a.nii.gz", "b.nii.gz"}
    report = export_labels(project, tmp_path / "out2", "nnunet", pseudo_labels=False)
    assert {p.name for p in report.written if p.parent.name == "labelsTr"} == {"a.nii.gz"}


def test_colour_pictures_become_png(tmp_path: Path) -> None:
    from SAM2IterativeLib.project import label_of
    from SAM2IterativeLib.settings import Settings

    flat = Geometry((1, 8, 9), planar=True)
    colours = Volume(np.random.default_rng(0).integers(0, 255, (1, 8, 9, 3), dtype=np.uint8), flat)
    mask = np.zeros((1, 8, 9), np.uint8)
    mask[0, 2:5, 3:6] = 1
    with Project.create(tmp_path / "p", Settings(labels=(label_of(1, "polyp"),))) as project:
        project.add_case("a", colours, LabelMap(mask, flat))
        project.add_case("grey", small_image())
        root, refused = export_nnunet(project, tmp_path / "out")
    assert "colour and grey" in refused["grey"]
    description = json.loads((root / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "R", "1": "G", "2": "B"} and description["file_ending"] == ".png"
    assert np.array_equal(read_label_map(root / "labelsTr" / "a.png").array, mask)
    again = Project.create(tmp_path / "again")
    assert [(c.id, c.role) for c in import_any(again, root).added] == [("a", "labelled")]
