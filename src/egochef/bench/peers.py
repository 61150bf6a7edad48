"""The models that `egochef bench train` compares: ours, and video transformers that others publish.

In: a name. Out: a module from normalised frames (B, T, 3, S, S) to `Logits`, with random weights, and what is published
about it. All answer the same question, by 97 + 300 outputs, so that one training step serves them all.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from egochef.clip import ClipSpec
from egochef.extras import ExtraError, need_extra
from egochef.model.cost import NUM_ACTIONS
from egochef.model.recogniser import Logits, ModelConfig, Recogniser
from egochef.recipes import fast, frames16, frames32
from egochef.taxonomy import ACTION_BASE, Taxonomy
from egochef.toykitchen.classes import NOUNS, VERBS
from egochef.training.config import TrainConfig, with_encoder

NUM_VERBS, NUM_NOUNS = 97, 300
MIB = 2**20
NONE_PUBLISHED = "none published that we know for this model at this size"


@dataclass(frozen=True)
class Contender:
    """A model, the clips it is published with, and what is published about it."""

    name: str
    title: str
    """for people"""
    config: Callable[[bool], TrainConfig]
    """the training run; True: clips so small that a step takes no time"""
    build: Callable[[TrainConfig, bool], nn.Module]
    """makes it with random weights; True: so small that a step takes no time"""
    epochs: int
    """of its published schedule"""
    schedule: str
    """where that schedule is from"""
    cpu_batch: int
    """clips a step on a CPU"""
    cuda_batch: int | None
    """clips at once on a GPU, halved until they fit; None: found as in training"""
    action_accuracy: float | None = None
    """published for EK-100 validation, this model at this size, top-1 in percent"""
    accuracy_note: str = NONE_PUBLISHED
    """its source, or what comes nearest to it"""
    is_ours: bool = False


class Peer(nn.Module):
    """A video transformer in a recogniser's clothes: normalised frames (B, T, 3, S, S) in, `Logits` out."""

    def __init__(self, network: nn.Module, run: Callable[[nn.Module, Tensor], Tensor]):
        """`run`: how the network is asked; gives (B, 397)."""
        super().__init__()
        self.network, self._run = network, run
        self.encoder = _NoEncoder()
        self.config, self.joint_head = ModelConfig(), None

    def forward(self, frames: Tensor) -> Logits:
        verb, noun = self._run(self.network, frames).split((NUM_VERBS, NUM_NOUNS), dim=1)  # (B, 397)
        return Logits(verb, noun)

    def recognise(self, frames: Tensor) -> tuple[Logits, None]:
        """As `forward`: there is no joint head."""
        return self(frames), None


class _NoEncoder(nn.Identity):
    """A peer has no part that sees single frames."""

    shift = "none"

    def stages(self) -> list[list[nn.Module]]:
        return []


# Ours


def _ours(recipe: Callable[[], TrainConfig], encoder: str = "") -> Callable[[bool], TrainConfig]:
    """A recipe, on another encoder if one is named; a joint head knows `known_actions`."""

    def config(tiny: bool) -> TrainConfig:
        found = with_encoder(recipe(), encoder) if encoder else recipe()
        if found.model.joint:
            found = dataclasses.replace(found, model=dataclasses.replace(found.model, action_ids=known_actions()))
        if not tiny:
            return found
        small = dataclasses.replace(found.clip, image_size=32, resize_size=36)
        return dataclasses.replace(found, clip=small, model=dataclasses.replace(found.model, hidden_size=16))

    return config


def known_actions() -> tuple[int, ...]:
    """verb * 1000 + noun of as many actions as EK-100's training split has, those of drawn kitchens among them; rising.

    They are what the benchmark's clips are labelled with.
    """
    drawn = {verb * ACTION_BASE + noun for verb in VERBS.values() for noun in NOUNS.values()}
    others = (verb * ACTION_BASE + noun for noun in range(NUM_NOUNS) for verb in range(NUM_VERBS))
    left = NUM_ACTIONS - len(drawn)
    return tuple(sorted(drawn | set(islice((action for action in others if action not in drawn), left))))


