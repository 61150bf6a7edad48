"""Several models on the same segments: who is right where, and whether a difference is more than chance.

In: outcomes of the same split. Out: counts and paired differences.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from egochef.report.analysis import LENGTHS_S, Outcome, Split
from egochef.report.intervals import LEVEL, Estimate, estimate_difference
from egochef.scoring.metrics import TASKS


@dataclass(frozen=True)
class Difference:
    """A model's top-1 less another's, on the same segments."""

    model: str
    other: str
    points: dict[str, Estimate]
    """by task: percentage points, paired"""
    num_gained: int
    """actions that only the model has right"""
    num_lost: int
    """actions that only the other has right"""

    @property
    def is_sure(self) -> bool:
        """Whether chance alone would hardly explain the difference of action top-1.

        Its interval does not hold 0, and a sign test over the segments that only one has right says so too: of few of
        them a bootstrap is too sure.
        """
        points = self.points["action"]
        num, fewest = self.num_gained + self.num_lost, min(self.num_gained, self.num_lost)
        ways, fewer = 1, 1  # of choosing k of num, and their sum up to k
        for k in range(fewest):
            ways = ways * (num - k) // (k + 1)
            fewer += ways
        return (points.low > 0 or points.high < 0) and 2 * fewer / 2**num <= 1 - LEVEL


@dataclass(frozen=True)
class Pattern:
    """Segments whose action exactly these models have right."""

    models: tuple[str, ...]
    num: int
    by_length: tuple[int, ...]
    """of them in each bin of LENGTHS_S"""
    verbs: tuple[tuple[str, int], ...]
    """the most frequent true verbs among them"""


def differences(outcomes: Sequence[Outcome], split: Split) -> list[Difference]:
    """Every later model against every earlier one."""
    found = []
    for place, second in enumerate(outcomes):
        for first in outcomes[place + 1 :]:
            points = {task: estimate_difference(first.right(task), second.right(task), split.video) for task in TASKS}
            gained = first.right("action") & ~second.right("action")
            lost = second.right("action") & ~first.right("action")
            found.append(Difference(first.name, second.name, points, int(gained.sum()), int(lost.sum())))
    return found


def patterns(outcomes: Sequence[Outcome], split: Split, num_verbs: int = 3) -> list[Pattern]:
    """Every combination of models that some segment has, the most frequent first."""
    right = np.stack([outcome.right("action") for outcome in outcomes], axis=1)  # (S, models)
    length_s = split.length_s
    names = split.folder.taxonomy.verbs
    kinds, kind = np.unique(right, axis=0, return_inverse=True)
    found = []
    for place, models in enumerate(kinds):
        rows = kind.reshape(-1) == place
        verbs = np.bincount(split.truth.verb[rows], minlength=len(names))
        top = np.argsort(-verbs, kind="stable")[:num_verbs]
        found.append(
            Pattern(
                models=tuple(outcome.name for outcome, is_right in zip(outcomes, models, strict=True) if is_right),
                num=int(rows.sum()),
                by_length=tuple(np.histogram(length_s[rows], LENGTHS_S)[0].tolist()),
                verbs=tuple((names[each], int(verbs[each])) for each in top if verbs[each]),
            )
        )
    return sorted(found, key=lambda pattern: -pattern.num)
