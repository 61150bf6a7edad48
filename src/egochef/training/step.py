"""One optimiser step: gradients of micro-batches added up, an update, and where the time went.

In: a `TorchEngine`, a TrainConfig and `MicroBatch`es. Out: changed weights and a step's losses. All random numbers are
drawn from keys: dropout and CutMix from (seed, step, micro-batch), times and pictures from (seed, epoch, position).

    uint8 frames (B, T, S, S, 3) -> to_input, CutMix -> (B, T, 3, S, S) -> encoder -> (B, T, D) -> logits -> loss
"""

import copy
import ctypes
import math
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from egochef.data.transforms import to_input
from egochef.engines.torch_engine import TorchEngine
from egochef.errors import InputError
from egochef.inference.scoring import ENCODE_FRAMES
from egochef.model.encoders import freeze_stages
from egochef.model.recogniser import Logits, Recogniser, encode_frames
from egochef.ranks import Ranks
from egochef.runtime import mixed_precision, seed_torch
from egochef.training.config import TrainConfig
from egochef.training.objective import Guide, Mix, mix_clips, recognition_loss
from egochef.training.sources import MicroBatch
from egochef.training.state import Parts

TIMED = ("data", "copy", "forward", "backward", "optimiser")
"""parts of a step: waiting for clips; bringing them into the model's form, with CutMix; and what their names say"""


LOST_ONEDNN = "could not create a primitive"
"""oneDNN found no memory for its code. A flag of its assembler then stays set: this thread can make no more of it."""
NO_MEMORY = (
    "can't allocate memory",  # torch's allocator on a CPU
    "bad_alloc",  # C++'s
    LOST_ONEDNN,
    "could not execute a primitive",
    "CUDA error: out of memory",  # the driver's, past torch's allocator
    "STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN
    "DEVICE_ALLOCATION_FAILED",  # cuDNN from version 9 on
)
"""in the words of a RuntimeError, beside torch's own class for CUDA's memory"""


class OutOfMemoryError(Exception):
    """The device has no room for a micro-batch. Its text is what the device said."""

    def __init__(self, why: str, *, process_is_lost: bool):
        super().__init__(why)
        self.process_is_lost = process_is_lost
        """no step can be taken in this process any more, on this rank or another"""


class _Room:
    there = True
    why = ""
    """what this rank's device said, where there was none"""


class StepTimer:
    """Splits the time of a step: the clock for what the program waits for, the device's own events on CUDA."""

    def __init__(self, device: torch.device):
        self._on_cuda = device.type == "cuda"
        self.restart()

    def restart(self) -> None:
        """Begin a step."""
        self._began = time.perf_counter()
        self._spent_s = dict.fromkeys(TIMED, 0.0)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if self._on_cuda and name != "data":
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            yield
            end.record()
            self._events.append((name, begin, end))
        else:
            began = time.perf_counter()
            yield
            self._spent_s[name] += time.perf_counter() - began

    def read_ms(self) -> dict[str, float]:
        """`data_ms` to `optimiser_ms`, and `step_ms` for the whole since `restart`; waits for the device."""
        if self._events:
            self._events[-1][2].synchronize()
        for name, begin, end in self._events:
            self._spent_s[name] += begin.elapsed_time(end) / 1000
        self._events = []
        spent_s = self._spent_s | {"step": time.perf_counter() - self._began}
        return {f"{name}_ms": round(1000 * seconds, 3) for name, seconds in spent_s.items()}


@dataclass(frozen=True)
class StepResult:
    """What a step came to."""

    loss: float
    """mean over the step's clips; the sum of those of verb, noun and action"""
    verb_loss: float
    noun_loss: float
    action_loss: float | None
    """None without a joint head"""
    grad_norm: float
    """before it was scaled down"""
    skipped: bool
    """nothing was changed, because the loss or the gradients were not finite"""
    segment: np.ndarray
    """places of this rank's clips among the segments to learn from"""
    failures: tuple[tuple[str, str], ...]
    """(video_id, reason) of this rank's clips that could not be read"""


