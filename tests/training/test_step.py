"""One step: what the options for speed and memory change, and what they leave alone."""

import dataclasses
import math
import time

import numpy as np
import pytest
import torch
from tiny_runs import TINY, before_forward, best_of, last_state, log_of, steps

from egochef.clip import ClipSpec
from egochef.data.annotations import open_data_folder, read_split
from egochef.data.dataset import ClipDataset
from egochef.data.frames import open_frames
from egochef.data.transforms import Augment
from egochef.engines.torch_engine import TorchEngine, load
from egochef.errors import InputError
from egochef.model.encoders import FrozenBatchNorm2d, build_encoder, freeze_batchnorm, freeze_stages
from egochef.model.recogniser import ModelConfig, Recogniser
from egochef.runtime import seed_torch
from egochef.taxonomy import Taxonomy
from egochef.training.config import Phase, Speed, TrainConfig, with_encoder
from egochef.training.loop import train
from egochef.training.sources import MicroBatch
from egochef.training.step import TIMED, Learner, StepTimer

CPU = torch.device("cpu")


def learner(config, dtype=torch.float32):
    seed_torch(0)
    recogniser = Recogniser(dataclasses.replace(config.model, num_verbs=5, num_nouns=7))
    taxonomy = Taxonomy(tuple("abcde"), tuple("abcdefg"))
    return Learner(TorchEngine(recogniser, config.clip, taxonomy, CPU, dtype), config)


def micro_batches(config, num_clips=4, size=2):
    rng = np.random.default_rng(0)
    clip = config.clip
    shape = (num_clips, clip.num_frames, clip.image_size, clip.image_size, 3)
    frames = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
    for number, place in enumerate(range(0, num_clips, size)):
        yield MicroBatch(
            inputs=frames[place : place + size],
            colour=torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]]).expand(size, 5),
            verb=torch.arange(place, place + size) % 5,
            noun=torch.arange(place, place + size) % 7,
            segment=np.arange(place, place + size),
            number=number,
            step_share=size / num_clips,
            ends_step=place + size == num_clips,
        )


def weights_after_a_step(config, lr=1e-3):
    it = learner(config)
    timer = StepTimer(CPU)
    result = it.take_step(micro_batches(config), 1, lr, timer)
    return it, result, timer.read_ms()


def differences(a, b):
    a, b = a.engine.recogniser.state_dict(), b.engine.recogniser.state_dict()
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.mark.parametrize("encoder", ["efficientnet_lite0", "resnet50"])
def test_gradient_checkpointing_is_the_same_step(encoder):
    config = with_encoder(TINY, encoder)
    plain = weights_after_a_step(config)
    again = weights_after_a_step(dataclasses.replace(config, speed=Speed(recompute=True)))
    assert again[1].loss == plain[1].loss
    assert again[1].grad_norm == pytest.approx(plain[1].grad_norm, rel=1e-5)


def test_gradient_checkpointing_keeps_less():
    """Bytes that autograd keeps for the backward pass of a few frames."""

    def kept_bytes(recompute):
        encoder = build_encoder("resnet50")
        freeze_batchnorm(encoder)
        encoder.recompute = recompute
        kept = {}

        def note(tensor):
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            encoder(torch.randn(2, 3, 96, 96)).sum()
        return sum(kept.values()) - sum(p.nbytes for p in encoder.parameters())

    assert kept_bytes(True) < 0.45 * kept_bytes(False)


def test_a_fused_optimiser_is_the_same_step():
    """From the same gradients, with steps that are long beside the rounding."""
    plain = weights_after_a_step(TINY, lr=1e-2)
    other = weights_after_a_step(dataclasses.replace(TINY, speed=Speed(fused=False)), lr=1e-2)
    assert (other[1].loss, other[1].grad_norm) == (plain[1].loss, plain[1].grad_norm)
    assert differences(learner(TINY), plain[0]) > 5e-3
    assert differences(plain[0], other[0]) < 1e-5


def assert_same_gradients(config, other):
    """Loss and gradients of other kernels. Not the weights: AdamW's first step is as long for a tiny gradient as for a
    large one, which turns rounding into other weights."""
    plain, other = weights_after_a_step(config), weights_after_a_step(other)
    assert other[1].loss == pytest.approx(plain[1].loss, rel=1e-4)
    assert other[1].grad_norm == pytest.approx(plain[1].grad_norm, rel=5e-3)
    assert other[0].engine.recogniser.state_dict().keys() == plain[0].engine.recogniser.state_dict().keys()


