"""What a run would take, found out by trying: a real training step, a few slices through SAM2; and a plain count of the rest."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .dedicated.networks import build_network, memory_format
from .dedicated.plan import Plan
from .device import Device, is_out_of_memory, release_memory
from .foundation.checkpoints import Foundation, load_foundation
from .foundation.features import Window, encode_volume
from .foundation.propagation import Guidance, Propagator
from .guidance.prompts import reviewed_prompt
from .memory import computer_memory, peak_of_process
from .messages import Needs, Reporter
from .methods import load_method
from .preparation import SPACE_FOR_NETWORKS, SPACE_PER_VOXEL, Preparation
from .presets import weights_in_use
from .pretraining.adaptation import adapts_before_rounds
from .project import Project
from .settings import MemorySettings, Settings

Size = tuple[int, int, int]

_TRIES, _TRIAL_SECONDS = 8, 3.0
_TRIAL_SLICES = 6
_ADAPTATION_SLICES = 20
"""Slices that a step of adapting SAM2 shows, about; learning from one takes three times as long as looking at it."""
_ARRAYS = 6
"""Arrays (C+1, k, j, i) float32 of a case that are in memory together at most: network, history before and now, SAM2's two, the result."""


@dataclass(frozen=True)
class _Trial:
    """Seconds of a training step, of encoding a slice, and of following one class through a slice once; peak memory in bytes."""

    step: float
    encoding: float
    tracking: float
    memory: int | None


def estimate_needs(
    project: Project, plan: Plan, device: Device, foundation: Foundation, rounds: int, settings: Settings | None = None
) -> Needs:
    """Time, memory and disk that ``rounds`` further rounds would take, by the project's settings or others.

    The time of rounds done before counts, else the trial's. It is an estimate: the half or the double may come true.
    """
    cases = project.cases("unlabelled", "validation", usable=True)
    sizes = [project.read_case_header(case)[0].size for case in cases]
    voxels = [k * j * i for k, j, i in sizes]
    remarks = []
    trial = None
    try:
        trial = _tried(plan, device, foundation)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        release_memory()
        remarks.append("A training step does not fit into the device's memory: choose a smaller batch or patch, or the CPU.")
    memory = trial.memory if trial else None
    largest = _ARRAYS * 4 * (plan.classes + 1) * max(voxels, default=0)
    if memory is not None and device.kind == "cpu":
        memory += largest
    total, free = _device_memory(device)
    if memory is not None and free is not None and memory > free + (peak_of_process() or 0):
        remarks.append("The device has too little free memory for this run: close other programs, or choose a smaller batch or patch.")
    _, free_here = computer_memory()
    if free_here is not None and largest > free_here:
        remarks.append(f"The largest case needs about {largest / 1e9:.0f} GB of this computer's memory, of which too little is free.")
    written = rounds if project.journal.rounds() else rounds + 1  # round 0 comes on top
    networks = SPACE_FOR_NETWORKS + written * _weights_bytes(plan)
    disk, disk_free = SPACE_PER_VOXEL * sum(voxels) * written + networks, shutil.disk_usage(project.folder).free
    if disk > disk_free:
        remarks.append("The disk of the project has too little free space for this run.")
    seconds = None if trial is None else _seconds(project, settings or project.settings, plan, sizes, rounds, trial)
    return Needs(device.sentence, total, free, memory, disk, disk_free, seconds, tuple(remarks))


def estimate_run(project: Project, device: Device, report: Reporter, rounds: int, settings: Settings | None = None) -> Needs:
    """``estimate_needs`` with the project's plan, or the one that it would get, and with its SAM2 weights.

    Raises:
        WeightsError: they are missing or cannot be used.
    """
    settings = settings or project.settings
    plan = Preparation(project, device, report, settings).planned()
    weights = weights_in_use(settings.foundation.weights, project.models_folder)
    return estimate_needs(project, plan, device, load_foundation(weights, device), rounds, settings)


def _weights_bytes(plan: Plan) -> int:
    return sum(parameter.nbytes for parameter in build_network(plan).parameters())