class _TrainedPart(nn.Module):
    """What gradients go through, in one module with one forward, as DistributedDataParallel wants it."""

    def __init__(self, engine: TorchEngine, encoder_is_fixed: bool):
        super().__init__()
        self.recogniser = engine.recogniser
        self._dtype, self._device, self._fixed = engine.dtype, engine.device, encoder_is_fixed
        self._engine = (engine,)  # in a tuple: its folded encoder is no part of what is trained

    def forward(self, inputs: Tensor, from_features: bool) -> tuple[Logits, Tensor | None]:
        """Normalised frames (B, T, 3, S, S), or features (B, T, D) -> logits, and those of a joint head."""
        if from_features:
            return self.recogniser.classify_actions(inputs)
        if self._fixed:
            return self.recogniser.classify_actions(_encode_fixed(self._engine[0], inputs))
        with mixed_precision(self._device, self._dtype):
            return self.recogniser.recognise(inputs)


@torch.no_grad()
def _encode_fixed(engine: TorchEngine, inputs: Tensor) -> Tensor:
    """Normalised frames (B, T, 3, S, S) -> features (B, T, D) float32 of an encoder that no gradient goes through."""
    group = max(1, ENCODE_FRAMES[engine.device.type] // inputs.shape[1])
    with mixed_precision(engine.device, engine.dtype):
        return torch.cat([encode_frames(engine.encoder, part) for part in inputs.split(group)]).float()


class Learner:
    """A recogniser that is being trained: its optimiser, gradient scaler and moving average, on one rank or several."""

    def __init__(
        self, engine: TorchEngine, config: TrainConfig, ranks: Ranks | None = None, guide: Guide | None = None
    ):
        """
        Args:
            guide: what the loss knows of the training set, where the config asks for it.

        Raises:
            InputError: the encoder has fewer stages than are to be frozen.
        """
        self.engine, self.config, self.ranks = engine, config, ranks or Ranks()
        self.guide = guide or Guide()
        assert self.guide.teacher or not config.teacher
        assert self.guide.log_prior or not config.logit_adjustment
        recogniser = engine.recogniser
        if config.encoder_is_fixed:
            recogniser.encoder.requires_grad_(False)
        if config.frozen_stages:
            freeze_stages(recogniser.encoder, config.frozen_stages)
            recogniser.to(engine.device)
        if config.speed.recompute:
            recogniser.encoder.recompute = True  # type: ignore[assignment]
        if config.speed.channels_last is False:
            engine.encoder.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.optimiser = make_optimiser(recogniser, config, engine.device)
        self.scaler = torch.amp.GradScaler(engine.device.type, enabled=engine.dtype == torch.float16)
        self.ema = copy.deepcopy(recogniser).requires_grad_(False) if config.ema_decay else None
        """the moving average; it is what gets evaluated"""
        if config.speed.compile:
            engine.encoder.compile()
        self._trained = _TrainedPart(engine, config.encoder_is_fixed)
        self._whole = self._distributed()

    def _distributed(self) -> nn.Module:
        """What gradients go through, on all ranks. All of them make it at the same time."""
        if self.ranks.num_ranks == 1:
            return self._trained
        with warnings.catch_warnings():
            # Buffers are not sent around in each step: one more collective where memory can run out. This
            # way to say so is deprecated, and the new one is not in all versions that we run on.
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(
                self._trained,
                device_ids=[self.engine.device] if self.engine.device.type == "cuda" else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )

    @property
    def parts(self) -> Parts:
        """What a saved state is made of."""
        return Parts(self.engine.recogniser, self.optimiser, self.scaler, self.ema)

    @property
    def evaluated(self) -> Recogniser:
        """The weights that are evaluated and kept: the moving average, where there is one."""
        return self.engine.recogniser if self.ema is None else self.ema

    def take_step(self, micros: Iterator[MicroBatch], step: int, lr: float, timer: StepTimer) -> StepResult:
        """Read a step's micro-batches, add their gradients up, update the weights.

        Args:
            micros: this rank's; only those of one step are taken.
            step: number of the step over the whole run, from 1.
            timer: was restarted for the step.

        Raises:
            OutOfMemoryError: on this rank or another; no gradient is left, no weight was changed.
            InputError: one of several ranks ran out of memory in the step's last backward pass.
        """
        self.engine.recogniser.train()
        sums = torch.zeros(4, device=self.engine.device)
        segments: list[np.ndarray] = []
        failures: list[tuple[str, str]] = []
        no_room, ended = False, False
        while not ended:
            with timer.part("data"):
                micro = next(micros)
            ended = micro.ends_step
            segments.append(micro.segment)
            failures += micro.failures
            if not no_room:
                room = self._accumulate(micro, step, sums, timer)
                no_room = not room.there
            elif ended and self.ranks.num_ranks > 1:
                self.ranks.any(True)  # what `_accumulate` would have asked
        if no_room:
            self._forget_gradients()
            _give_back_reserves()
            self._whole = self._distributed()  # the other ranks' has a forward pass without its backward in it
            process_is_lost = self.ranks.any(LOST_ONEDNN in room.why)
            raise OutOfMemoryError(room.why or "out of memory on another rank", process_is_lost=process_is_lost)
        with timer.part("optimiser"):
            loss, verb_loss, noun_loss, action_loss = self.ranks.sum(sums).tolist()
            grad_norm, updated = self._update(loss, step, lr)
        return StepResult(
            loss,
            verb_loss,
            noun_loss,
            action_loss if self.engine.action_ids else None,
            grad_norm,
            skipped=not updated,
            segment=np.concatenate(segments),
            failures=tuple(failures),
        )

    def _accumulate(self, micro: MicroBatch, step: int, sums: Tensor, timer: StepTimer) -> _Room:
        """Add a micro-batch's gradients, and to `sums` its losses (all, verb, noun, action) as shares of its step's.

        Returns whether the device had room, on all ranks where it is the step's last; what went wrong, on this one.
        """
        several = self.ranks.num_ranks > 1
        alone = isinstance(self._whole, DistributedDataParallel) and not micro.ends_step
        total = None
        with self._whole.no_sync() if alone else nullcontext():  # type: ignore[operator]
            with _room() as room:
                total = self._forward(micro, step, sums, timer)
            if several and micro.ends_step:
                room.there = not self.ranks.any(not room.there)  # else the others would wait in the backward pass
            if room.there and total is not None:
                with _room() as room, timer.part("backward"):
                    self.scaler.scale(total).backward()
                if several and not room.there and micro.ends_step:
                    raise InputError(
                        f"rank {self.ranks.rank} ran out of memory in the backward pass of step {step}, with "
                        f"{len(micro.verb)} clips at once. Go on by --resume with a smaller --micro-batch and "
                        "--accept-changes."
                    )
        return room

    def _forward(self, micro: MicroBatch, step: int, sums: Tensor, timer: StepTimer) -> Tensor:
        """The loss to go backward from; the gradients' mean over the ranks is to be the step's."""
        config = self.config
        from_features = micro.inputs.dtype != torch.uint8
        with timer.part("copy"):
            inputs = micro.inputs if from_features else to_input(micro.inputs, self.engine.clip, micro.colour)
            rng = np.random.default_rng([config.seed, step, micro.number, 1])
            partner, own_share = mix_clips(inputs, config.augment, rng)
            mix = Mix(partner.to(self.engine.device), own_share)
        with timer.part("forward"):
            seed_torch(config.seed, step, micro.number)  # dropout's
            logits, action = self._whole(inputs, from_features)
            targets = {"verb": micro.verb, "noun": micro.noun}
            if joint := self.engine.recogniser.joint_head:
                targets["action"] = joint.places(micro.verb, micro.noun)
            losses = recognition_loss(
                logits,
                action,
                targets,
                mix,
                label_smoothing=config.label_smoothing,
                guide=self.guide,
                teacher_weight=config.teacher_weight,
                segment=micro.segment,
            )
            parts = [losses.total, losses.verb, losses.noun, losses.total.new_zeros(())]
            if losses.action is not None:
                parts[3] = losses.action
            sums += torch.stack(parts).detach().float() * micro.step_share
            return losses.total * micro.step_share * self.ranks.num_ranks

    def _update(self, loss: float, step: int, lr: float) -> tuple[float, bool]:
        """Change the weights, if loss and gradients are finite. Returns the gradients' norm, and whether it did."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group["lr_scale"]
        self.scaler.unscale_(self.optimiser)
        trained = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(trained, self.config.max_grad_norm).item()
        finite = math.isfinite(loss) and math.isfinite(norm)
        if finite:
            self.scaler.step(self.optimiser)
        if math.isfinite(loss):  # a scale that is too large shows in the gradients alone, and is lowered here
            self.scaler.update()
        else:
            self.scaler = _anew(self.scaler, self.engine.device)
        self._forget_gradients()
        if finite:
            self._move_average(step)
        return norm, finite

    @torch.no_grad()
    def _move_average(self, step: int) -> None:
        """The average follows faster in the first steps, when it still is mostly the start."""
        if self.ema is None:
            return
        decay = min(self.config.ema_decay, (1 + step) / (10 + step))
        weights, average = dict(self.engine.recogniser.named_parameters()), dict(self.ema.named_parameters())
        names = [name for name, weight in weights.items() if weight.requires_grad]
        torch._foreach_lerp_([average[name] for name in names], [weights[name] for name in names], 1 - decay)
        for ours, theirs in zip(self.ema.buffers(), self.engine.recogniser.buffers(), strict=True):
            ours.copy_(theirs)

    def _forget_gradients(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)


def _anew(scaler: torch.amp.GradScaler, device: torch.device) -> torch.amp.GradScaler:
    """The scaler in the same state, without what it noted of gradients that are thrown away."""
    fresh = torch.amp.GradScaler(device.type, enabled=scaler.is_enabled())
    if scaler.is_enabled():
        fresh.load_state_dict(scaler.state_dict())
    return fresh


@contextmanager
def _room() -> Iterator[_Room]:
    """Notes whether the device had the memory for what is done inside."""
    room = _Room()
    try:
        yield room
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError) or any(said in str(error) for said in NO_MEMORY)
        if not known:
            raise
        room.there, room.why = False, str(error).strip().partition("\n")[0] or type(error).__name__


def _give_back_reserves() -> None:
    """Return what the allocators hold free: cuDNN and oneDNN take room for themselves, past them."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):  # glibc's
        trim(0)


def make_optimiser(recogniser: Recogniser, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """AdamW over what is to be trained: weight decay on matrices and kernels only, learning rates by `layer_decay`.

    A group's `lr_scale` is what its learning rate is a multiple of.
    """
    stages = recogniser.encoder.stages()
    scale_of = {
        id(parameter): config.layer_decay ** (len(stages) - number)
        for number, stage in enumerate(stages)
        for module in stage
        for parameter in module.parameters()
    }
    trained = [parameter for parameter in recogniser.parameters() if parameter.requires_grad]
    groups = []
    for scale in sorted({scale_of.get(id(parameter), 1.0) for parameter in trained}, reverse=True):
        alike = [parameter for parameter in trained if scale_of.get(id(parameter), 1.0) == scale]
        groups += [
            {"params": [p for p in alike if p.ndim > 1], "weight_decay": config.weight_decay, "lr_scale": scale},
            {"params": [p for p in alike if p.ndim <= 1], "weight_decay": 0.0, "lr_scale": scale},
        ]
    fused = config.speed.fused
    if fused is None:
        fused = device.type in ("cuda", "cpu")
    return torch.optim.AdamW(groups, lr=config.lr, fused=fused)