def test_a_contiguous_encoder_is_the_same_step():
    assert_same_gradients(TINY, dataclasses.replace(TINY, speed=Speed(channels_last=False)))


COMPILED = dataclasses.replace(TINY, speed=Speed(compile=True))


def test_a_compiled_encoder_is_the_same_step(monkeypatch):
    """Captured forward and backward, run by torch's own kernels: the compiler's take it a minute to write."""
    backends = []

    def compile_without_new_kernels(function, **options):
        backends.append("aot_eager")
        return real(function, backend="aot_eager", **options)

    real = torch.compile
    monkeypatch.setattr(torch, "compile", compile_without_new_kernels)
    torch._dynamo.reset()
    frozen = {"frozen_stages": 7}  # of 9: each trained one takes seconds
    assert_same_gradients(dataclasses.replace(TINY, **frozen), dataclasses.replace(COMPILED, **frozen))
    assert backends == ["aot_eager"]


@pytest.mark.soak
def test_an_encoder_with_the_compilers_own_kernels_is_the_same_step():
    """A minute of a C++ compiler."""
    torch._dynamo.reset()
    assert_same_gradients(TINY, COMPILED)


def test_an_fp16_scale_that_is_too_large_mends_itself():
    """Gradients overflow, the loss does not: such steps are skipped and halve the scale.

    The loss's gradients by some logit are above 0.1, and so overflow whatever has computed them while the scale is
    above 10 times float16's largest number.
    """
    clip = dataclasses.replace(TINY.clip, num_frames=1, image_size=32, resize_size=32)
    config = dataclasses.replace(TINY, clip=clip, precision="fp16")
    it = learner(config, torch.float16)
    it.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    before = {name: tensor.clone() for name, tensor in it.engine.recogniser.state_dict().items()}
    for step in range(1, 30):
        result = it.take_step(micro_batches(config, num_clips=1, size=1), step, 1e-3, StepTimer(CPU))
        assert math.isfinite(result.loss)
        if not result.skipped:
            break
        assert it.scaler.get_scale() == 2.0 ** (24 - step)
        after = it.engine.recogniser.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)
    assert not result.skipped and math.isfinite(result.grad_norm)
    assert step > 5
    assert it.scaler.get_scale() == 2.0 ** (25 - step), "a step that is taken leaves it"
    after = it.engine.recogniser.state_dict()
    assert not torch.equal(after["verb_head.weight"], before["verb_head.weight"])


def test_the_times_of_a_step_are_of_its_parts():
    """Sleeping makes a part longer by that at least; together they are no longer than the step."""

    def slow(micros):
        for micro in micros:
            time.sleep(0.05)
            yield micro

    it, timer = learner(TINY), StepTimer(CPU)
    with before_forward(torch.nn.LSTM, lambda *_: time.sleep(0.1)):
        it.take_step(slow(micro_batches(TINY)), 1, 1e-3, timer)
    times_ms = timer.read_ms()
    assert set(times_ms) == {f"{name}_ms" for name in (*TIMED, "step")}
    assert times_ms["data_ms"] >= 100 and times_ms["forward_ms"] >= 200
    assert min(times_ms.values()) > 0
    assert sum(times_ms[f"{name}_ms"] for name in TIMED) <= times_ms["step_ms"] + 0.1


@pytest.mark.parametrize(("encoder", "num_stages"), [("resnet50", 5), ("efficientnet_lite0", 9)])
def test_frozen_stages(encoder, num_stages):
    """What is frozen stays bit for bit, BatchNorm's statistics too; what follows is trained."""
    model = dataclasses.replace(TINY.model, frozen_batchnorm=False)
    config = dataclasses.replace(with_encoder(TINY, encoder), frozen_stages=2)
    config = dataclasses.replace(config, model=dataclasses.replace(model, encoder=encoder))
    before = learner(config).engine.recogniser.state_dict()
    it, _, _ = weights_after_a_step(config)
    stages = it.engine.recogniser.encoder.stages()
    assert len(stages) == num_stages
    names = {id(module): name for name, module in it.engine.recogniser.named_modules()}
    after = it.engine.recogniser.state_dict()

    def changed(part):
        prefix = names[id(part)] + "."
        return [name for name in after if name.startswith(prefix) and not torch.equal(after[name], before[name])]

    assert not any(changed(part) for stage in stages[:2] for part in stage)
    assert all(changed(part) for stage in stages[2:] for part in stage)
    with pytest.raises(InputError, match=f"frozen_stages is 99, the encoder has {num_stages}"):
        freeze_stages(build_encoder(encoder), 99)
    assert isinstance(stages[0][1], FrozenBatchNorm2d)


