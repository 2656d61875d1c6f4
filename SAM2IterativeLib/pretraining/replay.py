"""Training steps recorded once as CUDA graphs and replayed: what a GPU waits for is the launching of thousands of small kernels.

Measured on an H200 with the compact architecture, a step of 24 slices launches 8,400 kernels, which take 25 ms to compute and 290 ms to
launch; a step of 192 slices takes 700 ms so and 68 ms from recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from .tasks import Clip, Exercise, sample_exercise

Loss = Callable[[Exercise, Clip, torch.Generator], torch.Tensor]


class ConstantsOnDevice(TorchFunctionMode):
    """Within this context ``torch.tensor`` returns the same tensor for the same arguments, made once and kept on the device.

    A recording may not copy from the host, and sam2 makes the distances of its object pointers so.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device
        self._made: dict[str, torch.Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not torch.tensor:
            return func(*args, **(kwargs or {}))
        key = repr((args, kwargs))
        if key not in self._made:
            self._made[key] = func(*args, **{**(kwargs or {}), "device": self._device})
        return self._made[key]


def repertoire(seed: int, count: int, progress: float) -> list[Exercise]:
    """``count`` exercises of the curriculum at ``progress``: as many kinds as are recorded."""
    generator = torch.Generator().manual_seed(seed)
    return [sample_exercise(generator, progress) for _ in range(count)]


@dataclass
class _Recording:
    graph: torch.cuda.CUDAGraph
    clip: Clip
    loss: torch.Tensor


class Recorder:
    """Losses and gradients of exercises, from recordings.

    The gradients lie in the parameters' ``grad``, at the same place for every exercise; they are set, not added to.

    Args:
        parameters: of the model; what they hold as ``grad`` is replaced and must stay in its place.
        loss: the mean loss of an exercise, without a look at the device's values and without random numbers but the generator's.
        generator: of the device; every replay draws on from where it stands.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], loss: Loss, generator: torch.Generator) -> None:
        self._loss = loss
        self._generator = generator
        self._constants = ConstantsOnDevice(generator.device)
        self._pool = torch.cuda.graph_pool_handle()
        self._recordings: dict[Exercise, _Recording] = {}
        self._gradients = [torch.zeros_like(parameter) for parameter in parameters]
        for parameter, gradient in zip(parameters, self._gradients, strict=True):
            parameter.grad = gradient

    def loss(self, exercise: Exercise, clip: Clip) -> torch.Tensor:
        """The loss of ``exercise`` on ``clip``, detached; its gradients are in place.

        The first time an exercise is met, it is recorded: then no other thread may use the device.
        """
        recording = self._recordings.get(exercise)
        if recording is None:
            recording = self._recordings[exercise] = self._record(exercise, clip)
        for field in fields(Clip):
            getattr(recording.clip, field.name).copy_(getattr(clip, field.name))
        recording.graph.replay()
        return recording.loss

    def _record(self, exercise: Exercise, clip: Clip) -> _Recording:
        own = Clip(*(getattr(clip, field.name).clone() for field in fields(Clip)))
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # once without recording: sam2 keeps position codes and constants that it makes on first use
            self._once(exercise, own)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph, pool=self._pool):
            loss = self._once(exercise, own)
        return _Recording(graph, own, loss)

    def _once(self, exercise: Exercise, clip: Clip) -> torch.Tensor:
        torch._foreach_zero_(self._gradients)
        with self._constants:
            loss = self._loss(exercise, clip, self._generator)
        loss.backward()
        return loss.detach()
