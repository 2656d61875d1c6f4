"""dedicated.fingerprint and dedicated.planning: nnU-Net's rules, and what the device allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from dedicated_cases import CPU, ball

from SAM2IterativeLib.dedicated.fingerprint import Fingerprint, contrast_distance, fingerprint_of, largest_share
from SAM2IterativeLib.dedicated.networks import build_network
from SAM2IterativeLib.dedicated.plan import Plan
from SAM2IterativeLib.dedicated.planning import make_plan
from SAM2IterativeLib.device import Device
from SAM2IterativeLib.errors import DataError, SettingsError
from SAM2IterativeLib.settings import DedicatedSettings
from SAM2IterativeLib.volumes import Geometry

GPU = Device("cuda:0", torch.bfloat16)
BRAIN = Fingerprint((160, 240, 256), (1.0, 1.0, 1.0))
PROSTATE = Fingerprint((20, 320, 320), (3.6, 0.6, 0.6))
CT = Fingerprint((300, 512, 512), (1.5, 0.8, 0.8), range=(-1024, 3071), foreground=tuple(np.linspace(-50, 150, 201)))
SMALL = Fingerprint((35, 51, 35), (1.0, 1.0, 1.0))


def plan_for(*fingerprints: Fingerprint, device: Device = CPU, classes: int = 1, names: tuple[str, ...] = (), **wishes: Any) -> Plan:
    return make_plan(fingerprints, classes, DedicatedSettings(**wishes), device, names)


def test_fingerprint_of_a_labelled_case() -> None:
    image, labels = ball(0)
    found = fingerprint_of(image, Geometry(labels.shape, (2.0, 1.0, 1.0)), labels)
    assert found.size == labels.shape and found.spacing == (2.0, 1.0, 1.0) and found.orientation == "SPL" and found.channels == 1
    assert found.range == (image.min(), image.max())
    assert 0 < len(found.foreground) <= 2000 and set(found.foreground) <= set(image[labels > 0].tolist())
    assert found.pieces == {1: 1.0, 2: 1.0}


def test_fingerprint_of_an_unlabelled_case_and_of_a_picture() -> None:
    image, labels = ball(0)
    found = fingerprint_of(image, Geometry(labels.shape))
    assert found.foreground == () and found.pieces is None
    picture = fingerprint_of(np.zeros((1, 8, 9, 3), np.uint8), Geometry((1, 8, 9)))
    assert picture.channels == 3 and picture.zeros == 1.0


def test_share_of_the_largest_piece() -> None:
    mask = np.zeros((4, 10, 10), bool)
    mask[0, 0, :6] = True
    mask[1, 1, 6] = True  # touches by a corner
    assert largest_share(mask) == 1.0
    mask[3, 9, :3] = True
    assert largest_share(mask) == pytest.approx(0.7)
    assert largest_share(np.zeros((2, 2, 2), bool)) == 1.0


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("network", ["unet2d", "unet3d"])
@pytest.mark.parametrize("fingerprint", [BRAIN, PROSTATE, CT, SMALL, Fingerprint((9, 20, 20), (1.0, 1.0, 1.0))])
def test_every_plan_makes_a_network_that_runs(fingerprint: Fingerprint, network: Any, device: Device) -> None:
    plan = plan_for(fingerprint, network=network, device=device)
    tiny = replace(plan, features=(1,) * len(plan.features))
    patch = plan.patch[3 - plan.dimensions :]
    with torch.inference_mode():
        assert build_network(tiny)(torch.zeros(1, tiny.input_channels, *patch)).shape == (1, 2, *patch)


def test_slices_without_a_gpu_blocks_with_one() -> None:
    assert plan_for(PROSTATE).network == "unet2d"
    assert plan_for(PROSTATE, device=GPU).network == "unet3d"
    assert plan_for(replace(PROSTATE, size=(1, 320, 320)), device=GPU).network == "unet2d"


def test_wishes_are_obeyed_and_zero_is_decided() -> None:
    plan = plan_for(SMALL, first_steps=7, round_steps=3, batch=5, learning_rate=0.01, snapshots=2)
    assert (plan.first_steps, plan.round_steps, plan.batch, plan.learning_rate, plan.snapshots) == (7, 3, 5, 0.01, 2)
    decided = plan_for(SMALL)
    assert decided.first_steps >= 100 and decided.batch >= 2


def test_a_round_is_trained_as_long_and_as_fast_as_round_0() -> None:
    for plan in (plan_for(SMALL), plan_for(SMALL, first_steps=7, learning_rate=0.01), plan_for(BRAIN, device=GPU)):
        assert (plan.round_steps, plan.round_learning_rate) == (plan.first_steps, plan.learning_rate)


def test_spacing_is_the_median() -> None:
    cases = [replace(BRAIN, spacing=(s, 1.0, 1.0)) for s in (1.0, 1.2, 9.0)]
    assert plan_for(*cases, device=GPU).spacing == (1.2, 1.0, 1.0)


def test_a_much_coarser_axis_takes_the_tenth_percentile_in_3d() -> None:
    cases = [replace(PROSTATE, spacing=(s, 0.6, 0.6)) for s in (3.0, 4.0, 4.0, 4.0, 5.0)]
    assert plan_for(*cases, device=GPU, network="unet3d").spacing[0] == pytest.approx(np.percentile([3, 4, 4, 4, 5], 10))
    assert plan_for(*cases, device=GPU, network="unet2d").spacing[0] == 4.0


def test_thick_slices_are_not_reduced_before_the_others_caught_up_nor_tilted() -> None:
    plan = plan_for(PROSTATE, device=GPU, network="unet3d")
    assert plan.strides[:3] == ((1, 1, 1), (1, 2, 2), (1, 2, 2)) and plan.kernels[0] == (1, 3, 3)
    assert plan.strides[3] == (2, 2, 2) and plan.kernels[-1] == (3, 3, 3)
    assert plan.augmentation.tilt == 0 < plan_for(BRAIN, device=GPU).augmentation.tilt


def test_cases_that_differ_little_are_seen_whole() -> None:
    sizes = [(30, 44, 60), (35, 50, 64), (31, 45, 61)]
    plan = plan_for(*(replace(SMALL, size=s) for s in sizes))
    assert all(p >= s for p, s in zip(plan.patch[1:], (50, 64), strict=True))
    outlier = plan_for(*(replace(SMALL, size=s) for s in [*sizes, (35, 50, 300)]))
    assert outlier.patch[2] < 100


def test_large_images_are_seen_in_parts_within_the_budget() -> None:
    two, three = (plan_for(CT, network=network) for network in ("unet2d", "unet3d"))
    assert two.patch[1] * two.patch[2] <= 256 * 256 and np.prod(three.patch) <= 360_000
    assert two.spacing[1] == pytest.approx(1.6)  # halved: 256 voxels per side
    assert plan_for(CT, device=GPU, network="unet2d").spacing[1] == 0.8


def test_ct_is_windowed_by_its_foreground_and_mr_is_not() -> None:
    window = plan_for(CT).normalisation
    assert window.scheme == "ct" and (window.lower, window.upper) == (pytest.approx(-49), pytest.approx(149))
    assert window.mean == pytest.approx(50) and window.deviation == pytest.approx(57.9, abs=1)
    assert plan_for(BRAIN).normalisation.scheme == "zscore"
    assert plan_for(replace(CT, foreground=())).normalisation.scheme == "zscore"
    assert plan_for(CT, *[replace(BRAIN, foreground=(1.0,))] * 2).normalisation.scheme == "zscore"


def test_masked_images_leave_their_zeros_out() -> None:
    assert plan_for(replace(BRAIN, zeros=0.6)).normalisation.ignore_zeros
    assert not plan_for(replace(BRAIN, zeros=0.01)).normalisation.ignore_zeros


def test_single_pieces_are_those_of_every_labelled_case() -> None:
    labelled = [replace(SMALL, pieces=p) for p in ({1: 1.0, 2: 1.0, 3: 0.995}, {1: 1.0, 2: 0.6}, {})]
    assert plan_for(*labelled, classes=4).single_component == (1, 3)  # 4 was never seen


def test_classes_that_no_labelled_case_lacks_are_expected() -> None:
    labelled = [replace(SMALL, pieces=p) for p in ({1: 1.0, 2: 1.0, 3: 0.995}, {1: 1.0, 3: 0.6}, None)]
    assert plan_for(*labelled, classes=4).always_shown == (1, 3)
    assert plan_for(SMALL, classes=2).always_shown == ()
    assert plan_for(*labelled, replace(SMALL, pieces={}), classes=4).always_shown == (), "a labelled case may show nothing"


def test_volumes_are_not_mirrored_and_pictures_only_where_labels_know_no_side() -> None:
    picture = Fingerprint((1, 500, 574), (1.0, 1.0, 1.0), channels=3)
    assert plan_for(BRAIN, device=GPU).augmentation.mirror_axes == plan_for(BRAIN).augmentation.mirror_axes == ()
    assert plan_for(picture, names=("polyp",)).augmentation.mirror_axes == (1, 2)
    assert plan_for(picture, names=("Left eye", "Right eye")).augmentation.mirror_axes == (1,)


def test_curves_are_drawn_where_contrasts_differ_from_the_labelled_ones() -> None:
    def image(distance: float) -> Fingerprint:
        return Fingerprint(SMALL.size, SMALL.spacing, contrast=tuple(np.linspace(-1.7, 1.7, 41) + distance))

    labelled = [replace(image(0.0), pieces={1: 1.0})] * 2
    chances = [plan_for(*labelled, image(distance), image(distance)).augmentation.curve_chance for distance in (0.03, 0.06, 0.1)]
    assert chances == [0.0, pytest.approx(0.25), 0.5]
    assert plan_for(*labelled, image(0.0), image(0.12)).augmentation.curve_chance == pytest.approx(0.25), "the mean counts"
    for longer, plan in (
        (2, plan_for(*labelled, image(0.1))),
        (1, plan_for(*labelled, image(0.1), device=GPU)),
        (1, plan_for(*labelled, image(0.1), first_steps=7)),
    ):
        assert plan.augmentation.curve_chance == 0.5 and plan.first_steps == longer * plan.round_steps
    known = replace(image(0.1), pieces={1: 1.0})
    assert plan_for(*labelled, known, image(0.1), image(0.1)).augmentation.curve_chance == 0, "one labelled case is like them"
    assert plan_for(known, labelled[0], known).augmentation.curve_chance > 0, "no unlabelled case: the labelled ones among themselves"
    ct = [replace(CT, contrast=f.contrast, pieces=f.pieces) for f in (*labelled, image(0.1), image(0.1))]
    assert plan_for(*ct).augmentation.curve_chance == 0, "Hounsfield units mean something"
    assert plan_for(labelled[0]).augmentation.curve_chance == plan_for(image(0.0), image(0.1)).augmentation.curve_chance == 0, (
        "nothing to compare with"
    )


def test_the_contrast_of_an_image_knows_neither_scale_nor_zeros() -> None:
    image = ball(0)[0]
    seen, louder = (fingerprint_of(i, Geometry(i.shape)) for i in (image, 7 * image + 3))
    assert (
        contrast_distance(seen, louder) < 1e-3 < contrast_distance(seen, fingerprint_of((image - image.mean()) ** 3, Geometry(image.shape)))
    )
    padded = np.concatenate([image, np.zeros_like(image)])
    assert contrast_distance(seen, fingerprint_of(padded, Geometry(padded.shape))) < 1e-3
    assert fingerprint_of(np.ones((3, 4, 5)), Geometry((3, 4, 5))).contrast == ()


def test_cases_that_lie_differently_are_planned_in_the_most_common_orientation() -> None:
    other = Fingerprint((256, 160, 240), (2.0, 1.0, 1.5), "LSP")
    plan = plan_for(BRAIN, BRAIN, other, device=GPU)
    assert plan.orientation == "SPL" and plan.spacing == (1.0, 1.0, 1.0)
    assert plan_for(other, device=GPU).orientation == "LSP"


def test_pictures() -> None:
    picture = Fingerprint((1, 500, 574), (1.0, 1.0, 1.0), channels=3)
    plan = plan_for(picture)
    assert (plan.network, plan.channels, plan.neighbours, plan.normalisation.scheme) == ("unet2d", 3, 0, "colour")
    with pytest.raises(DataError, match=r"different channels: \[1, 3\]"):
        plan_for(picture, replace(picture, channels=1))
    with pytest.raises(SettingsError, match=r"1 slices \(median\), too few for 'unet3d'"):
        plan_for(picture, network="unet3d")


def test_no_case_is_explained() -> None:
    with pytest.raises(DataError, match="no case to plan for"):
        plan_for()


def test_nearly_cubic_voxels_are_seen_from_three_sides() -> None:
    plan = plan_for(replace(SMALL, spacing=(1.5, 1.0, 1.0)))
    assert plan.views == (0, 1, 2) and plan.spacing == (1.0, 1.0, 1.0)
    assert plan.augmentation.tilt > 0
    assert plan.patch[1] >= 53 and plan.patch[2] >= 51, "slices of every view fit"
    assert plan_for(replace(CT, spacing=(0.6, 0.8, 0.8))).spacing == pytest.approx((1.6, 1.6, 1.6)), "thin slices are resampled too"


def test_a_flat_case_has_narrow_patches_from_the_side() -> None:
    plan = plan_for(replace(SMALL, size=(44, 72, 94), spacing=(1.25, 1.25, 1.25)))
    assert plan.patch == (1, 80, 96)
    assert plan.view_patches == ((1, 80, 96), (1, 48, 96), (1, 48, 80))
    assert plan_for(BRAIN, network="unet3d").view_patches == () == plan_for(PROSTATE).view_patches
    thin = plan_for(replace(SMALL, size=(16, 16, 100), spacing=(1.0, 1.0, 1.0)))
    assert min(min(patch[1:]) for patch in thin.view_patches) >= 32, "below it the levels have nothing to reduce"
    large = plan_for(replace(CT, spacing=(0.6, 0.8, 0.8)))
    assert all(patch[axis] <= large.patch[axis] for patch in large.view_patches for axis in (1, 2)), "never beyond the budget"


def test_thick_or_few_slices_are_seen_as_they_lie() -> None:
    shapes = [PROSTATE, replace(SMALL, size=(10, 51, 35)), replace(SMALL, size=(1, 51, 35)), replace(SMALL, spacing=(1.0, 1.0, 2.5))]
    for fingerprint in [*shapes, replace(SMALL, channels=3)]:
        assert plan_for(fingerprint).views == (0,), fingerprint
        assert plan_for(fingerprint).augmentation.tilt == 0, fingerprint


def test_blocks_have_no_views() -> None:
    assert plan_for(BRAIN, network="unet3d").views == (0,)
