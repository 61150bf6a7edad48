"""The joint head: what it starts as, its sums, and what a recogniser with it gives."""

import numpy as np
import pytest
import torch

from egochef.errors import InputError
from egochef.model.recogniser import ModelConfig, Recogniser

ACTIONS = (3, 1000, 1002, 4001, 4003)
"""verb * 1000 + noun of 6 verbs and 5 nouns; verbs 2, 3, 5 and noun 4 are in none"""
CONFIG = ModelConfig(
    "efficientnet_lite0", temporal="mean", num_verbs=6, num_nouns=5, joint=True, action_ids=ACTIONS, head_dropout=0.0
)


def build(seed=0, **changes):
    torch.manual_seed(seed)
    return Recogniser(ModelConfig(**{**CONFIG.__dict__, **changes})).eval()


def test_at_first_it_knows_only_which_pairs_never_happen():
    model, features = build(), torch.randn(3, 2, 1280)
    with torch.no_grad():
        logits, action = model.classify_actions(features)
        clip = features.mean(1)
        verb, noun = (head(clip).softmax(1).numpy() for head in (model.verb_head, model.noun_head))
    product = np.stack([verb[:, each // 1000] * noun[:, each % 1000] for each in ACTIONS], axis=1)
    expected = product / product.sum(1, keepdims=True)
    assert np.abs(action.softmax(1).numpy() - expected).max() < 1e-6
    for kind, of_action, num in (("verb", np.array(ACTIONS) // 1000, 6), ("noun", np.array(ACTIONS) % 1000, 5)):
        sums = np.stack([expected[:, of_action == each].sum(1) for each in range(num)], axis=1)
        assert np.abs(getattr(logits, kind).softmax(1).numpy() - sums).max() < 1e-6
        assert np.isfinite(getattr(logits, kind).numpy()).all()


def test_it_learns_what_two_heads_cannot():
    """Clips where only the pair tells: (0, 3) and (1, 0) against (1, 2); the marginals follow."""
    model = build()
    torch.nn.init.normal_(model.joint_head.own.weight)
    features = torch.randn(8, 2, 1280)
    with torch.no_grad():
        logits, action = model.classify_actions(features)
        assert torch.allclose(model.classify(features).verb, logits.verb, atol=1e-5)
    probs = action.softmax(1)
    assert torch.allclose(logits.verb.exp()[:, 1], probs[:, 1] + probs[:, 2], atol=1e-6)
    assert torch.allclose(logits.noun.exp()[:, 3], probs[:, 0] + probs[:, 4], atol=1e-6)


def test_places_of_labels():
    head = build().joint_head
    assert head.places(torch.tensor([4, 0, 1]), torch.tensor([1, 3, 2])).tolist() == [3, 0, 2]


def test_under_autocast_the_sums_stay_exact():
    model, features = build(), torch.randn(3, 2, 1280)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits, _ = model.classify_actions(features)
    assert logits.verb.dtype == torch.float32
    assert logits.verb.exp().sum(1).numpy() == pytest.approx(np.ones(3), abs=1e-5)


def test_weights_have_no_ids_in_them_and_the_config_has():
    assert {name for name in build().state_dict() if name.startswith("joint")} == {
        "joint_head.own.weight",
        "joint_head.own.bias",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"joint": False}, "model.joint is false"),
        ({"action_ids": (1000, 3)}, "must rise"),
        ({"action_ids": (3, 6000)}, "holds 6000, expected verb"),
        ({"action_ids": (5,)}, "holds 5, expected verb"),
    ],
)
def test_wrong_configs(changes, message):
    with pytest.raises(InputError, match=message):
        ModelConfig(**{**CONFIG.__dict__, **changes})
    with pytest.raises(InputError, match="training fills them in"):
        build(action_ids=())