def _seconds(project: Project, settings: Settings, plan: Plan, sizes: Sequence[Size], rounds: int, trial: _Trial) -> float:
    finished = project.journal.rounds()
    later = [numbers["seconds"] for round, numbers in finished.items() if round > 0 and numbers.get("seconds")]
    if later:
        return rounds * float(np.mean(later))
    slices, voxels = sum(size[0] for size in sizes), sum(k * j * i for k, j, i in sizes)
    patches = [float(np.prod(plan.across(view).patch)) for view in plan.views]
    step = trial.step * float(np.mean(patches)) / float(np.prod(plan.patch))
    # A forward pass is a third of a step; blocks overlap by half along each axis, views and mirrored images are predicted one by one.
    views = len(plan.views) * 2 ** (len(plan.augmentation.mirror_axes) if plan.mirrored_prediction else 0)
    overlap = 8 if plan.dimensions == 3 else 1
    prediction = trial.step / 3 / plan.batch * views * overlap * voxels / float(np.prod(plan.patch))
    method = load_method(settings.method)
    following = slices * method.looks * plan.classes * trial.tracking
    seconds = rounds * (plan.round_steps * step + prediction + following) + slices * trial.encoding
    if not finished:
        if adapts_before_rounds(project, settings):
            slices_learned = 3 * _ADAPTATION_SLICES * settings.foundation.adaptation_steps
            seconds += slices_learned * (trial.encoding + trial.tracking)
        seconds += plan.first_steps * step + (plan.snapshots if method.has_history else 1) * prediction + following
    return seconds


def _tried(plan: Plan, device: Device, foundation: Foundation) -> _Trial:
    """The time of each part, and the memory of all."""
    if device.kind == "cuda":
        torch.cuda.reset_peak_memory_stats(device.torch)
    step = _fastest(_training_step(plan, device), device)
    image = np.random.default_rng(0).normal(size=(_TRIAL_SLICES, foundation.side, foundation.side)).astype(np.float32)
    mask = np.zeros(image.shape[1:], dtype=bool)
    mask[: foundation.side // 2] = True
    window = Window.whole((foundation.side, foundation.side))
    encoding = _fastest(lambda: encode_volume(foundation, image, window, device), device)
    features = encode_volume(foundation, image, window, device)
    guidance = Guidance(1, {1: [reviewed_prompt(mask, 0, 1)]})
    propagator = Propagator(foundation.model, device, MemorySettings())
    tracking = _fastest(lambda: propagator.propagate(features, guidance), device)
    peak = torch.cuda.max_memory_allocated(device.torch) if device.kind == "cuda" else peak_of_process()
    return _Trial(step, encoding / _TRIAL_SLICES, tracking / _TRIAL_SLICES, peak)


def _training_step(plan: Plan, device: Device) -> Callable[[], None]:
    network = build_network(plan).to(device.torch)
    optimiser = torch.optim.AdamW(network.parameters())
    image = torch.randn(plan.batch, plan.input_channels, *plan.patch[3 - plan.dimensions :])
    image = image.to(device.torch).contiguous(memory_format=memory_format(plan))

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with device.autocast():
            loss = network(image).float().logsumexp(1).mean()
        loss.backward()
        optimiser.step()

    return step


def _fastest(action: Callable[[], object], device: Device) -> float:
    """Seconds of the fastest of a few tries, as other programs' load comes and goes; the first, with its preparations, does not count."""
    _timed(action, device)
    times = [_timed(action, device)]
    while len(times) < _TRIES and sum(times) < _TRIAL_SECONDS:
        times.append(_timed(action, device))
    return min(times)


def _timed(action: Callable[[], object], device: Device) -> float:
    began = time.perf_counter()
    action()
    if device.kind == "cuda":
        torch.cuda.synchronize(device.torch)
    return time.perf_counter() - began


def _device_memory(device: Device) -> tuple[int | None, int | None]:
    """Bytes in all, and free; an Apple GPU shares the computer's memory."""
    if device.kind == "cuda":
        free, total = torch.cuda.mem_get_info(device.torch)
        return int(total), int(free)
    return computer_memory()
