"""Which classes are taken for which, in an order that puts confused ones side by side.

In: true and predicted classes. Out: the matrix over the classes that occur, clustered, and its largest entries.
"""

from dataclasses import dataclass

import numpy as np

from egochef.report.analysis import Outcome, Split


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts over C classes, those that a segment has or is said to have."""

    ids: np.ndarray
    """(C,) class ids, clustered"""
    names: tuple[str, ...]
    """(C,) their names"""
    counts: np.ndarray
    """(C, C): segments by true class (row) and predicted class (column)"""

    @property
    def shares(self) -> np.ndarray:
        """(C, C): counts as a percentage of the row; 0 in rows of no segment."""
        return 100 * self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)


@dataclass(frozen=True)
class Mistake:
    """One class taken for another."""

    true: str
    predicted: str
    num: int
    """segments"""
    of: int
    """segments of the true class"""

    @property
    def share(self) -> float:
        """Percent of the true class's segments."""
        return 100 * self.num / self.of


def confusion(outcome: Outcome, split: Split, task: str) -> Confusion:
    """The verbs' or nouns' confusion matrix."""
    own, best = getattr(split.truth, task), outcome.best(task)
    ids = np.unique(np.concatenate([own, best]))
    counts = np.zeros((len(ids), len(ids)), dtype=np.int64)
    np.add.at(counts, (np.searchsorted(ids, own), np.searchsorted(ids, best)), 1)
    order = clustered(counts)
    ids = ids[order]
    return Confusion(ids, tuple(split.names(task)[each] for each in ids), counts[np.ix_(order, order)])


def mistakes(matrix: Confusion, num: int) -> list[Mistake]:
    """The largest entries beside the diagonal, by count."""
    off = matrix.counts * (1 - np.eye(len(matrix.ids), dtype=np.int64))
    order = np.argsort(-off, axis=None, kind="stable")[:num]
    rows, columns = np.unravel_index(order, off.shape)
    sizes = matrix.counts.sum(axis=1)
    return [
        Mistake(matrix.names[row], matrix.names[column], int(off[row, column]), int(sizes[row]))
        for row, column in zip(rows, columns, strict=True)
        if off[row, column]
    ]


def clustered(counts: np.ndarray) -> np.ndarray:
    """(C,) an order of the classes of a matrix (C, C) in which those that are confused with each other are neighbours.

    Average linkage (Sokal and Michener, 1958) over the mean of both classes' shares of being taken for the other; where
    two clusters join, the ends that are confused most come together. Larger clusters stand first.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    alike = (shares + shares.T) / 2  # (C, C)
    np.fill_diagonal(alike, 0.0)
    link = np.where(np.eye(len(counts), dtype=bool), -1.0, alike)  # between clusters; -1: is no pair
    members = [[each] for each in range(len(counts))]
    alive = np.ones(len(counts), dtype=bool)
    while True:
        left, right = np.unravel_index(link.argmax(), link.shape)
        if link[left, right] <= 0:
            break
        members[left] = _joined(members[left], members[right], alike)
        sizes = [len(members[left]) - len(members[right]), len(members[right])]
        merged = np.average([link[left], link[right]], axis=0, weights=sizes)
        alive[right] = False
        merged[~alive], merged[left] = -1.0, -1.0
        link[left], link[:, left] = merged, merged
        link[right], link[:, right] = -1.0, -1.0
    clusters = sorted((members[each] for each in np.flatnonzero(alive)), key=len, reverse=True)
    return np.array([each for cluster in clusters for each in cluster])


def _joined(first: list[int], second: list[int], alike: np.ndarray) -> list[int]:
    """Both orders, one or both turned round, so that the ends that meet are as alike as can be."""
    ways = [(a, b) for a in (first, first[::-1]) for b in (second, second[::-1])]
    a, b = max(ways, key=lambda way: alike[way[0][-1], way[1][0]])
    return a + b
