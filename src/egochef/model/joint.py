"""The joint head: which pairs of verb and noun happen together, and what follows for each of the two.

In: a clip's vector and its verb and noun logits. Out: logits of the actions that were there to learn from (B, A), and
the logarithms of their sums by verb and by noun. An action's logit is its verb's plus its noun's plus its own, which
starts at 0: at first the head knows no more than that some pairs never happen.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from egochef.errors import InputError
from egochef.runtime import full_precision
from egochef.taxonomy import ACTION_BASE

SMALLEST_PROB = 1e-12
"""of a verb or noun that no action has, so that its logarithm is a number"""


class Classes(Protocol):
    """What a joint head has to know of a model's config."""

    @property
    def action_ids(self) -> tuple[int, ...]: ...
    @property
    def num_verbs(self) -> int: ...
    @property
    def num_nouns(self) -> int: ...


class JointHead(nn.Module):
    """Actions beside verbs and nouns."""

    action_ids: Tensor
    verb_of: Tensor
    noun_of: Tensor

    def __init__(self, num_inputs: int, classes: Classes):
        super().__init__()
        if not classes.action_ids:
            raise InputError("model.joint without model.action_ids: training fills them in from the segments")
        ids = torch.tensor(classes.action_ids, device="cpu")  # real ones in a model that is built without memory, too
        self.own = nn.Linear(num_inputs, len(ids))
        nn.init.zeros_(self.own.weight)
        nn.init.zeros_(self.own.bias)
        verb_of = nn.functional.one_hot(ids // ACTION_BASE, classes.num_verbs).float()  # (A, V)
        noun_of = nn.functional.one_hot(ids % ACTION_BASE, classes.num_nouns).float()  # (A, N)
        for name, values in (("action_ids", ids), ("verb_of", verb_of), ("noun_of", noun_of)):
            self.register_buffer(name, values, persistent=False)

    def forward(self, clip: Tensor, verb: Tensor, noun: Tensor) -> Tensor:
        """(B, E), (B, V), (B, N) -> action logits (B, A)."""
        verbs, nouns = self.action_ids // ACTION_BASE, self.action_ids % ACTION_BASE
        return self.own(clip) + verb[:, verbs] + noun[:, nouns]

    def marginals(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Action logits (B, A) -> log-probabilities of verbs (B, V) and nouns (B, N), float32."""
        with full_precision(action.device):  # sums of small numbers
            probs = action.float().softmax(1)
            verb, noun = probs @ self.verb_of, probs @ self.noun_of
        return verb.clamp_min(SMALLEST_PROB).log(), noun.clamp_min(SMALLEST_PROB).log()

    def places(self, verb: Tensor, noun: Tensor) -> Tensor:
        """Where the actions of verbs and nouns (B,) stand among the head's own, (B,) int64; they are among them."""
        return torch.searchsorted(self.action_ids, verb * ACTION_BASE + noun)
