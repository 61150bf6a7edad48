"""ResNet-50, the frame encoder of the baseline: normalised frames (B, 3, H, W) in, features (B, 2048) out.

He et al. 2016 (arXiv:1512.03385), in the "v1.5" form that has a bottleneck's stride in its 3x3 convolution. Names and
shapes of all tensors are torchvision's, so that its ImageNet files load as they are.
"""

from torch import Tensor, nn

from egochef.model.recompute import run_block
from egochef.model.shift import Encoder, Shift

NUM_FEATURES = 2048
EXPANSION = 4
"""a bottleneck's outputs over its inner channels"""
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""inner channels, number of bottlenecks, stride of the first one: layer1 to layer4"""


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut.

    (B, num_inputs, H, W) -> (B, 4 * num_inner, H/stride, W/stride)
    """

    def __init__(self, num_inputs: int, num_inner: int, stride: int):
        super().__init__()
        num_outputs = EXPANSION * num_inner
        self.conv1 = nn.Conv2d(num_inputs, num_inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(num_inner)
        self.conv2 = nn.Conv2d(num_inner, num_inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(num_inner)
        self.conv3 = nn.Conv2d(num_inner, num_outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(num_outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or num_inputs != num_outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(num_inputs, num_outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(num_outputs)
            )

    def forward(self, x: Tensor, shift: Shift | None = None) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = x if shift is None else shift(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(x + shortcut)


class ResNet50(Encoder):
    """Features (B, 2048) of frames (B, 3, H, W) of any size from 32 pixels; or, with a classifier, logits.

    Weights start at random as torchvision's do: convolutions normal by fan-out, every BatchNorm at 1 and 0.
    """

    def __init__(self, num_classes: int | None = None, shift: str = "none"):
        """
        Args:
            num_classes: size of the classifier `fc`, 1000 for ImageNet; None is the encoder, without one.
            shift: of `model.shift`, before the residual branch of every bottleneck, as TSM has it.
        """
        super().__init__(shift)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = _build_stages()
        self.fc = nn.Identity() if num_classes is None else nn.Linear(NUM_FEATURES, num_classes)
        self.recompute = False
        """keep only what goes into each bottleneck for the backward pass, and compute the rest again there"""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def run(self, frames: Tensor, shift: Shift | None) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(frames))))  # (B, 64, H/4, W/4)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in layer:
                x = run_block(block, x, shift, self.recompute)
        return self.fc(x.mean((2, 3)))  # (B, 2048, H/32, W/32) -> (B, 2048), or (B, num_classes)

    def stages(self) -> list[list[nn.Module]]:
        """The modules with weights from input to output, in five parts that may be frozen from the front."""
        return [[self.conv1, self.bn1], [self.layer1], [self.layer2], [self.layer3], [self.layer4]]


def _build_stages() -> list[nn.Sequential]:
    stages, num_inputs = [], 64
    for num_inner, num_blocks, stride in STAGES:
        blocks = [Bottleneck(num_inputs, num_inner, stride)]
        num_inputs = EXPANSION * num_inner
        blocks += [Bottleneck(num_inputs, num_inner, 1) for _ in range(num_blocks - 1)]
        stages.append(nn.Sequential(*blocks))
    return stages
