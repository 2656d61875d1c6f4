from __future__ import annotations

import pytest
import torch
from tiny_sam2 import SIDE, tiny_model

from SAM2IterativeLib.foundation.sam2_model import SAM2Base, SliceFeatures, encode_images, object_score_bias
from SAM2IterativeLib.foundation.tracking import (
    NO_MEMORIES,
    Memories,
    Points,
    SliceResult,
    encode_memory,
    padding_points,
    track_slice,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> SAM2Base:
    return tiny_model()


@pytest.fixture(scope="module")
def features(model: SAM2Base) -> SliceFeatures:
    images = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    return encode_images(model, images)


def square_mask(rows: int = 1, side: int = 20) -> torch.Tensor:
    mask = torch.zeros(rows, 1, SIDE, SIDE)
    mask[:, :, 10 : 10 + side, 30 : 30 + side] = 1
    return mask


def points(*labels: int) -> Points:
    coordinates = torch.tensor([[[12.0 + 9 * n, 50.0 - 7 * n] for n in range(len(labels))]])
    return {"point_coords": coordinates, "point_labels": torch.tensor([labels], dtype=torch.int32)}


def remembered(model: SAM2Base, features: SliceFeatures, row: int, mask: torch.Tensor) -> SliceResult:
    return track_slice(model, features.select(torch.tensor([row])), 0, NO_MEMORIES, mask=mask)


def test_a_mask_is_taken_word_for_word(model: SAM2Base, features: SliceFeatures) -> None:
    result = remembered(model, features, 0, square_mask())
    assert torch.equal(result.logits > 0, square_mask() > 0)
    assert float(result.object_score) > 0


def test_an_empty_mask_says_that_the_object_is_not_there(model: SAM2Base, features: SliceFeatures) -> None:
    result = remembered(model, features, 0, square_mask(side=0))
    assert float(result.object_score) < 0
    assert not bool((result.logits > 0).any())


@pytest.mark.parametrize(("prompt", "candidates"), [(points(1), 3), (points(2, 3), 1), (points(2, 3, 1), 1)])
def test_only_a_single_click_leaves_several_candidates(model: SAM2Base, features: SliceFeatures, prompt: Points, candidates: int) -> None:
    result = track_slice(model, features.select(torch.tensor([0])), 0, NO_MEMORIES, points=prompt)
    assert result.candidates.shape == (1, candidates, SIDE, SIDE)
    assert result.quality.shape == (1, candidates)
    best = int(result.quality.argmax())
    assert torch.equal(result.logits[:, 0], result.candidates[:, best])


def test_objects_together_and_one_by_one_are_the_same(model: SAM2Base, features: SliceFeatures) -> None:
    masks = torch.cat([square_mask(side=8), square_mask(side=30), square_mask(side=0)])
    first = track_slice(model, features, 0, NO_MEMORIES, mask=masks)
    together = track_slice(model, features, 1, Memories({0: first.entry}, {}, 4))
    for row in range(3):
        alone = remembered(model, features, row, masks[row : row + 1])
        here = features.select(torch.tensor([row]))
        result = track_slice(model, here, 1, Memories({0: alone.entry}, {}, 4))
        torch.testing.assert_close(together.logits[row : row + 1], result.logits, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(together.object_score[row : row + 1], result.object_score, atol=1e-4, rtol=1e-3)


def test_a_slice_listens_to_its_memories_unless_it_is_a_first_one(model: SAM2Base, features: SliceFeatures) -> None:
    here = features.select(torch.tensor([1]))
    small, large = (remembered(model, features, 0, square_mask(side=side)).entry for side in (8, 30))
    results = [track_slice(model, here, 1, Memories({0: entry}, {}, 4)) for entry in (small, large)]
    assert not torch.allclose(results[0].logits, results[1].logits)
    ignored = [track_slice(model, here, 1, Memories({0: entry}, {}, 4), first=True) for entry in (small, large)]
    assert torch.equal(ignored[0].logits, ignored[1].logits)
    assert torch.equal(ignored[0].logits, track_slice(model, here, 1, NO_MEMORIES).logits)


def test_the_distance_of_a_recent_memory_matters(model: SAM2Base, features: SliceFeatures) -> None:
    here = features.select(torch.tensor([1]))
    key, recent = (remembered(model, features, row, square_mask(side=8 + 10 * row)).entry for row in (0, 2))
    near, far = (track_slice(model, here, 9, Memories({0: key}, {number: recent}, 20)).logits for number in (8, 4))
    assert not torch.allclose(near, far)


def test_padding_points_say_nothing(model: SAM2Base, features: SliceFeatures) -> None:
    here = features.select(torch.tensor([0]))
    key = remembered(model, features, 2, square_mask()).entry
    memories = Memories({0: key}, {}, 4)
    with_padding = track_slice(model, here, 1, memories, points=padding_points(1, CPU), first=False)
    assert torch.equal(with_padding.logits, track_slice(model, here, 1, memories).logits)


def test_previous_logits_are_a_prompt_that_is_refined_not_copied(model: SAM2Base, features: SliceFeatures) -> None:
    here, dense = features.select(torch.tensor([0])), torch.full((1, 1, SIDE // 4, SIDE // 4), -10.0)
    dense[..., 4:9, 4:9] = 10
    plain = track_slice(model, here, 0, NO_MEMORIES, points=points(2, 3))
    told = track_slice(model, here, 0, NO_MEMORIES, points=points(2, 3), previous_logits=dense)
    assert not torch.allclose(plain.logits, told.logits)
    assert not torch.equal(told.low_logits, dense)


def test_the_result_is_the_stock_models_own(model: SAM2Base, features: SliceFeatures) -> None:
    here = features.select(torch.tensor([1]))
    key = remembered(model, features, 0, square_mask()).entry
    tokens, positions, sizes = here.tokens()
    stock = model.track_step(
        2,
        False,
        tokens,
        positions,
        sizes,
        None,
        None,
        {"cond_frame_outputs": {0: {**key, "maskmem_features": key["maskmem_features"].float()}}, "non_cond_frame_outputs": {}},
        9,
    )
    ours = track_slice(model, here, 2, Memories({0: key}, {}, 9))
    assert torch.equal(ours.logits, stock["pred_masks_high_res"])
    assert torch.equal(ours.entry["obj_ptr"], stock["obj_ptr"])
    assert torch.equal(ours.entry["maskmem_features"], stock["maskmem_features"].bfloat16())


def test_a_memory_can_be_written_later(model: SAM2Base, features: SliceFeatures) -> None:
    here = features.select(torch.tensor([0]))
    at_once = track_slice(model, here, 0, NO_MEMORIES, points=points(2, 3))
    later = track_slice(model, here, 0, NO_MEMORIES, points=points(2, 3), remember=False)
    assert "maskmem_features" not in later.entry
    encode_memory(model, here, later.entry, later.logits, prompted=True)
    assert torch.equal(at_once.entry["maskmem_features"], later.entry["maskmem_features"])


def test_memories_are_kept_small_in_use_and_whole_in_training(features: SliceFeatures) -> None:
    model = tiny_model()
    here = features.select(torch.tensor([0]))
    assert track_slice(model, here, 0, NO_MEMORIES, mask=square_mask()).entry["maskmem_features"].dtype == torch.bfloat16
    model.train().requires_grad_(True)
    entry = track_slice(model, here, 0, NO_MEMORIES, mask=square_mask()).entry
    assert entry["maskmem_features"].dtype == torch.float32
    track_slice(model, here, 1, Memories({0: entry}, {}, 4)).logits.sum().backward()
    gradient = model.memory_encoder.out_proj.weight.grad
    assert gradient is not None and float(gradient.abs().sum()) > 0


def test_an_object_that_is_known_to_be_there_is_not_scored_away(features: SliceFeatures) -> None:
    model = tiny_model()
    with torch.no_grad():
        object_score_bias(model).fill_(-100.0)
    here = features.select(torch.tensor([0]))
    asked, known = (track_slice(model, here, 0, NO_MEMORIES, points=points(2, 3), present=present) for present in (False, True))
    assert bool((asked.logits == -1024).all()) and float(asked.object_score) < 0
    assert bool((known.logits > -1024).all()) and float(known.object_score) > 0
    assert model.pred_obj_scores