def test_the_moving_average_is_one(tmp_path, toy_root):
    """Against the same average by plain arithmetic, from the weights after every step; it is what gets kept."""
    config = dataclasses.replace(TINY, ema_decay=0.9)
    it = learner(config)
    name = "verb_head.weight"
    average = it.engine.recogniser.state_dict()[name].double().clone()
    for step in range(1, 6):
        it.take_step(micro_batches(config), step, 1e-2, StepTimer(CPU))
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * it.engine.recogniser.state_dict()[name].double()
    assert (it.ema.state_dict()[name] - average).abs().max() < 1e-6
    assert it.evaluated is it.ema
    run = tmp_path / "run"
    train(dataclasses.replace(config, patience=1, epochs=1), toy_root, run)
    state, _ = last_state(run)
    best, _ = best_of(run)
    assert all(torch.equal(best[name], state[f"ema.{name}"]) for name in best)
    assert not torch.equal(best[name], state[f"model.{name}"])


def test_smaller_clips_at_first(toy_root):
    """The clips of each epoch have the size and number of frames of its phase; evaluation has its own."""
    phases = (Phase(0.25, 32, 1), Phase(0.5, 32, 2))
    config = dataclasses.replace(TINY, epochs=8, progressive=phases, clip=dataclasses.replace(TINY.clip, num_frames=4))
    folder = open_data_folder(toy_root)
    segments = read_split(folder, "train")[:2]
    frames = open_frames(folder, segments, config.clip.grid)
    dataset = ClipDataset(segments, frames, config.clip, augment=Augment(), clip_of=config.clip_of)
    shapes = [tuple(dataset[(epoch, 0, 0)].frames.shape[:2]) for epoch in range(1, 9)]
    assert shapes == [(1, 32)] * 2 + [(2, 32)] * 2 + [(4, 64)] * 4


def test_a_progressive_run_trains_and_is_evaluated_at_full_size(tiny_run, toy_root, tmp_path):
    config = dataclasses.replace(TINY, progressive=(Phase(0.5, 32, 1),), num_workers=1)
    train(config, toy_root, tmp_path / "run")
    assert load(tmp_path / "run", device="cpu").clip == config.clip
    assert steps(tmp_path / "run")[0]["loss"] != steps(tiny_run)[0]["loss"]
    assert len(log_of(tmp_path / "run")) == len(log_of(tiny_run))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"progressive": (Phase(0.5, 64, 2), Phase(0.5, 64, 2))}, "each after the one before"),
        ({"progressive": (Phase(0.5, 64, 49),)}, "only 48 candidate times"),
        (
            {"progressive": (Phase(0.5, 64, 2),), "feature_views": 1, "augment": Augment(cutmix_alpha=0)},
            "from pictures",
        ),
        ({"frozen_stages": 1, "frozen_encoder": True}, "trained behind them"),
        ({"ema_decay": 1.0}, "expected 0 to 0.999999"),
        ({"save_minutes": 0}, "save_minutes is 0"),
        ({"keep": 0}, "keep is 0"),
        (
            {"speed": Speed(recompute=True), "model": ModelConfig(frozen_batchnorm=False)},
            "BatchNorm's statistics twice",
        ),
    ],
)
def test_wrong_settings(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(TrainConfig(clip=ClipSpec()), **change)


def test_wrong_phases():
    with pytest.raises(InputError, match="until is 1.0, expected 0.001 to 0.999"):
        Phase(1.0, 64, 2)
    with pytest.raises(InputError, match="image_size is 16, expected a whole number from 32 to 2048"):
        Phase(0.5, 16, 2)
