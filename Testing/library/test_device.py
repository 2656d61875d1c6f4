"""device: wishes, trials, and the answer to full memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.utils.deterministic

from SAM2IterativeLib import device as devices
from SAM2IterativeLib.device import Device, choose_device, repeatable, with_smaller_batches
from SAM2IterativeLib.errors import ResourceError, SettingsError


def test_cpu_is_always_there_and_says_why() -> None:
    device = choose_device("cpu")
    assert device.kind == "cpu" and "CPU" in device.sentence and "Asked for" in device.sentence


def test_unknown_device_names_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"'gpu' is not a device.*auto, cpu, cuda, mps"):
        choose_device("gpu")


def test_a_cpu_with_a_number_is_the_cpu() -> None:
    assert choose_device("cpu:0") == choose_device("cpu")
    with pytest.raises(ResourceError, match=r"cpu:x.*cannot be used"):
        choose_device("cpu:x")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is present")
def test_an_absent_device_is_refused_and_never_replaced_silently() -> None:
    with pytest.raises(ResourceError, match=r"cuda.*cannot be used.*'auto' or 'cpu'"):
        choose_device("cuda")


def test_auto_passes_over_a_device_that_fails_its_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_complaint", lambda name, precision=torch.float32: None if name == "cpu" else "no kernel image.")
    device = choose_device("auto")
    assert device.kind == "cpu"
    assert device.reason == "cuda was passed over: no kernel image."


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": False, "amx_tile": False, "avx512_bf16": False}, torch.float32),
        ({}, torch.float32),
        ({"amx_bf16": True, "amx_tile": False}, torch.float32),
        ({"amx_bf16": True, "amx_tile": True}, torch.bfloat16),
        ({"avx512_bf16": True}, torch.bfloat16),
    ],
)
def test_half_precision_needs_hardware(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: torch.dtype) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_device("cpu").precision == expected


@pytest.mark.parametrize(
    ("capability", "title", "expected"),
    [
        ((9, 0), "H100", torch.bfloat16),
        ((7, 5), "Tesla T4", torch.float16),
        ((7, 5), "NVIDIA GeForce GTX 1660", torch.float32),
        ((6, 1), "GeForce GTX 1080", torch.float32),
    ],
)
def test_cuda_precision_by_capability(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], title: str, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    monkeypatch.setattr(devices, "_complaint", lambda name, precision=torch.float32: None)
    assert devices._cuda_precision(0, title) == expected


def test_a_wrong_result_fails_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices._complaint("cpu") is None
    real = devices._trial
    monkeypatch.setattr(devices, "_trial", lambda image, weight: real(image, weight) * (2 if image.dtype == torch.bfloat16 else 1))
    assert "off by" in (devices._complaint("cpu", torch.bfloat16) or "")


FULL = (
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.92 GiB, max allowed: 18.13 GiB). Tried to allocate 512.00 MiB."),
)
"""How devices say that their memory is full."""


@pytest.mark.parametrize("full", FULL)
def test_batches_are_halved_until_they_fit(full: RuntimeError, caplog: pytest.LogCaptureFixture) -> None:
    tried: list[int] = []

    def action(batch: int) -> str:
        tried.append(batch)
        if batch > 3:
            raise full
        return "done"

    assert with_smaller_batches(action, 13) == ("done", 3)
    assert tried == [13, 6, 3] and [record.getMessage()[-18:] for record in caplog.records] == ["on with 6 at once.", "on with 3 at once."]


@pytest.mark.parametrize("full", FULL)
def test_full_memory_with_one_item_is_explained(full: RuntimeError) -> None:
    def action(batch: int) -> None:
        raise full

    with pytest.raises(ResourceError, match=r"one item at a time.*device = 'cpu'"):
        with_smaller_batches(action, 4)


def test_other_errors_are_not_swallowed() -> None:
    def action(batch: int) -> None:
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        with_smaller_batches(action, 4)


def test_full_precision_needs_no_autocast() -> None:
    device = Device("cpu", torch.bfloat16)
    layer = torch.nn.Linear(4, 4)
    with device.autocast():
        assert layer(torch.ones(1, 4)).dtype == torch.bfloat16
    with device.in_full_precision().autocast():
        assert layer(torch.ones(1, 4)).dtype == torch.float32


def test_repeatable_leaves_the_settings_as_they_were() -> None:
    deterministic: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), deterministic.fill_uninitialized_memory
    with repeatable():
        assert torch.are_deterministic_algorithms_enabled()
        assert not deterministic.fill_uninitialized_memory
    assert (torch.are_deterministic_algorithms_enabled(), deterministic.fill_uninitialized_memory) == before
