"""What a recogniser costs: multiply-adds, parameters, memory. Counted on shapes alone, so the same on every machine."""

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from egochef.clip import ClipSpec
from egochef.model.recogniser import ModelConfig, Recogniser, count_parameters
from egochef.taxonomy import ACTION_BASE

NUM_ACTIONS = 3_568
"""different actions in EK-100's training split"""


@dataclass(frozen=True)
class Cost:
    """Of one clip."""

    encoder_flops: float
    """multiply-adds of the encoder for a frame, a multiply-add counted once, as the papers do"""
    flops: float
    """multiply-adds of the whole recogniser for a clip"""
    num_parameters: int
    training_bytes: int
    """what autograd keeps of a clip in float32 while all of it trains, BatchNorm frozen or not as the config says"""


@cache
def cost_of(config: ModelConfig, clip: ClipSpec) -> Cost:
    """Count one forward pass of a clip in training; a joint head that knows no actions yet gets as many as EK-100's."""
    size = clip.image_size
    if config.joint and not config.action_ids:
        verbs_first = [
            verb * ACTION_BASE + noun for noun in range(config.num_nouns) for verb in range(config.num_verbs)
        ]
        config = replace(config, action_ids=tuple(sorted(verbs_first[:NUM_ACTIONS])))
    with torch.device("meta"):
        recogniser = Recogniser(config).train()
        frames = torch.empty(1, clip.num_frames, 3, size, size)
        flops = count_flops(recogniser, frames)
        encoder_flops = count_flops(recogniser.encoder, frames[0, :1], 1)
    return Cost(encoder_flops, flops, count_parameters(recogniser), count_kept_bytes(recogniser, frames))


def count_flops(module: nn.Module, *inputs: Tensor | int) -> float:
    """Multiply-adds of a forward pass: convolutions, linear layers, recurrences. All else is below a hundredth."""
    total = 0.0

    def count(layer: nn.Module, given: tuple[Tensor, ...], made: Tensor | tuple[Tensor, ...]) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            assert isinstance(made, Tensor)
            total += made.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            total += given[0].numel() * layer.out_features
        elif isinstance(layer, nn.RNNBase):  # each weight once a step
            steps = given[0].numel() / given[0].shape[-1]
            total += steps * sum(weight.numel() for weight in layer.parameters() if weight.dim() > 1)

    hooks = [layer.register_forward_hook(count) for layer in module.modules()]
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return total


def count_kept_bytes(module: nn.Module, inputs: Tensor) -> int:
    """What autograd keeps of a forward pass, beside weights and buffers; each memory once however often it is kept."""
    own = {tensor.untyped_storage()._cdata for tensor in module.state_dict().values()}
    kept: dict[int, tuple[int, Tensor]] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes(), tensor  # held on to, or another may get its number
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        made = module(inputs)
    del made
    return sum(num_bytes for num_bytes, _ in kept.values())
