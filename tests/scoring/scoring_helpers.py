"""Small ScoreTables and a second, slow and plain way to score them, for the tests of this folder."""

import math

import numpy as np

from egochef.scoring.metrics import Truth
from egochef.scoring.table import ScoreTable


def random_table(
    rng: np.random.Generator,
    num_segments: int = 6,
    num_verbs: int = 4,
    num_nouns: int = 5,
    kind: str = "logits",
    num_actions: int = 0,
) -> ScoreTable:
    """Random scores; with `num_actions`, random actions of random scores too."""
    verbs, nouns = (3 * rng.standard_normal((num_segments, n)) for n in (num_verbs, num_nouns))
    if kind == "probs":
        verbs, nouns = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (verbs, nouns))
    action_id = action_output = None
    if num_actions:
        all_ids = [1000 * verb + noun for verb in range(num_verbs) for noun in range(num_nouns)]
        action_id = np.array([rng.permutation(all_ids)[:num_actions] for _ in range(num_segments)])
        action_output = rng.standard_normal(action_id.shape)
        if kind == "probs":
            action_output = np.exp(action_output) / np.exp(action_output).sum(axis=1, keepdims=True)
    ids = np.array([f"P{row:02d}_01_{row}" for row in range(num_segments)])
    return ScoreTable(ids, verbs, nouns, kind, action_id, action_output)  # type: ignore[arg-type]


def random_truth(rng: np.random.Generator, table: ScoreTable) -> Truth:
    """Random classes, with a few rare ones, for a table's segments in another order."""
    num_segments = len(table)
    return Truth(
        narration_id=rng.permutation(table.narration_id),
        verb=rng.integers(table.num_verbs, size=num_segments),
        noun=rng.integers(table.num_nouns, size=num_segments),
        tail_verbs=frozenset({0, 2}),
        tail_nouns=frozenset({1}),
        unseen=rng.random(num_segments) < 0.4,
    )


def slow_top_actions(table: ScoreTable, row: int) -> list[int]:
    """Every action of a segment, best first, by multiplying probabilities pair by pair."""
    verbs, nouns = (slow_probs(scores[row], table.kind) for scores in (table.verb_output, table.noun_output))
    pairs = [(p * q, 1000 * v + n) for v, p in enumerate(verbs) for n, q in enumerate(nouns)]
    return [action for _, action in sorted(pairs, reverse=True)]


def slow_probs(scores: np.ndarray, kind: str) -> list[float]:
    if kind == "probs":
        return [float(x) for x in scores]
    powers = [math.exp(float(x)) for x in scores]
    return [power / math.fsum(powers) for power in powers]


def slow_metrics(table: ScoreTable, truth: Truth) -> dict[str, float]:
    """The official definitions, one segment at a time."""
    outcomes: dict[str, list[bool]] = {}
    row_of = {name: row for row, name in enumerate(table.narration_id)}
    for name, verb, noun, unseen in zip(truth.narration_id, truth.verb, truth.noun, truth.unseen, strict=True):
        row = row_of[name]
        ranked = {
            "verb": sorted(range(table.num_verbs), key=lambda c, row=row: -table.verb_output[row, c]),
            "noun": sorted(range(table.num_nouns), key=lambda c, row=row: -table.noun_output[row, c]),
            "action": slow_top_actions(table, row),
        }
        if table.action_id is not None:
            scored = zip(table.action_output[row], table.action_id[row], strict=True)
            ranked["action"] = [action for _, action in sorted(scored, reverse=True)]
        right = {"verb": verb, "noun": noun, "action": 1000 * verb + noun}
        is_tail = {"verb": verb in truth.tail_verbs, "noun": noun in truth.tail_nouns}
        is_tail["action"] = is_tail["verb"] or is_tail["noun"]
        for task in ("verb", "noun", "action"):
            first, first5 = ranked[task][0] == right[task], right[task] in ranked[task][:5]
            outcomes.setdefault(f"all_{task}_accuracy_at_1", []).append(first)
            outcomes.setdefault(f"all_{task}_accuracy_at_5", []).append(first5)
            if is_tail[task]:
                outcomes.setdefault(f"tail_{task}_accuracy_at_1", []).append(first)
            if unseen:
                outcomes.setdefault(f"unseen_{task}_accuracy_at_1", []).append(first)
    return {key: 100 * sum(values) / len(values) for key, values in outcomes.items()}


def slow_pair_probs(table: ScoreTable, row: int, *, is_told: bool) -> dict[int, float]:
    """The probability of every action of a segment, pair by pair.

    Args:
        is_told: whether action scores are probabilities or their logarithms; else they only compare the listed actions.
    """
    verbs, nouns = (slow_probs(scores[row], table.kind) for scores in (table.verb_output, table.noun_output))
    products = {1000 * v + n: p * q for v, p in enumerate(verbs) for n, q in enumerate(nouns)}
    if table.action_id is None:
        return products
    listed = table.action_id[row].tolist()
    by_product = math.fsum(products[action] for action in listed)
    scores = [float(score) for score in table.action_output[row]]
    if is_told:
        probs = scores if table.kind == "probs" else [math.exp(score) for score in scores]
        if len(listed) == len(products):
            probs = [prob / math.fsum(probs) for prob in probs]
    else:
        probs = [by_product * prob for prob in slow_probs(np.array(scores), "logits")]
    left = 1 - math.fsum(probs)
    own = dict(zip(listed, probs, strict=True))
    others = math.fsum(product for action, product in products.items() if action not in own)
    return {a: own[a] if a in own else left * product / others for a, product in products.items()}
