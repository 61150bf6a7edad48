"""Runs a recogniser with PyTorch: the engine that training, evaluation and prediction use.

See `engines.engine.Engine` for what every engine does.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from egochef.clip import ClipSpec
from egochef.data.transforms import to_input
from egochef.engines.engine import Engine, recognise
from egochef.errors import InputError
from egochef.model.checkpoint import load_checkpoint
from egochef.model.encoders import fold_batchnorm
from egochef.model.recogniser import Logits, Recogniser, encode_frames
from egochef.model.shift import Kept
from egochef.runtime import mixed_precision, pick_device, pick_dtype
from egochef.taxonomy import Taxonomy

DTYPE_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class TorchEngine(Engine):
    """A recogniser on a device in a precision.

    >>> engine = egochef.load("outputs/run")
    >>> verb, noun = engine.recognise(frames)  # (T, H, W, 3) uint8 RGB, any size
    >>> engine.taxonomy.verbs[verb.argmax()]
    """

    overlaps = False
    """two threads that compute share one device, or start as many threads each as there are processors"""

    def __init__(
        self,
        recogniser: Recogniser,
        clip: ClipSpec,
        taxonomy: Taxonomy,
        device: torch.device,
        dtype: torch.dtype,
        *,
        encoder_is_final: bool = False,
        compiled: bool = False,
    ):
        """
        Args:
            encoder_is_final: its weights will not change, so that BatchNorm can be folded into the convolutions.
            compiled: the encoder goes through torch.compile, which takes up to a minute at its first call.
        """
        self.recogniser = recogniser.to(device)
        self.encoder = fold_batchnorm(recogniser.encoder) if encoder_is_final else recogniser.encoder
        if device.type != "mps":
            self.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        if compiled:
            self.encoder = torch.compile(self.encoder)  # type: ignore[assignment]  # a module that is called alike
        self.clip, self.taxonomy, self.device, self.dtype = clip, taxonomy, device, dtype
        self.shift, self.action_ids = recogniser.encoder.shift, recogniser.config.action_ids
        self.name = f"torch {device} {DTYPE_NAMES[dtype]}" + (" compiled" if compiled else "")

    @torch.inference_mode()
    def encode(self, frames: Tensor, colour: Tensor | None = None) -> Tensor:
        """Cropped frames (B, T, S, S, 3) uint8 -> features (B, T, D) float32 on the engine's device.

        Args:
            colour: (B, 5) of `data.transforms.draw_colour`, where features for training are made.
        """
        self.recogniser.eval()
        inputs = to_input(frames.to(self.device, non_blocking=True), self.clip, colour)
        with mixed_precision(self.device, self.dtype):
            return encode_frames(self.encoder, inputs).float()

    @torch.inference_mode()
    def encode_next(self, frames: Tensor, before: Kept | None) -> tuple[Tensor, Kept]:
        """As `engines.engine.Engine` has it."""
        self.recogniser.eval()
        inputs = to_input(frames[:, None].to(self.device, non_blocking=True), self.clip)[:, 0]  # (B, 3, S, S)
        with mixed_precision(self.device, self.dtype):
            features, kept = self.encoder.step(inputs, before)
        return features.float(), kept

    @torch.inference_mode()
    def classify(self, features: Tensor) -> Logits:
        """Features (B, T, D) -> logits (B, V) and (B, N), float32. The small part: always computed in float32."""
        return self.classify_actions(features)[0]

    @torch.inference_mode()
    def classify_actions(self, features: Tensor) -> tuple[Logits, Tensor | None]:
        """As `engines.engine.Engine` has it."""
        self.recogniser.eval()
        (verb, noun), action = self.recogniser.classify_actions(features.to(self.device).float())
        return Logits(verb.float(), noun.float()), None if action is None else action.float()

    def recognise(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Verb probabilities (V,) and noun probabilities (N,) of one clip.

        Args:
            frames: (T, H, W, 3) uint8 RGB of any size, evenly spread over the action; T is best the checkpoint's.
        """
        return recognise(self, frames)


def load(
    checkpoint: str | Path, *, device: str | None = None, precision: str = "auto", compiled: bool = False
) -> TorchEngine:
    """Load a trained recogniser, ready to run.

    Args:
        checkpoint: a `.safetensors` file of ours, or a run's folder (its best checkpoint).
        device: for example `cpu`, `cuda`, `mps`; the best there is if left out.
        precision: auto, fp32, bf16 or fp16.
        compiled: through torch.compile.

    Raises:
        InputError: no such file, cut off, not one of ours, or a device that is not there.
    """
    recogniser, about = load_checkpoint(Path(checkpoint))
    if compiled and about.model.shift == "past":
        raise InputError("torch.compile with an online encoder: its frames go one by one, past what is compiled")
    where = pick_device(device)
    dtype = pick_dtype(where, precision)
    return TorchEngine(recogniser, about.clip, about.taxonomy, where, dtype, encoder_is_final=True, compiled=compiled)
