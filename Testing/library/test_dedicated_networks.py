"""dedicated.networks and dedicated.weights: shapes, weights in and out, files that are whole or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from dedicated_cases import PLAN_2D, PLAN_3D
from tiny_sam2 import full_disk

from SAM2IterativeLib.dedicated.networks import ImageNorm, build_network, load_weights_into, memory_format, weights_of
from SAM2IterativeLib.dedicated.plan import Plan
from SAM2IterativeLib.dedicated.weights import content_hash, load_weights, save_weights
from SAM2IterativeLib.errors import ResourceError, WeightsError

ANISOTROPIC = replace(PLAN_3D, patch=(6, 32, 32), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), kernels=((1, 3, 3), (1, 3, 3), (3, 3, 3)))


@pytest.mark.parametrize("plan", [PLAN_2D, PLAN_3D, ANISOTROPIC, replace(PLAN_2D, norm="batch")])
def test_the_network_answers_on_the_patch(plan: Plan) -> None:
    patch = plan.patch[3 - plan.dimensions :]
    logits = build_network(plan)(torch.zeros(2, plan.input_channels, *patch))
    assert logits.shape == (2, plan.classes + 1, *patch)


@pytest.mark.parametrize("plan", [PLAN_2D, PLAN_3D])
def test_image_norm_is_instance_norm(plan: Plan) -> None:
    shape = (3, 5, *plan.patch[3 - plan.dimensions :])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(memory_format=memory_format(plan))
    norm = ImageNorm(5)
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, 6))
        norm.bias.copy_(torch.arange(-2.0, 3))
    result = norm(x)
    assert torch.allclose(result, torch.nn.functional.instance_norm(x, weight=norm.weight, bias=norm.bias), atol=1e-5)
    assert result.is_contiguous(memory_format=memory_format(plan))
    assert sum(isinstance(m, ImageNorm) for m in build_network(plan).modules()) > 0


def test_the_seed_decides_the_first_weights_and_nothing_else() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one, again, other = (content_hash(weights_of(build_network(PLAN_2D, seed))) for seed in (0, 0, 1))
    assert one == again != other
    assert torch.equal(torch.rand(1), expected)


def test_weights_hold_each_tensor_once_and_carry_the_network() -> None:
    plan = replace(PLAN_2D, norm="batch")
    source, target = build_network(plan, 0), build_network(plan, 1)
    source(torch.randn(4, 3, 32, 32))  # moves the running statistics
    weights = weights_of(source)
    assert sum(t.numel() for t in weights.values()) < sum(t.numel() for t in source.state_dict().values())
    load_weights_into(target, weights)
    image = torch.randn(2, 3, 32, 32)
    assert torch.equal(source.eval()(image), target.eval()(image))


def test_weights_are_a_copy() -> None:
    network = build_network(PLAN_2D)
    weights = weights_of(network)
    before = content_hash(weights)
    with torch.no_grad():
        next(network.parameters()).add_(1)
    assert content_hash(weights) == before


def test_weights_of_another_plan_are_refused() -> None:
    weights = weights_of(build_network(PLAN_2D))
    with pytest.raises(WeightsError, match=r"round_0: the weights do not fit the planned network"):
        load_weights_into(build_network(replace(PLAN_2D, classes=3)), weights, "round_0")
    with pytest.raises(WeightsError, match="do not fit"):
        load_weights_into(build_network(PLAN_2D), {"nothing": torch.zeros(1)})


def test_a_file_gives_back_what_was_written_with_the_same_bytes(tmp_path: Path) -> None:
    weights = weights_of(build_network(PLAN_2D))
    for name in ("a", "b"):
        save_weights(tmp_path / name, weights, {"round": 2, "plan": PLAN_2D.digest, "losses": [0.5, 0.25]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found, description = load_weights(tmp_path / "a")
    assert description == {"round": 2, "plan": PLAN_2D.digest, "losses": [0.5, 0.25]}
    assert found.keys() == weights.keys() and all(torch.equal(found[n], weights[n]) for n in weights)


def test_truncated_altered_foreign_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    save_weights(path, {"a": torch.arange(1000.0)}, {})
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with pytest.raises(WeightsError, match=r"network\.safetensors: the file is no whole safetensors file"):
        load_weights(path)
    path.write_bytes(whole[:-7] + b"\x01" + whole[-6:])
    with pytest.raises(WeightsError, match="altered"):
        load_weights(path)
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="no whole safetensors file"):
        load_weights(path)
    with pytest.raises(WeightsError, match="missing"):
        load_weights(tmp_path / "other.safetensors")


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    save_weights(path, {"a": torch.ones(3)}, {})
    with full_disk(50_000), pytest.raises(ResourceError, match=r"network\.safetensors: the weights cannot be written"):
        save_weights(path, {"a": torch.zeros(100_000)}, {})
    assert torch.equal(load_weights(path)[0]["a"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["network.safetensors"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux alone tells what is mapped.")
def test_what_was_read_lets_go_of_its_file(tmp_path: Path) -> None:
    """Windows replaces no file that is mapped into memory, and a checkpoint is replaced by the training that it was read for."""
    path = tmp_path / "network.safetensors"
    save_weights(path, {"a": torch.arange(100_000.0)}, {})
    found, _ = load_weights(path)
    assert found["a"][-1] == 99_999 and str(path) not in Path("/proc/self/maps").read_text()


def test_an_empty_tensor_and_a_scalar_survive(tmp_path: Path) -> None:
    tensors = {"empty": torch.zeros(0, 3), "scalar": torch.tensor(4.0)}
    save_weights(tmp_path / "w", tensors, {})
    found, _ = load_weights(tmp_path / "w")
    assert found["empty"].shape == (0, 3) and found["scalar"].item() == 4.0
