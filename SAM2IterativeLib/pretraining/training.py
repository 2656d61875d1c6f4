"""Train the compact SAM2 on generated volumes: resumable, on a CPU or a GPU."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..device import Device
from ..errors import ResourceError, SettingsError, WeightsError
from ..files import write_bytes
from ..foundation.arithmetic import fast_arithmetic
from ..foundation.checkpoints import load_foundation, read_tensors
from ..foundation.sam2_model import CompactArchitecture, SAM2Base, build_compact
from .exercise_run import exercise_loss
from .replay import Recorder, repertoire
from .tasks import Clip, Exercise, make_clip, sample_exercise

REFUSED_IN_A_ROW = 50
"""Steps without a finite gradient after which a training gives up."""


@dataclass(frozen=True)
class PretrainingPlan:
    """How long and how.

    Attributes:
        minutes: training time over all sessions; the curriculum and the learning rate follow the share that has passed.
        steps: an upper bound on the steps as well (0: none). A training that reaches it long before its time is over repeats itself
            exactly on the same device, however often it was interrupted.
        learning_rate: peak; rises over 2 % of the time, falls linearly to a fiftieth over the last 40 %.
        batch: how many times the curriculum's number of volumes a step shows; more than 1 is for GPUs.
        recorded: how many kinds of exercises, drawn once from the end of the curriculum, are recorded as CUDA graphs and replayed
            (``replay``), ten times as fast; 0: none, every step draws its kind anew. Volumes are new in every step either way, but after
            an interruption prompts are drawn otherwise than they would have been.
        average: decay of the moving average of the weights, which is what is kept.
        checkpoint_minutes: a checkpoint is written this often.
        score_from: share of the time from which the object score is trained.
        curriculum_from: where in the curriculum to begin (0..1), for training that starts from finished weights.
    """

    minutes: float = 120.0
    steps: int = 0
    seed: int = 0
    batch: int = 1
    recorded: int = 0
    learning_rate: float = 8e-4
    weight_decay: float = 0.02
    average: float = 0.998
    checkpoint_minutes: float = 5.0
    score_from: float = 0.04
    curriculum_from: float = 0.0

    def curriculum(self, share: float) -> float:
        """The place in the curriculum after ``share`` of the time."""
        return self.curriculum_from + (1 - self.curriculum_from) * share


@dataclass
class Progress:
    """Where a training stands; stored in its checkpoint."""

    step: int = 0
    seconds: float = 0.0


def learning_rate(plan: PretrainingPlan, share: float) -> float:
    """The learning rate after ``share`` of the time: warm-up, plateau, linear decay."""
    rise = min(1.0, share / 0.02 + 0.01)
    fall = 1.0 if share < 0.6 else max(0.02, 1 - (share - 0.6) / 0.4)
    return plan.learning_rate * rise * fall


class Pretraining:
    """A training run: model, moving average, optimiser, progress.

    Args:
        checkpoint: file to continue from and to write to.
        start: finished compact weights to begin with, where there is no checkpoint yet; None: random weights. They may be of another
            image size: no weight depends on it.

    Raises:
        WeightsError: the checkpoint or ``start`` is damaged, or of another architecture.
        SettingsError: exercises are to be recorded where that cannot be.
    """

    def __init__(
        self,
        plan: PretrainingPlan,
        checkpoint: Path,
        device: Device,
        architecture: CompactArchitecture | None = None,
        start: Path | None = None,
    ) -> None:
        if plan.recorded and (device.kind != "cuda" or plan.curriculum_from < 0.5):
            raise SettingsError(
                "exercises can be recorded on a CUDA GPU only, and for a training that starts from finished weights.",
                where="recorded",
                cure="Leave it out, or choose device = 'cuda' and weights to start from.",
            )
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.checkpoint = checkpoint
        self.device = device
        self.architecture = architecture or CompactArchitecture()
        self.model = build_compact(self.architecture).to(device.torch)
        if start is not None and not checkpoint.exists():
            self._begin_with(start)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=plan.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=plan.weight_decay,
            fused=device.kind == "cuda",
        )
        self.progress = Progress()
        self._stream = torch.cuda.Stream(device.torch) if device.kind == "cuda" else None
        self._recorder: Recorder | None = None
        self._repertoire = repertoire(plan.seed, plan.recorded, progress=1.0)
        self._generator_thread = ThreadPoolExecutor(1)
        self._upcoming: Future[tuple[Exercise, Clip, torch.Generator]] | None = None
        self._refused = 0
        if checkpoint.exists():
            self._load()

    def run(self, report: Callable[[Progress, float], None], should_stop: Callable[[], bool] = lambda: False) -> None:
        """Train until the plan's time or steps are over, or ``should_stop`` says so; a checkpoint is always left.

        Args:
            report: called after every step with the progress and the loss.
        """
        written = time.monotonic()
        while not self.finished and not should_stop():
            report(self.progress, self.step())
            if time.monotonic() - written > 60 * self.plan.checkpoint_minutes:
                self.save()
                written = time.monotonic()
        self.save()

    @property
    def share(self) -> float:
        """The share of the plan that is done, 0..1."""
        return self._share_at(self.progress.step)

    def _share_at(self, step: int) -> float:
        share = self.progress.seconds / (60 * self.plan.minutes)
        if self.plan.steps:
            share = max(share, step / self.plan.steps)
        return min(1.0, share)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.share >= 1.0

    def record(self) -> None:
        """Record the plan's ``recorded`` exercises; nothing else may use the device meanwhile."""
        self.model.train()
        generator = torch.Generator(self.device.torch).manual_seed(self.plan.seed)
        self._recorder = Recorder(list(self.model.parameters()), self._loss, generator)
        for exercise in self._repertoire:
            self._recorder.loss(*self._clip_of(exercise, generator))

    def step(self) -> float:
        """One exercise, one update; returns the loss."""
        if self._repertoire and self._recorder is None:
            self.record()
        began = time.monotonic()
        step = self.progress.step
        prepared = self._upcoming or self._generator_thread.submit(self._prepared, step, self.share)
        exercise, clip, generator = prepared.result()
        self._upcoming = self._generator_thread.submit(self._prepared, step + 1, self._share_at(step + 1))
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.plan, self.share)
        self.model.train()
        if self._recorder is None:
            self.optimiser.zero_grad(set_to_none=True)
            loss = self._loss(exercise, clip, generator)
            loss.backward()
        else:
            loss = self._recorder.loss(exercise, clip)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if math.isfinite(float(norm)):
            self.optimiser.step()
            self._update_average()
        self._count_refused(math.isfinite(float(norm)))
        self.progress.step += 1
        self.progress.seconds += time.monotonic() - began
        return float(loss.detach())

    def _loss(self, exercise: Exercise, clip: Clip, generator: torch.Generator) -> torch.Tensor:
        with fast_arithmetic(self.device):
            return exercise_loss(
                self.model, exercise, clip, generator, train_score=self.plan.curriculum(self.share) >= self.plan.score_from
            )

    def _count_refused(self, finite: bool) -> None:
        """A step whose gradient is not finite changes nothing; when no other comes, the training is lost."""
        self._refused = 0 if finite else self._refused + 1
        if self._refused == REFUSED_IN_A_ROW:
            raise ResourceError(
                f"the gradient was not finite {REFUSED_IN_A_ROW} times in a row; the checkpoint from before is untouched.",
                where=self.checkpoint,
                cure="Continue on another device, or begin anew with a lower learning rate.",
            )

    def _prepared(self, step: int, share: float) -> tuple[Exercise, Clip, torch.Generator]:
        """The exercise of a step; made in a second thread while the step before is computed.

        A fresh generator per step: a resumed run sees the exercises that it would have seen.
        """
        seed = self.plan.seed * 1_000_003 + step
        choice = torch.Generator().manual_seed(seed)
        if not self._repertoire:
            exercise = sample_exercise(choice, self.plan.curriculum(share))
        else:
            exercise = self._repertoire[int(torch.randint(0, len(self._repertoire), (1,), generator=choice))]
        generator = torch.Generator(self.device.torch).manual_seed(seed)
        # A stream of its own: what it waits for is not what the step before is still computing.
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            exercise, clip = self._clip_of(exercise, generator)
        if self._stream:
            self._stream.synchronize()
        return exercise, clip, generator

    def _clip_of(self, exercise: Exercise, generator: torch.Generator) -> tuple[Exercise, Clip]:
        exercise = replace(exercise, volumes=exercise.volumes * self.plan.batch)
        with torch.no_grad():
            return exercise, make_clip(exercise, generator, self.architecture.image_size)

    def averaged_model(self) -> SAM2Base:
        """A copy of the model with the averaged weights, in evaluation mode."""
        model = build_compact(self.architecture).to(self.device.torch)
        model.load_state_dict(self.average)
        return model.eval()

    def save(self) -> None:
        """Write model, average, optimiser and progress; the old checkpoint stays until the new one is complete."""
        tensors = {f"model.{k}": v.contiguous() for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v.contiguous() for k, v in self.average.items()}
        tensors |= dict(self._optimiser_tensors())
        notes = {"plan": asdict(self.plan), "progress": asdict(self.progress), "architecture": asdict(self.architecture)}
        write_bytes(self.checkpoint, save(tensors, {"pretraining": json.dumps(notes)}))

    def _optimiser_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for index, state in self.optimiser.state_dict()["state"].items():
            for name, value in state.items():
                yield f"optimiser.{index}.{name}", value.contiguous()

    def _begin_with(self, start: Path) -> None:
        theirs = read_tensors(start)[1]
        if theirs is None or replace(theirs, image_size=self.architecture.image_size) != self.architecture:
            raise WeightsError("are weights of another architecture.", where=start, cure="Begin with compact weights of the same sizes.")
        self.model.load_state_dict(load_foundation(str(start), self.device).model.state_dict())

    def _load(self) -> None:
        try:
            with safe_open(self.checkpoint, framework="pt", device=self.device.name) as file:
                notes = json.loads((file.metadata() or {}).get("pretraining", "{}"))
                # Copies: the next save replaces the file, which Windows does to none that is still mapped into memory.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            raise WeightsError(
                "is no checkpoint of a training, or damaged.", where=self.checkpoint, cure="Remove it to begin anew, or choose another one."
            ) from error
        if notes.get("architecture") != json.loads(json.dumps(asdict(self.architecture))):
            raise WeightsError("holds a training of another architecture.", where=self.checkpoint, cure="Choose another checkpoint file.")
        self.model.load_state_dict(_under(tensors, "model."))
        self.average = _under(tensors, "average.")
        saved = self.optimiser.state_dict()
        for name, value in _under(tensors, "optimiser.").items():
            index, key = name.split(".", 1)
            saved["state"].setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict(saved)
        self.progress = Progress(**notes["progress"])

    def _update_average(self) -> None:
        decay = min(self.plan.average, (1 + self.progress.step) / (10 + self.progress.step))
        state = {name: value.detach() for name, value in self.model.state_dict().items()}
        numbers = [name for name, value in state.items() if value.dtype.is_floating_point]
        torch._foreach_lerp_([self.average[name] for name in numbers], [state[name] for name in numbers], 1 - decay)
        for name in state.keys() - set(numbers):
            self.average[name].copy_(state[name])


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
