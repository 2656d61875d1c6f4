from __future__ import annotations

import dataclasses

import pytest
import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor
from tiny_sam2 import SIDE, TINY, tiny_model

from SAM2IterativeLib.errors import SettingsError, WeightsError
from SAM2IterativeLib.foundation.sam2_model import (
    OFFICIAL_CONFIGURATIONS,
    CompactArchitecture,
    build_compact,
    build_official,
    encode_images,
)
from SAM2IterativeLib.foundation.tracking import NO_MEMORIES, padding_points, track_slice


def images(count: int, side: int = SIDE) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("seed", range(3))
def test_the_object_score_starts_positive_so_that_masks_have_a_gradient(seed: int) -> None:
    model = tiny_model(seed)
    features = encode_images(model, images(4))
    result = track_slice(model, features, 0, NO_MEMORIES, points=padding_points(4, torch.device("cpu")))
    assert float(result.object_score.min()) > 0
    assert float(result.logits.min()) > -1024


def test_the_shipped_size_fits_twenty_megabytes_in_half_precision() -> None:
    parameters = sum(p.numel() for p in build_compact().parameters())
    assert 2 * parameters < 20e6


def test_features_have_strides_4_8_and_16() -> None:
    features = encode_images(tiny_model(), images(2))
    assert [level.shape[-1] for level in features.levels] == [SIDE // 4, SIDE // 8, SIDE // 16]
    assert [p.shape[-2:] for p in features.positions] == [level.shape[-2:] for level in features.levels]
    assert len(features) == 2


def test_slices_encoded_together_and_one_by_one_are_the_same() -> None:
    model, pictures = tiny_model(), images(5)
    together = encode_images(model, pictures)
    for index in range(5):
        alone = encode_images(model, pictures[index : index + 1])
        for level, one in zip(together.levels, alone.levels, strict=True):
            torch.testing.assert_close(level[index : index + 1], one, atol=1e-5, rtol=1e-4)


def test_selected_features_are_rows_repeated_as_asked() -> None:
    features = encode_images(tiny_model(), images(3))
    chosen = features.select(torch.tensor([2, 2, 0]))
    assert len(chosen) == 3
    assert torch.equal(chosen.levels[0][1], features.levels[0][2])
    tokens, positions, sizes = chosen.tokens()
    assert [(t.shape[0], t.shape[1]) for t in tokens] == [(h * w, 3) for h, w in sizes]
    assert [p.shape for p in positions] == [(t.shape[0], 3, p.shape[2]) for t, p in zip(tokens, positions, strict=True)]


def test_the_stock_predictor_takes_the_same_tensors() -> None:
    ours, stock = tiny_model(0).state_dict(), tiny_model(1, SAM2VideoPredictor).state_dict()
    assert {name: t.shape for name, t in ours.items()} == {name: t.shape for name, t in stock.items()}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"image_size": 0}, "1..4096"),
        ({"image_size": 10**9}, "1..4096"),
        ({"image_size": 80}, "multiple of 32"),
        ({"stages": (1, 1, 2)}, "four stages"),
        ({"stages": (1, 1, 2, 0)}, "1..4096"),
        ({"model_dim": 40}, "model_dim"),
        ({"memory_dim": 24}, "memory_dim"),
        ({"global_blocks": (2,)}, "first of a stage"),
        ({"global_blocks": (0,)}, "first of a stage"),
    ],
)
def test_sizes_of_which_no_model_can_be_built_are_refused(change: dict[str, object], rule: str) -> None:
    with pytest.raises(SettingsError, match=rule):
        dataclasses.replace(TINY, **change)  # type: ignore[arg-type]


def test_the_default_sizes_are_valid() -> None:
    assert CompactArchitecture().image_size == 192


def test_an_unknown_official_name_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"sam2\.1-tiny"):
        build_official("sam3-huge")


def test_official_presets_are_built_as_the_stock_predictor_is() -> None:
    model = build_official("sam2.1-tiny", 64)
    assert model.image_size == 64
    assert model.binarize_mask_from_pts_for_mem_enc
    assert model.sam_mask_decoder.dynamic_multimask_via_stability
    assert sum(p.numel() for p in model.parameters()) == 38_962_498
    assert "medsam2" in OFFICIAL_CONFIGURATIONS


def test_medsam2_has_512_pixels() -> None:
    assert build_official("medsam2").image_size == 512
