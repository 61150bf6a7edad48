"""What is said of a moment of video: the best verbs, nouns and actions by name, and what is shown of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from egochef.taxonomy import Taxonomy

Ranked = tuple[tuple[str, float], ...]
"""(class name, probability), best first"""


@dataclass(frozen=True)
class Prediction:
    """What the model sees around a moment of a video."""

    time_s: float
    """the moment it speaks of, on the source's clock"""
    verb: Ranked
    """five best, of the smoothed probabilities"""
    noun: Ranked
    """five best"""
    action: Ranked
    """five best pairs, by the product of verb and noun probability"""
    shown: str | None
    """the action that is named, after hysteresis; None: uncertain"""
    shown_ids: tuple[int, int] | None
    """its verb and noun ids"""
    shown_prob: float
    """its probability, 0 where uncertain"""


def rank(verb: np.ndarray, noun: np.ndarray, taxonomy: Taxonomy, most: int = 5) -> tuple[Ranked, Ranked, Ranked]:
    """The best verbs, nouns and actions of verb (V,) and noun (N,) probabilities."""
    verbs, nouns = np.argsort(-verb)[:most], np.argsort(-noun)[:most]
    pairs = sorted(((float(verb[v] * noun[n]), v, n) for v in verbs for n in nouns), reverse=True)[:most]
    return (
        tuple((taxonomy.verbs[v], float(verb[v])) for v in verbs),
        tuple((taxonomy.nouns[n], float(noun[n])) for n in nouns),
        tuple((taxonomy.action_name(v, n), prob) for prob, v, n in pairs),
    )


def as_line(prediction: Prediction, **more: Any) -> dict[str, Any]:
    """Plain values for a log line: `time_s`; for verb, noun and action the name, `_prob` and `_top5`; `shown`.

    Args:
        more: further values, which come first.
    """
    line: dict[str, Any] = {**more, "time_s": round(prediction.time_s, 3)}
    for kind in ("verb", "noun", "action"):
        ranked: Ranked = getattr(prediction, kind)
        line |= {kind: ranked[0][0], f"{kind}_prob": round(ranked[0][1], 5)}
        line[f"{kind}_top5"] = [[name, round(prob, 5)] for name, prob in ranked]
    line["shown"] = prediction.shown
    return line
