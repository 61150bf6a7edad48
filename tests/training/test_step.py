"""One step: what the options for speed and memory change, and what they leave alone."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_runs import TINY, best_of, last_state, log_of, steps

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


def learner(config):
    seed_torch(0)
    recogniser = Recogniser(dataclasses.replace(config.model, num_verbs=5, num_nouns=7))
    taxonomy = Taxonomy(tuple("abcde"), tuple("abcdefg"))
    return Learner(TorchEngine(recogniser, config.clip, taxonomy, CPU, torch.float32), config)


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


@pytest.mark.parametrize("speed", [Speed(fused=False), Speed(channels_last=False)], ids=["not fused", "contiguous"])
def test_other_ways_to_compute_are_the_same_step(speed):
    plain = weights_after_a_step(TINY, lr=1e-5)
    other = weights_after_a_step(dataclasses.replace(TINY, speed=speed), lr=1e-5)
    assert other[1].loss == pytest.approx(plain[1].loss, abs=1e-5)
    assert differences(plain[0], other[0]) < 5e-5


@pytest.mark.slow
def test_a_compiled_encoder_is_the_same_step():
    config = dataclasses.replace(TINY, frozen_stages=7)  # of 9: each trained one takes the compiler seconds
    plain = weights_after_a_step(config, lr=1e-5)
    other = weights_after_a_step(dataclasses.replace(config, speed=Speed(compile=True)), lr=1e-5)
    assert other[1].loss == pytest.approx(plain[1].loss, abs=1e-4)
    assert differences(plain[0], other[0]) < 5e-5
    assert other[0].engine.recogniser.state_dict().keys() == plain[0].engine.recogniser.state_dict().keys()


def test_the_times_of_a_step_add_up():
    _, _, times_ms = weights_after_a_step(TINY)
    assert set(times_ms) == {f"{name}_ms" for name in (*TIMED, "step")}
    parts = sum(times_ms[f"{name}_ms"] for name in TIMED)
    assert 0.9 * times_ms["step_ms"] < parts <= times_ms["step_ms"] + 0.1
    assert min(times_ms[f"{name}_ms"] for name in ("forward", "backward", "optimiser")) > 0


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


def test_a_progressive_run_trains_and_is_evaluated_at_full_size(toy_root, tmp_path):
    config = dataclasses.replace(TINY, progressive=(Phase(0.5, 32, 1),), num_workers=1)
    train(config, toy_root, tmp_path / "run")
    assert load(tmp_path / "run", device="cpu").clip == config.clip
    plain = tmp_path / "plain"
    train(TINY, toy_root, plain)
    assert steps(tmp_path / "run")[0]["loss"] != steps(plain)[0]["loss"]
    assert len(log_of(tmp_path / "run")) == len(log_of(plain))


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
        ({"ema_decay": 1.0}, "expected 0 to below 1"),
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
    with pytest.raises(InputError, match="above 0 and below 1"):
        Phase(1.0, 64, 2)
    with pytest.raises(InputError, match="at least 1 of 32 px"):
        Phase(0.5, 16, 2)