def _build_ours(config: TrainConfig, _tiny: bool) -> nn.Module:
    return Recogniser(config.model)


# Others'


def _clips_of(num_frames: int, image_size: int = 224, tiny_size: int = 32) -> Callable[[bool], TrainConfig]:
    """Our own training run, on the clips that a peer is published with."""

    def config(tiny: bool) -> TrainConfig:
        size = tiny_size if tiny else image_size
        clip = ClipSpec(num_frames=num_frames, image_size=size, resize_size=size * 8 // 7)
        return dataclasses.replace(frames16(), clip=clip)

    return config


def _build_timesformer(config: TrainConfig, tiny: bool) -> nn.Module:
    need_extra("bench", "TimeSformer", ("transformers",))
    from transformers import TimesformerConfig, TimesformerForVideoClassification

    about = TimesformerConfig(
        image_size=config.clip.image_size,
        num_frames=config.clip.num_frames,
        attention_type="divided_space_time",
        **_layers(tiny),
    )
    about.num_labels = NUM_VERBS + NUM_NOUNS
    return Peer(TimesformerForVideoClassification(about), _ask_transformers)


def _build_videomae(config: TrainConfig, tiny: bool) -> nn.Module:
    need_extra("bench", "VideoMAE", ("transformers",))
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    about = VideoMAEConfig(
        image_size=config.clip.image_size,
        num_frames=config.clip.num_frames,
        **_layers(tiny),
    )
    about.num_labels = NUM_VERBS + NUM_NOUNS
    return Peer(VideoMAEForVideoClassification(about), _ask_transformers)


def _layers(tiny: bool) -> dict[str, Any]:
    """What differs from ViT-B, which both are by default."""
    if not tiny:
        return {}
    return {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}


def _ask_transformers(network: nn.Module, frames: Tensor) -> Tensor:
    return network(pixel_values=frames).logits


def _build_swin(name: str) -> Callable[[TrainConfig, bool], nn.Module]:
    def build(config: TrainConfig, tiny: bool) -> nn.Module:
        try:
            from torchvision.models import video
        except (ImportError, RuntimeError) as error:  # built for another torch, it raises RuntimeError
            raise ExtraError(
                f"torchvision cannot be imported here ({str(error).splitlines()[0]}); install the one that belongs to "
                f"this torch ({torch.__version__})"
            ) from None
        return Peer(getattr(video, name)(weights=None, num_classes=NUM_VERBS + NUM_NOUNS), _ask_torchvision)

    return build


def _ask_torchvision(network: nn.Module, frames: Tensor) -> Tensor:
    return network(frames.transpose(1, 2))  # (B, 3, T, S, S)


OUR_SCHEDULE = "the recipe: at most 50, it stops after 10 without a better validation score"
NOT_MEASURED = "not measured: EK-100 has not been trained on yet"
SWIN_SCHEDULE = "Kinetics-400 from ImageNet weights: Liu et al. 2022, arXiv:2106.13230, section 4.1"
CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(
            name="ours16",
            title="ResNet-50 + BiLSTM, 16 x 224 (recipe frames16)",
            config=_ours(frames16, "resnet50"),
            build=_build_ours,
            epochs=50,
            schedule=OUR_SCHEDULE,
            cpu_batch=1,
            cuda_batch=None,
            accuracy_note=NOT_MEASURED,
            is_ours=True,
        ),
        Contender(
            name="ours32",
            title="ResNet-50 + BiLSTM, 32 x 224 (recipe frames32)",
            config=_ours(frames32, "resnet50"),
            build=_build_ours,
            epochs=50,
            schedule=OUR_SCHEDULE,
            cpu_batch=1,
            cuda_batch=None,
            accuracy_note=NOT_MEASURED,
            is_ours=True,
        ),
        Contender(
            name="light16",
            title="EfficientNet-Lite0 + BiLSTM, 16 x 224 (light model)",
            config=_ours(frames16, "efficientnet_lite0"),
            build=_build_ours,
            epochs=50,
            schedule=OUR_SCHEDULE,
            cpu_batch=2,
            cuda_batch=None,
            accuracy_note=NOT_MEASURED,
            is_ours=True,
        ),
        Contender(
            name="fast",
            title="EfficientNet-Lite0 with shift + GRU, joint head, 8 x 192 (recipe fast)",
            config=_ours(fast),
            build=_build_ours,
            epochs=fast().epochs,
            schedule="the recipe",
            cpu_batch=1,
            cuda_batch=None,
            accuracy_note=NOT_MEASURED,
            is_ours=True,
        ),
        Contender(
            name="timesformer",
            title="TimeSformer-B, divided attention, 8 x 224",
            config=_clips_of(8),
            build=_build_timesformer,
            epochs=15,
            schedule=(
                "Kinetics-400 from ImageNet weights: configs/Kinetics/TimeSformer_divST_8x32_224.yaml of "
                "github.com/facebookresearch/TimeSformer (LaViLa fine-tunes it for 100 on EK-100)"
            ),
            cpu_batch=1,
            cuda_batch=32,
            accuracy_note=(
                f"{NONE_PUBLISHED}; nearest: 46.9 with 16 frames, pre-trained on Ego4D by LaViLa "
                "(docs/MODEL_ZOO.md of github.com/facebookresearch/LaViLa)"
            ),
        ),
        Contender(
            name="videomae",
            title="VideoMAE ViT-B, 16 x 224",
            config=_clips_of(16),
            build=_build_videomae,
            epochs=75,
            schedule=(
                "fine-tuning on Kinetics-400: scripts/kinetics/videomae_vit_base_patch16_224_tubemasking_ratio_0.9_"
                "epoch_1600/finetune.sh of github.com/MCG-NJU/VideoMAE (each of its epochs sees a clip twice, and 1600 "
                "epochs of pre-training come before: neither is counted here)"
            ),
            cpu_batch=1,
            cuda_batch=32,
        ),
        Contender(
            name="swin_t",
            title="Video Swin-T, 32 x 224",
            config=_clips_of(32, tiny_size=56),
            build=_build_swin("swin3d_t"),
            epochs=30,
            schedule=SWIN_SCHEDULE,
            cpu_batch=1,
            cuda_batch=16,
        ),
        Contender(
            name="swin_b",
            title="Video Swin-B, 32 x 224",
            config=_clips_of(32, tiny_size=56),
            build=_build_swin("swin3d_b"),
            epochs=30,
            schedule=SWIN_SCHEDULE,
            cpu_batch=1,
            cuda_batch=16,
            accuracy_note=(
                f"{NONE_PUBLISHED}; nearest: 49.9 by Omnivore (Girdhar et al. 2022, arXiv:2201.08377), a Swin-B that "
                "learned from images, video and depth"
            ),
        ),
    )
}


def as_recogniser(model: nn.Module) -> Recogniser:
    """A peer stands where a recogniser is asked for: it has the forward that training and inference call."""
    return cast(Recogniser, model)


def classes() -> Taxonomy:
    """As many classes as EK-100 has."""
    return Taxonomy(tuple(f"verb {k}" for k in range(NUM_VERBS)), tuple(f"noun {k}" for k in range(NUM_NOUNS)))


@dataclass(frozen=True)
class Size:
    """What a model is before anything is measured."""

    num_parameters: int
    weights_mib: float
    """in float32"""
    gflops: float
    """of a clip's forward pass, a multiply-add counted once"""


def size_of(contender: Contender, tiny: bool) -> Size:
    """Count, computing nothing.

    Raises:
        ExtraError: its library is missing.
    """
    config = contender.config(tiny)
    with torch.device("meta"):
        model = contender.build(config, tiny).eval()
        clip = torch.empty(1, config.clip.num_frames, 3, config.clip.image_size, config.clip.image_size)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(clip)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return Size(num_parameters, 4 * num_parameters / MIB, counter.get_total_flops() / 2 / 1e9)
