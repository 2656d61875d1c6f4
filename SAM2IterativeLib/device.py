"""Which processor computes, and with how many bits: chosen once, tried out before it is trusted, explained in a sentence.

A device that reports itself as present may still not run the installed torch (too old, too new, driver missing), and a number
format that reports itself as supported may be emulated. So both are decided by capability *and* by a small trial.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
import torch.utils.deterministic

from .errors import ResourceError, SettingsError

Result = TypeVar("Result")

WISHES = ("auto", "cpu", "cuda", "mps")

_LOG = logging.getLogger(__name__)
_FULL_ON_MPS, _FULL_ON_CPU = "MPS backend out of memory", "DefaultCPUAllocator"


@dataclass(frozen=True)
class Device:
    """A processor that passed its trial.

    ``name`` is torch's name ("cpu", "cuda:0", "mps"); ``precision`` the number format of autocast (float32: no autocast);
    ``title`` what a person calls it; ``reason`` one sentence on why this one and not another.
    """

    name: str
    precision: torch.dtype = torch.float32
    title: str = ""
    reason: str = ""

    @property
    def kind(self) -> str:
        """``cpu``, ``cuda`` or ``mps``."""
        return self.name.partition(":")[0]

    @property
    def torch(self) -> torch.device:
        """The device as torch knows it."""
        return torch.device(self.name)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which convolutions and matrix products run in ``precision``."""
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.kind, dtype=self.precision)

    def in_full_precision(self) -> Device:
        """The same processor in float32, for a retry after a loss that was not finite."""
        return replace(self, precision=torch.float32)

    @property
    def sentence(self) -> str:
        """What a log says about it."""
        return f"{self.title or self.name}, {str(self.precision).removeprefix('torch.')}. {self.reason}".strip()


def choose_device(wish: str = "auto") -> Device:
    """The device that a person asked for, or with "auto" the fastest that works.

    "auto" takes CUDA, then MPS, then the CPU; a device that is present but fails its trial is passed over, and ``reason`` says so.

    Args:
        wish: one of "auto", "cpu", "cuda", "mps", or a torch name such as "cuda:1".

    Raises:
        SettingsError: the wish is none of these.
        ResourceError: the device asked for is absent or cannot run the installed torch; nothing else is taken silently.
    """
    if wish.partition(":")[0] not in WISHES:
        raise SettingsError(f"'{wish}' is not a device.", where="device", cure=f"Known are: {', '.join(WISHES)}.")
    if wish == "cpu":
        return _cpu("Asked for.")
    if wish != "auto":
        complaint = _complaint(wish)
        if complaint:
            raise ResourceError(f"the device cannot be used: {complaint}", where=wish, cure="Choose device = 'auto' or 'cpu'.")
        return _cpu("Asked for.") if wish.startswith("cpu") else _accelerator(wish, "Asked for.")  # "cpu:0" is torch's name too
    return _best_available()


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """Within this context the same seed gives the same result on the same machine, on a GPU as well.

    Torch then also fills all memory that it hands out, against code that reads what was never written; that took a tenth of a training
    step (left atria, one core: 0.41 s with, 0.37 s without) and changed no weight, so it is left off.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    tuned, exact = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    deterministic: Any = torch.utils.deterministic  # a property of the module, which type checkers do not see
    filled = deterministic.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself only with a fixed workspace
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = tuned, exact
        deterministic.fill_uninitialized_memory = filled


def with_smaller_batches(action: Callable[[int], Result], batch: int) -> tuple[Result, int]:
    """Call ``action(batch)``; halve the batch each time the device runs out of memory.

    Only full memory is answered so (see ``is_out_of_memory``): any other error is a fault and goes up.

    Returns:
        The action's result, and the batch that fitted: the caller starts from there next time.

    Raises:
        ResourceError: not even one item at a time fits.
    """
    while True:
        try:
            return action(batch), batch
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if batch <= 1:
                raise ResourceError(
                    "the device has too little memory even for one item at a time.",
                    cure="Choose device = 'cpu', a smaller patch in plan.toml, or smaller SAM2 weights.",
                ) from error
        # Outside the except block: the error's traceback would keep the tensors of the failed attempt alive.
        batch = max(1, batch // 2)
        release_memory()
        _LOG.warning("the device's memory is full: going on with %d at once.", batch)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator's memory is full; MPS says so in a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and _FULL_ON_MPS in str(error))


def full_memory(error: BaseException) -> str:
    """Whose memory an error says to be full, in words; an error that says something else is a fault and raised again."""
    if is_out_of_memory(error):
        return "the memory of the device"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _FULL_ON_CPU in str(error)):
        return "the memory of this computer"
    raise error


def release_memory() -> None:
    """Give cached accelerator memory back; nothing on the CPU."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _best_available() -> Device:
    passed_over = []
    for name, present in (("cuda", torch.cuda.is_available), ("mps", torch.backends.mps.is_available)):
        if not present():
            continue
        complaint = _complaint(name)
        if complaint is None:
            return _accelerator(name, "Found and tried.")
        passed_over.append(f"{name} was passed over: {complaint}")
    return _cpu(" ".join(passed_over) or "No GPU was found.")


