"""The frame encoders by name, and what is done to their BatchNorm: frozen in training, folded away for inference.

An encoder takes normalised frames (B*T, 3, H, W) and T, and gives features (B*T, num_features). Those whose names end
in `_tsm` exchange channels between the frames of a clip, those in `_tsm_online` take them from the past alone.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from egochef.clip import IMAGENET_MEAN, IMAGENET_STD
from egochef.errors import InputError
from egochef.model import efficientnet, resnet
from egochef.model.shift import Encoder


@dataclass(frozen=True)
class EncoderInfo:
    """What others need to know of an encoder."""

    name: str
    architecture: str
    """whose weights fit: resnet50 or efficientnet_lite0"""
    shift: str
    """what it sees of other frames, of `model.shift.SHIFTS`"""
    build: Callable[[], Encoder]
    """makes it, with random weights"""
    num_features: int
    """D"""
    mean: tuple[float, float, float]
    """per channel (R, G, B), of pixel values in 0..1, as its ImageNet weights were trained with"""
    std: tuple[float, float, float]
    """per channel (R, G, B), of pixel values in 0..1"""
    image_size: int
    """height and width of the crop that its ImageNet weights were trained with, pixels"""
    training_bytes_per_frame: float
    """what autograd keeps of one frame of 224 x 224 in float32 while every layer trains"""
    frozen_training_bytes_per_frame: float
    """the same under frozen BatchNorm"""


SHIFTED_NAMES = {"none": "{}", "both": "{}_tsm", "past": "{}_tsm_online"}


def _family(
    architecture: str,
    build: Callable[..., Encoder],
    num_features: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    *,
    training_bytes: float,
    frozen_training_bytes: float,
    shift_bytes: float,
) -> Iterator[EncoderInfo]:
    """An architecture without a temporal shift and with each; `shift_bytes` is what autograd keeps of a frame more."""
    for shift, name in SHIFTED_NAMES.items():
        more = shift_bytes if shift != "none" else 0.0
        yield EncoderInfo(
            name=name.format(architecture),
            architecture=architecture,
            shift=shift,
            build=partial(build, shift=shift),
            num_features=num_features,
            mean=mean,
            std=std,
            image_size=224,
            training_bytes_per_frame=training_bytes + more,
            frozen_training_bytes_per_frame=frozen_training_bytes + more,
        )


ENCODERS: dict[str, EncoderInfo] = {
    info.name: info
    for info in (
        *_family(
            "resnet50",
            resnet.ResNet50,
            resnet.NUM_FEATURES,
            IMAGENET_MEAN,
            IMAGENET_STD,
            training_bytes=86e6,
            frozen_training_bytes=42e6,
            shift_bytes=22.5e6,
        ),
        *_family(
            "efficientnet_lite0",
            efficientnet.EfficientNetLite0,
            efficientnet.NUM_FEATURES,
            (0.498, 0.498, 0.498),
            (0.502, 0.502, 0.502),
            training_bytes=80e6,
            frozen_training_bytes=53e6,
            shift_bytes=0.0,
        ),
    )
}


def build_encoder(name: str) -> Encoder:
    """An encoder with random weights, under the seed of `torch.manual_seed`.

    Raises:
        InputError: there is no encoder of that name.
    """
    if name not in ENCODERS:
        raise InputError(f"unknown encoder {name!r}, expected one of {', '.join(ENCODERS)}")
    return ENCODERS[name].build()


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm2d that stays in eval mode and takes no gradient, whatever its parents do. Tensor names are the same.

    While gradients are recorded it is computed as one scale and shift: unlike batch_norm's, that backward pass needs
    no input, which halves what a ResNet-50 keeps of a frame. Under `torch.no_grad` it is a plain BatchNorm, also when
    it is exported.
    """

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":
        super().train(False)
        return self

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None
        scale = self.weight.detach() * torch.rsqrt(self.running_var + self.eps)  # (C,)
        shift = self.bias.detach() - self.running_mean * scale  # (C,)
        return torch.addcmul(shift.to(x.dtype)[:, None, None], x, scale.to(x.dtype)[:, None, None])  # (B, C, H, W)


def freeze_batchnorm(module: nn.Module) -> None:
    """Freeze every BatchNorm2d inside, in place: statistics and affine stay bit for bit as they are or get loaded.

    Only right under pretrained weights: at random a frozen BatchNorm normalises nothing.
    """
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, _frozen(child))


def freeze_stages(encoder: Encoder, num_stages: int) -> None:
    """Take the first stages of an encoder (of its `stages()`) out of training: weights and BatchNorm stay as they are.

    Raises:
        InputError: the encoder has fewer stages.
    """
    stages = encoder.stages()
    if num_stages > len(stages):
        raise InputError(f"frozen_stages is {num_stages}, the encoder has {len(stages)}. Freeze all by frozen_encoder.")
    frozen = {id(module) for stage in stages[:num_stages] for part in stage for module in part.modules()}
    for parent in list(encoder.modules()):
        for name, child in parent.named_children():
            if id(child) in frozen and type(child) is nn.BatchNorm2d:
                setattr(parent, name, _frozen(child))
    for stage in encoder.stages()[:num_stages]:  # again: some are others now
        for part in stage:
            part.requires_grad_(False)


def _frozen(batchnorm: nn.BatchNorm2d) -> FrozenBatchNorm2d:
    """The same tensors in a frozen module."""
    frozen = FrozenBatchNorm2d(batchnorm.num_features, eps=batchnorm.eps, momentum=batchnorm.momentum)
    for name, parameter in batchnorm.named_parameters():
        setattr(frozen, name, parameter.requires_grad_(False))
    for name, buffer in batchnorm.named_buffers():
        setattr(frozen, name, buffer)
    return frozen.eval()


def fold_batchnorm(encoder: Encoder) -> Encoder:
    """A copy for inference with every BatchNorm2d folded into the convolution before it. Features are the same.

    The copy is in eval mode, and its tensors have other names: save the original. The encoders here register every
    BatchNorm right behind its convolution, which is how the two find each other.
    """
    folded = copy.deepcopy(encoder).eval()
    leaves = [(parent, name, leaf) for parent in folded.modules() for name, leaf in parent.named_children()]
    leaves = [place for place in leaves if not list(place[2].children())]
    for (conv_parent, conv_name, conv), (bn_parent, bn_name, bn) in pairwise(leaves):
        if isinstance(bn, nn.BatchNorm2d):
            assert isinstance(conv, nn.Conv2d) and conv.out_channels == bn.num_features, bn_name
            setattr(conv_parent, conv_name, fuse_conv_bn_eval(conv, bn))
            setattr(bn_parent, bn_name, nn.Identity())
    return folded.requires_grad_(False)
