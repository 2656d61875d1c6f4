""" "Propagate my correction": what the person made stays word for word, what was not asked for stays, and the rest gets better."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from simulated_network import network_snapshots
from small_cases import OBLIQUE, small_image, small_labels
from small_projects import CPU, shipped_weights, tiny_weights

from SAM2IterativeLib.correction import Correction, Corrector, answer_correction
from SAM2IterativeLib.errors import DataError, GeometryError, ProjectError, Stopped
from SAM2IterativeLib.foundation import features
from SAM2IterativeLib.foundation.checkpoints import Foundation, load_foundation
from SAM2IterativeLib.foundation.propagation import Guidance, Propagated, Propagator
from SAM2IterativeLib.messages import PropagateCorrection
from SAM2IterativeLib.metrics import class_dice
from SAM2IterativeLib.phantom import phantom_case
from SAM2IterativeLib.project import Project, label_of
from SAM2IterativeLib.settings import Settings
from SAM2IterativeLib.volumes import Geometry, LabelMap, read_label_map
from SAM2IterativeLib.worker_client import correction_request

SHAPE = (9, 40, 40)


@pytest.fixture(scope="module")
def foundation(tmp_path_factory: pytest.TempPathFactory) -> Foundation:
    torch.set_num_threads(1)
    return load_foundation(str(tiny_weights(tmp_path_factory.mktemp("weights"))), CPU)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return phantom_case(3, size=SHAPE)[0].array


def labels_of(*slices: int, columns: slice = slice(10, 20), value: int = 1) -> np.ndarray:
    """A box of one class on some slices, rows 10 to 20."""
    labels = np.zeros(SHAPE, np.uint8)
    for z in slices:
        labels[z, 10:20, columns] = value
    return labels


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """SAM2 replaced by one that knows the truth given as ``oracle["truth"]``; it keeps the guidance that it got."""
    known: dict[str, object] = {}

    def propagate(self: Propagator, volume: object, guidance: Guidance, support: object = ()) -> Propagated:
        known["guidance"] = guidance
        truth = known["truth"]
        return Propagated(np.stack([np.where(truth == c, 9.0, -9.0) for c in range(1, guidance.class_count + 1)]).astype(np.float32))

    monkeypatch.setattr(Propagator, "propagate", propagate)
    yield known


# With the real model, whatever its weights


def test_corrected_slices_and_other_labels_stay_word_for_word(foundation: Foundation, image: np.ndarray) -> None:
    labels = labels_of(*range(9)) + labels_of(*range(9), columns=slice(20, 26), value=2)
    labels[4, 10:20, 16:20] = 0
    result = Corrector(foundation, CPU).propagate("a", image, Correction(labels, (4,), classes=(1,)))
    np.testing.assert_array_equal(result.labels[4], labels[4])
    np.testing.assert_array_equal(result.labels == 2, labels == 2)
    assert result.slices and 4 not in result.slices
    changed = np.flatnonzero((result.labels != labels).any(axis=(1, 2)))
    assert tuple(changed) == result.slices


def test_a_kept_corrector_gives_what_a_new_one_gives_and_encodes_once(
    foundation: Foundation, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    encode = features.encode_volume
    monkeypatch.setattr(features, "encode_volume", lambda *given: encoded.append(1) or encode(*given))
    corrector = Corrector(foundation, CPU)
    first = corrector.propagate("a", image, Correction(labels_of(2), (2,)))
    corrector.propagate("a", image, Correction(labels_of(2, 6), (2, 6)))
    again = corrector.propagate("a", image, Correction(labels_of(2), (2,)))
    assert len(encoded) == 1
    np.testing.assert_array_equal(first.labels, again.labels)
    corrector.propagate("a", image, Correction(labels_of(2, columns=slice(0, 40)), (2,)))
    assert len(encoded) == 2, "a label outside the window of before needs a new one"


def test_slices_may_count_along_another_axis(foundation: Foundation, image: np.ndarray) -> None:
    labels, turned = labels_of(*range(9)), np.moveaxis(labels_of(*range(9)), 0, 1)
    along_k = Corrector(foundation, CPU).propagate("a", image, Correction(labels, (4,)))
    along_j = Corrector(foundation, CPU).propagate("a", np.moveaxis(image, 0, 1), Correction(turned, (4,), axis=1))
    np.testing.assert_array_equal(np.moveaxis(along_j.labels, 1, 0), along_k.labels)
    assert along_j.slices == along_k.slices


def test_reach_is_kept(foundation: Foundation, image: np.ndarray) -> None:
    result = Corrector(foundation, CPU).propagate("a", image, Correction(labels_of(4), (4,), reach=2))
    assert set(result.slices) <= {2, 3, 5, 6}


def test_it_stops_when_asked(foundation: Foundation, image: np.ndarray) -> None:
    def stopped() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        Corrector(foundation, CPU, stopped=stopped).propagate("a", image, Correction(labels_of(4), (4,)))


def test_colour_pictures_have_nothing_to_carry_to(foundation: Foundation) -> None:
    picture = np.zeros((1, 40, 40, 3), np.uint8)
    labels = labels_of(4)[4:5]
    result = Corrector(foundation, CPU).propagate("a", picture, Correction(labels, (0,)))
    assert result.slices == () and np.array_equal(result.labels, labels)


@pytest.mark.parametrize(
    ("correction", "says"),
    [
        (Correction(labels_of(4), (9,)), "not among the 9 slices"),
        (Correction(labels_of(4), ()), "not among the 9 slices"),
        (Correction(labels_of(4), (4,), axis=3), "no axis"),
        (Correction(labels_of(4)[:8], (4,)), "have the size"),
        (Correction(labels_of(4), (3,)), "nothing was corrected"),
        (Correction(labels_of(4), (4,), before=labels_of(4)), "nothing was corrected"),
    ],
)
def test_what_cannot_be_carried_is_refused(foundation: Foundation, image: np.ndarray, correction: Correction, says: str) -> None:
    with pytest.raises(DataError, match=says):
        Corrector(foundation, CPU).propagate("a", image, correction)


# With a model that knows the truth


def test_a_wrong_slab_is_mended_and_good_slices_stay_as_they_are(
    foundation: Foundation, image: np.ndarray, oracle: dict[str, object]
) -> None:
    truth = labels_of(*range(9))
    oracle["truth"] = truth
    labels = truth.copy()
    labels[2:6, 10:20, 14:20] = 0
    labels[8, 10, 10] = 0  # a detail that nobody corrected
    labels[3] = truth[3]
    result = Corrector(foundation, CPU).propagate("a", image, Correction(labels, (3,)))
    np.testing.assert_array_equal(result.labels[:8], truth[:8])
    assert result.labels[8, 10, 10] == 0, "the correction ended before"


def test_only_what_was_changed_is_carried(foundation: Foundation, image: np.ndarray, oracle: dict[str, object]) -> None:
    organ, gland = labels_of(*range(9)), labels_of(*range(3, 9), columns=slice(24, 30), value=2)
    before = organ + gland
    labels = before.copy()
    labels[4, 10:20, 18:20] = 0
    oracle["truth"] = labels_of(*range(9), columns=slice(10, 18))
    result = Corrector(foundation, CPU).propagate("a", image, Correction(labels, (4,), before=before))
    assert set(oracle["guidance"].prompts) == {1}  # type: ignore[attr-defined]
    np.testing.assert_array_equal(result.labels == 2, labels == 2)
    assert (result.labels[5] == 1).sum() == 80


def test_an_overlong_end_that_was_erased_on_one_slice_goes(foundation: Foundation, image: np.ndarray, oracle: dict[str, object]) -> None:
    before = labels_of(*range(9))
    oracle["truth"] = labels_of(*range(4, 9))
    labels = before.copy()
    labels[3] = 0
    result = Corrector(foundation, CPU).propagate("a", image, Correction(labels, (3,), before=before))
    np.testing.assert_array_equal(result.labels, oracle["truth"])
    shown = {p.slice_index: bool(p.mask.any()) for p in oracle["guidance"].prompts[1]}  # type: ignore[attr-defined]
    assert shown.pop(3) is False and list(shown.values()) == [True], "SAM2 is also shown what it is about"


def test_a_structure_that_the_model_loses_is_kept(foundation: Foundation, image: np.ndarray, oracle: dict[str, object]) -> None:
    oracle["truth"] = np.zeros(SHAPE, np.uint8)
    labels = labels_of(*range(9))
    result = Corrector(foundation, CPU).propagate("a", image, Correction(labels, (0,)))
    assert all((result.labels[z] == 1).any() for z in range(9))


def test_what_is_drawn_for_the_first_time_is_followed_as_far_as_the_model_sees_it(
    foundation: Foundation, image: np.ndarray, oracle: dict[str, object]
) -> None:
    oracle["truth"] = labels_of(*range(1, 9))
    result = Corrector(foundation, CPU).propagate("a", image, Correction(labels_of(8), (8,)))
    np.testing.assert_array_equal(result.labels, oracle["truth"])


# In a project


@pytest.fixture
def oblique_project(tmp_path: Path) -> Iterator[Project]:
    """Label values with gaps, on an oblique grid."""
    settings = Settings(name="test", labels=(label_of(3, "anterior"), label_of(7, "posterior")))
    with Project.create(tmp_path / "project", settings) as made:
        made.add_case("b", small_image(2))
        yield made


def test_the_answer_lies_in_the_project_on_the_case_s_grid(oblique_project: Project, foundation: Foundation) -> None:
    labels = small_labels(values=(3, 7))
    request = correction_request(oblique_project, oblique_project.case("b"), labels, [2], [3])
    assert not Path(request.label_map).is_absolute()
    answer = answer_correction(oblique_project, Corrector(foundation, CPU), request)
    found = read_label_map(oblique_project.folder / answer.label_map)
    assert found.geometry.mismatch(OBLIQUE) is None
    assert set(found.values) <= {3, 7}
    np.testing.assert_array_equal(found.array[2], labels.array[2])
    np.testing.assert_array_equal(found.array == 7, labels.array == 7)
    assert answer.case == "b" and 2 not in answer.slices


def test_a_request_that_does_not_fit_is_refused(oblique_project: Project, foundation: Foundation) -> None:
    corrector, case = Corrector(foundation, CPU), oblique_project.case("b")
    request = correction_request(oblique_project, case, small_labels(values=(3, 7)), [2])
    folder = str(oblique_project.folder)
    with pytest.raises(ProjectError, match="no case 'x'"):
        answer_correction(oblique_project, corrector, PropagateCorrection(folder, "x", request.label_map, (2,)))
    with pytest.raises(DataError, match="no labels of the project"):
        answer_correction(oblique_project, corrector, PropagateCorrection(folder, "b", request.label_map, (2,), (5,)))
    with pytest.raises(DataError, match="leads out of its folder"):
        answer_correction(oblique_project, corrector, PropagateCorrection(folder, "b", "../x.nrrd", (2,)))
    elsewhere = LabelMap(small_labels(values=(3, 7)).array, Geometry(OBLIQUE.size))
    with pytest.raises(GeometryError):
        answer_correction(oblique_project, corrector, correction_request(oblique_project, case, elsewhere, [2]))


# With the shipped weights


def test_correcting_the_worst_slice_helps_its_neighbours() -> None:
    """Mean over two phantoms whose present labels are wrong on a slab of nine slices."""
    corrector = Corrector(load_foundation(shipped_weights(), CPU), CPU)
    scores = []
    for seed in range(2):
        volume, truth = phantom_case(200 + seed)
        present = np.mean(network_snapshots(truth.array, 2, seed, difficulty=0.7, slab=range(8, 17)), axis=0).argmax(0).astype(np.uint8)
        wrong = [int((present[z] != truth.array[z]).sum()) if 9 <= z < 16 else -1 for z in range(24)]
        worst = int(np.argmax(wrong))
        labels = present.copy()
        labels[worst] = truth.array[worst]
        result = corrector.propagate(str(seed), volume.array, Correction(labels, (worst,), before=present)).labels
        near = [z for z in range(worst - 2, worst + 3) if z != worst]
        scores.append([np.nanmean(class_dice(x[near], truth.array[near], 2)) for x in (present, result)])
    before, after = np.mean(scores, axis=0)
    assert after > before + 0.1, f"{before:.2f} before, {after:.2f} after"
