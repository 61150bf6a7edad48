"""What an exported file says of its weights' licence follows what they learned from, not how many classes they know."""

import pytest
from deploy.exported import CLIP

from egochef.data.known import EK100, TOY, UNKNOWN
from egochef.deploy.source import licence_of
from egochef.model.checkpoint import Checkpoint
from egochef.model.recogniser import ModelConfig
from egochef.taxonomy import Taxonomy


@pytest.mark.parametrize(
    ("datasets", "said"),
    [
        ((), "Weights: the licence of the data"),
        ((EK100,), "EPIC-KITCHENS-100 (CC BY-NC 4.0)"),
        ((EK100, TOY), "EPIC-KITCHENS-100 (CC BY-NC 4.0)"),
        ((TOY, UNKNOWN), "Weights: the licence of the data"),
        ((TOY,), "ToyKitchen, which is drawn"),
    ],
)
def test_licences(datasets, said):
    taxonomy = Taxonomy(tuple(f"verb{n}" for n in range(97)), tuple(f"noun{n}" for n in range(300)))
    about = Checkpoint(ModelConfig(), CLIP, taxonomy, "mine", "imagenet", datasets=datasets)
    assert said in licence_of(about)