def _accelerator(name: str, reason: str) -> Device:
    if name.startswith("mps"):
        return Device(name, torch.float32, f"Apple GPU ({platform.machine()})", reason)
    index = torch.device(name).index or 0
    title = torch.cuda.get_device_name(index)
    return Device(f"cuda:{index}", _cuda_precision(index, title), title, reason)


def _cuda_precision(index: int, title: str) -> torch.dtype:
    """bfloat16 from compute capability 8.0 (below it is emulated), float16 from 7.0, but never on a GTX 16xx, which overflows."""
    major, _ = torch.cuda.get_device_capability(index)
    if major >= 8 and _complaint(f"cuda:{index}", torch.bfloat16) is None:
        return torch.bfloat16
    if major >= 7 and "GTX 16" not in title and _complaint(f"cuda:{index}", torch.float16) is None:
        return torch.float16
    return torch.float32


def _cpu(reason: str) -> Device:
    threads = torch.get_num_threads()
    return Device("cpu", _cpu_precision(), f"CPU with {threads} thread{'s' if threads != 1 else ''}", reason)


def _cpu_precision() -> torch.dtype:
    """bfloat16 where the CPU multiplies it in hardware (AMX, or AVX-512 with bfloat16), else float32.

    Measured on two cores with AMX: a training step of a 2-D U-Net takes 240 ms instead of 600, a 3-D one 100 ms instead of 260; on one
    core with AVX-512 half the time of float32, in 2-D and in 3-D. The capability decides, not a stopwatch: a busy machine must not
    change the results.
    """
    ask: Callable[[], Mapping[str, object]] = getattr(torch.cpu, "get_capabilities", dict)
    capable = ask()
    native = bool(capable.get("amx_bf16") and capable.get("amx_tile")) or bool(capable.get("avx512_bf16"))
    return torch.bfloat16 if native and _complaint("cpu", torch.bfloat16) is None else torch.float32


def _complaint(name: str, precision: torch.dtype = torch.float32) -> str | None:
    """None if a small convolution and its gradient run on the device and are right; else why not, in a few words."""
    try:
        image = torch.linspace(-1.0, 1.0, 2 * 8 * 16 * 16).reshape(2, 8, 16, 16)
        weight = torch.linspace(-0.1, 0.1, 8 * 8 * 3 * 3).reshape(8, 8, 3, 3)
        expected = _trial(image, weight)
        found = _trial(image.to(name, precision), weight.to(name, precision)).float().cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch's own: no kernel, no driver, not compiled in
        return str(error).splitlines()[0]
    off = float((found - expected).abs().max() / expected.abs().max())
    return None if off < 0.05 else f"a trial convolution was off by {off:.0%}."


def _trial(image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    weight = weight.clone().requires_grad_()
    torch.nn.functional.conv2d(image, weight, padding=1).square().mean().backward()
    gradient = weight.grad
    if gradient is None:
        raise RuntimeError("no gradient came back.")
    return gradient
