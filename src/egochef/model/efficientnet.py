"""EfficientNet-Lite0, the light frame encoder: normalised frames (B, 3, H, W) in, features (B, 1280) out.

Tan and Le 2019 (arXiv:1905.11946) without squeeze-and-excitation, with ReLU6 for swish, and with stem and head of fixed
width (the official description of EfficientNet-Lite in tensorflow/tpu).

Padding: the published weights come from TensorFlow, whose "same" padding at stride 2 depends on the picture's size.
Where a side is even it is one pixel more at the bottom and right than at the top and left. Here it is always that
one, so `forward` never asks for a size and can be traced and exported. Multiples of 32 pixels give TensorFlow's
numbers; at other sizes a layer of stride 2 that meets an odd side gives one row or column less than TensorFlow's.
"""

import math

import torch
from torch import Tensor, nn

from egochef.model.recompute import run_block
from egochef.model.shift import Encoder, Shift
from egochef.runtime import full_precision

NUM_FEATURES = 1280
STEM_CHANNELS = 32
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""number of blocks, kernel size, stride of the first block, expansion, output channels"""


class DepthwiseConv(nn.Conv2d):
    """(B, C, H, W) -> (B, C, H', W'), each channel on its own.

    A processor goes backward through it more slowly in bf16 than in float32, so it trains in float32 there.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.device.type != "cpu" or inputs.dtype == self.weight.dtype or not torch.is_grad_enabled():
            return super().forward(inputs)
        with full_precision(inputs.device):
            return super().forward(inputs.float()).to(inputs.dtype)


class Block(nn.Module):
    """Inverted bottleneck: widen, filter each channel, narrow.

    (B, num_inputs, H, W) -> (B, num_outputs, H/stride, W/stride), with a shortcut where the two are of one shape.
    """

    def __init__(self, num_inputs: int, num_outputs: int, kernel_size: int, stride: int, expansion: int):
        super().__init__()
        num_inner = expansion * num_inputs
        self.expand_conv, self.expand_bn = None, None
        if expansion > 1:
            self.expand_conv = nn.Conv2d(num_inputs, num_inner, 1, bias=False)
            self.expand_bn = _batchnorm(num_inner)
        self.pad, padding = _same_padding(kernel_size, stride)
        self.depthwise_conv = DepthwiseConv(
            num_inner, num_inner, kernel_size, stride=stride, padding=padding, groups=num_inner, bias=False
        )
        self.depthwise_bn = _batchnorm(num_inner)
        self.project_conv = nn.Conv2d(num_inner, num_outputs, 1, bias=False)
        self.project_bn = _batchnorm(num_outputs)
        self.relu6 = nn.ReLU6(inplace=True)
        self.has_shortcut = stride == 1 and num_inputs == num_outputs

    def forward(self, inputs: Tensor, shift: Shift | None = None) -> Tensor:
        x = shift(inputs) if shift is not None and self.has_shortcut else inputs
        if self.expand_conv is not None and self.expand_bn is not None:
            x = self.relu6(self.expand_bn(self.expand_conv(x)))  # (B, num_inner, H, W)
        x = self.relu6(self.depthwise_bn(self.depthwise_conv(self.pad(x))))
        x = self.project_bn(self.project_conv(x))
        return x + inputs if self.has_shortcut else x


class EfficientNetLite0(Encoder):
    """Features (B, 1280) of frames (B, 3, H, W) of any size from 32 pixels; or, with a classifier, logits.

    Weights start at random as TensorFlow's do: convolutions normal by fan-out, every BatchNorm at 1 and 0.
    """

    def __init__(self, num_classes: int | None = None, shift: str = "none"):
        """
        Args:
            num_classes: size of the classifier `fc`, 1000 for ImageNet; None is the encoder, without one.
            shift: of `model.shift`, in the nine blocks with a shortcut, as TSM has it in MobileNetV2.
        """
        super().__init__(shift)
        self.pad, padding = _same_padding(3, 2)
        self.stem_conv = nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, padding=padding, bias=False)
        self.stem_bn = _batchnorm(STEM_CHANNELS)
        blocks, num_inputs = [], STEM_CHANNELS
        for num_blocks, kernel_size, first_stride, expansion, num_outputs in STAGES:
            for number in range(num_blocks):
                stride = first_stride if number == 0 else 1
                blocks.append(Block(num_inputs, num_outputs, kernel_size, stride, expansion))
                num_inputs = num_outputs
        self.blocks = nn.Sequential(*blocks)
        self.head_conv = nn.Conv2d(num_inputs, NUM_FEATURES, 1, bias=False)
        self.head_bn = _batchnorm(NUM_FEATURES)
        self.relu6 = nn.ReLU6(inplace=True)
        self.fc = nn.Identity() if num_classes is None else nn.Linear(NUM_FEATURES, num_classes)
        self.recompute = False
        """keep only what goes into each block for the backward pass, and compute the rest again there"""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))

    def run(self, frames: Tensor, shift: Shift | None) -> Tensor:
        x = self.relu6(self.stem_bn(self.stem_conv(self.pad(frames))))  # (B, 32, H/2, W/2)
        for block in self.blocks:
            x = run_block(block, x, shift, self.recompute)
        x = self.relu6(self.head_bn(self.head_conv(x)))  # (B, 320, H/32, W/32) -> (B, 1280, H/32, W/32)
        return self.fc(x.mean((2, 3)))  # (B, 1280), or (B, num_classes)

    def stages(self) -> list[list[nn.Module]]:
        """The modules with weights from input to output, in nine parts that may be frozen from the front."""
        blocks, middle = list(self.blocks), []
        for num_blocks, *_ in STAGES:
            middle.append(blocks[:num_blocks])
            blocks = blocks[num_blocks:]
        return [[self.stem_conv, self.stem_bn], *middle, [self.head_conv, self.head_bn]]


def _same_padding(kernel_size: int, stride: int) -> tuple[nn.Module, int]:
    """A layer that pads before the convolution, and the convolution's own padding: one of the two does the work."""
    total = kernel_size - stride  # over both sides, where the stride divides the picture's side
    before, after = total // 2, total - total // 2
    if before == after:
        return nn.Identity(), before
    return nn.ZeroPad2d((before, after, before, after)), 0  # a convolution's own padding is the same on both sides


def _batchnorm(num_channels: int) -> nn.BatchNorm2d:
    """With TensorFlow's epsilon, and its decay of 0.99 (PyTorch counts it from the other end)."""
    return nn.BatchNorm2d(num_channels, eps=1e-3, momentum=0.01)
