"""ScoreTable: what a model says of every segment of a split. Metrics, ensembles, submissions and reports read
only this.

In and out: `scores.npz`, keys `narration_id` (S,) str, `verb_output` (S, V) float32, `noun_output` (S, N)
float32, `kind` "logits" or "probs", and optionally `action_id` (S, A) int with `action_output` (S, A)
float32, and `seen` (S,) int. S segments, V verbs, N nouns. Also in: the official baselines' `.pt` results (see
`official`).
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from egochef.errors import InputError
from egochef.files import atomic_path
from egochef.scoring.official import read_official_scores
from egochef.taxonomy import ACTION_BASE

Kind = Literal["logits", "probs"]
MAX_IDS_SHOWN = 5
MAX_FILE_BYTES = 1 << 30  # the test split with actions takes 37 MB; a crafted archive can claim any size
ROW_SUM_TOLERANCE = 0.01  # 300 float16 probabilities are off by up to 0.0005
SMALLEST_PROB = 1e-45  # below every positive float32
FAR = 16.0
"""from 0 that a row's largest score may be before float32, whose steps are 2e-6 there, tells its scores apart badly;
log-probabilities never get so far"""
SEEN, UNSEEN, NOT_TOLD = 1, 0, -1
"""whether a model has learned from a segment's label"""
PICKLE_SUFFIXES = (".pkl", ".pickle")
OFFICIAL_SUFFIXES = (".pt", ".pth")


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of S segments; the arrays are taken over in the types below and checked.

    float32 is kept as it is. Of logits in another type a row whose largest is far from 0 has it taken off first, which
    means the same and lets float32 tell its scores apart.
    """

    narration_id: np.ndarray
    """(S,) str, each once"""
    verb_output: np.ndarray
    """(S, V) float32"""
    noun_output: np.ndarray
    """(S, N) float32"""
    kind: Kind
    """what verb_output and noun_output are; log-probabilities are logits too, probs are a softmax's output"""
    action_id: np.ndarray | None = None
    """(S, A) int64, verb * 1000 + noun, each once in a row; None: the action score follows from verb and
    noun"""
    action_output: np.ndarray | None = None
    """(S, A) float32, of the same kind; they count as given"""
    seen: np.ndarray | None = None
    """(S,) int8, whether a model that made the scores has learned from the segment's label: SEEN, UNSEEN or NOT_TOLD;
    None becomes NOT_TOLD everywhere"""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"the kind of scores is {self.kind!r}, expected one of {', '.join(get_args(Kind))}")
        object.__setattr__(self, "narration_id", checked_ids(self.narration_id))
        for name in ("verb_output", "noun_output"):
            object.__setattr__(self, name, self._checked_scores(name))
            if self.kind == "probs":
                self._check_row_sums(name)
        if (self.action_id is None) != (self.action_output is None):
            raise InputError("action_id and action_output come together: give both or neither")
        if self.action_id is not None:
            object.__setattr__(self, "action_output", self._checked_scores("action_output"))
            object.__setattr__(self, "action_id", self._checked_actions())
        object.__setattr__(self, "seen", self._checked_seen())

    def __len__(self) -> int:
        return len(self.narration_id)

    @property
    def num_verbs(self) -> int:
        return self.verb_output.shape[1]

    @property
    def num_nouns(self) -> int:
        return self.noun_output.shape[1]

    def _checked_scores(self, name: str) -> np.ndarray:
        """(S, classes) float32, finite, and within 0..1 if they are probabilities."""
        given = np.asarray(getattr(self, name))
        if given.ndim != 2 or given.shape[0] != len(self) or given.shape[1] < 1:
            raise InputError(f"{name} has shape {given.shape}, expected ({len(self)}, classes): a row per narration_id")
        if given.dtype.kind not in "fiu":
            raise InputError(f"{name} holds {given.dtype}, expected numbers")
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite and is refused below
            scores = np.ascontiguousarray(given, dtype=np.float32)
        if self.kind == "logits" and given.dtype.type is not np.float32:
            far = np.flatnonzero(np.isfinite(scores).all(axis=1) & (np.abs(scores.max(axis=1)) > FAR))
            scores[far] = _below_largest(given[far])
        wrong, expected = ~np.isfinite(scores), "finite numbers (float32)"
        if self.kind == "probs" and not wrong.any():
            wrong, expected = (scores < 0) | (scores > 1), "probabilities within 0..1 (kind 'probs')"
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise InputError(
                f"{name} of {self.narration_id[row]}, column {column}, is {given[row, column]}, expected"
                f" {expected} ({wrong.sum()} such values)"
            )
        return scores

    def _check_row_sums(self, name: str) -> None:
        sums = getattr(self, name).sum(axis=1, dtype=np.float64)
        row = np.abs(sums - 1).argmax()
        if abs(sums[row] - 1) > ROW_SUM_TOLERANCE:
            raise InputError(
                f"{name} of {self.narration_id[row]} sums to {sums[row]:.4g}, expected 1, as probabilities"
                " (kind 'probs') do. Give the output before the softmax with kind 'logits'."
            )

    def _checked_seen(self) -> np.ndarray:
        if self.seen is None:
            return np.full(len(self), NOT_TOLD, np.int8)
        seen = np.asarray(self.seen)
        if (
            seen.shape != (len(self),)
            or seen.dtype.kind not in "iu"
            or not np.isin(seen, (SEEN, UNSEEN, NOT_TOLD)).all()
        ):
            raise InputError(
                f"seen is {seen.dtype} of shape {seen.shape}, expected {SEEN}, {UNSEEN} or {NOT_TOLD} per segment"
            )
        return seen.astype(np.int8)

    def _checked_actions(self) -> np.ndarray:
        ids, scores = np.asarray(self.action_id), self.action_output
        assert scores is not None
        if ids.shape != scores.shape or ids.dtype.kind not in "iu":
            raise InputError(
                f"action_id is {ids.dtype} of shape {ids.shape}, expected whole numbers of"
                f" action_output's shape {scores.shape}"
            )
        ids = np.ascontiguousarray(ids, dtype=np.int64)
        wrong = (ids < 0) | (ids // ACTION_BASE >= self.num_verbs) | (ids % ACTION_BASE >= self.num_nouns)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise InputError(
                f"action_id of {self.narration_id[row]} holds {ids[row, column]}, expected"
                f" verb * {ACTION_BASE} + noun with {self.num_verbs} verbs and {self.num_nouns} nouns"
            )
        ordered = np.sort(ids, axis=1)
        repeated = np.argwhere(ordered[:, 1:] == ordered[:, :-1])
        if len(repeated):
            row, column = repeated[0]
            raise InputError(f"action_id of {self.narration_id[row]} holds {ordered[row, column]} more than once")
        return ids


def _below_largest(scores: np.ndarray) -> np.ndarray:
    """How far scores (S, classes) of any type are from the largest of their row, (S, classes) float32, at most 0."""
    largest = scores.max(axis=1, keepdims=True)
    if scores.dtype.kind in "iu":  # modulo 2**64, which no difference reaches
        below = (largest.astype(np.uint64) - scores.astype(np.uint64)).astype(np.float64)
    else:
        below = largest.astype(np.promote_types(scores.dtype, np.float64)) - scores
    return np.maximum(-below, np.finfo(np.float32).min).astype(np.float32)


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Log-probabilities along the last axis, float64; the largest score is taken off first, so nothing
    overflows."""
    shifted = scores.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def to_logs(scores: np.ndarray, kind: Kind) -> np.ndarray:
    """Logits as they are, probabilities as their logarithms, (..., classes) float64; one of 0 becomes 1e-45."""
    scores = scores.astype(np.float64)
    return np.log(np.maximum(scores, SMALLEST_PROB)) if kind == "probs" else scores


def to_log_probs(scores: np.ndarray, kind: Kind) -> np.ndarray:
    """Log-probabilities (..., classes) float64 of scores of either kind; a probability of 0 becomes 1e-45."""
    return log_softmax(to_logs(scores, kind))


def log_probs(table: ScoreTable) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of the verbs (S, V) and nouns (S, N), float64, normalised row by row."""
    return to_log_probs(table.verb_output, table.kind), to_log_probs(table.noun_output, table.kind)


def align(table: ScoreTable, narration_ids: Sequence[str] | np.ndarray, name: str = "the score table") -> ScoreTable:
    """The table with its rows in the order of `narration_ids`.

    Args:
        name: what to call the table in errors.

    Raises:
        InputError: `narration_ids` are not exactly the table's own, with how many and which.
    """
    wanted = checked_ids(narration_ids)
    row_of = {narration_id: row for row, narration_id in enumerate(table.narration_id.tolist())}
    missing = [narration_id for narration_id in wanted.tolist() if narration_id not in row_of]
    extra = sorted(set(row_of).difference(wanted.tolist()), key=row_of.__getitem__)
    if missing or extra:
        faults = [
            f"{len(ids)} {word} ({_some(ids)})" for ids, word in ((missing, "missing"), (extra, "too many")) if ids
        ]
        raise InputError(
            f"{name} does not fit the {len(wanted)} segments asked for: {' and '.join(faults)}."
            " Scores and annotations must be of the same split."
        )
    return take_rows(table, np.array([row_of[narration_id] for narration_id in wanted.tolist()]))


def wrong_classes(found: tuple[int, int], expected: tuple[int, int], whose: str) -> str | None:
    """What is wrong with numbers of verbs and nouns, if they are not those that `whose` has; for people."""
    if found == expected:
        return None
    fault = f"{found[0]} verbs and {found[1]} nouns, but {whose} has {expected[0]} and {expected[1]}"
    return f"{fault}: verb and noun are swapped" if found == expected[::-1] else fault


def check_classes(table: ScoreTable, num_verbs: int, num_nouns: int, *, name: str, whose: str) -> None:
    """Whether a table scores as many verbs and nouns as there are.

    Args:
        name: what to call the table in errors, such as its file.
        whose: what has so many, such as the data folder.

    Raises:
        InputError: it does not; says so if verb and noun are swapped.
    """
    if fault := wrong_classes((table.num_verbs, table.num_nouns), (num_verbs, num_nouns), whose):
        raise InputError(f"{name}: {fault}. Give scores of the same classes.")


def take_rows(table: ScoreTable, rows: np.ndarray | slice) -> ScoreTable:
    """The table's rows at these positions, in this order."""
    return replace(
        table,
        narration_id=table.narration_id[rows],
        verb_output=table.verb_output[rows],
        noun_output=table.noun_output[rows],
        action_id=None if table.action_id is None else table.action_id[rows],
        action_output=None if table.action_output is None else table.action_output[rows],
        seen=seen_of(table)[rows],
    )


def seen_of(table: ScoreTable) -> np.ndarray:
    """The table's `seen`, (S,) int8."""
    assert table.seen is not None  # it has been filled in
    return table.seen


def any_seen(seen: Sequence[np.ndarray]) -> np.ndarray:
    """`seen` (S,) int8 of what is made from several tables of the same segments: UNSEEN where that is told of all."""
    stacked = np.stack(seen)  # (tables, S)
    return np.where((stacked == SEEN).any(axis=0), SEEN, stacked.min(axis=0)).astype(np.int8)


def who_has_seen(names: Sequence[str], seen: Sequence[np.ndarray]) -> dict[str, list[str]]:
    """For metrics.json, beside the numbers: whose models have learned from labels that they are judged by, and of whom
    that is not told for all segments.

    Args:
        seen: of each (S,) as in a ScoreTable.
    """
    pairs = list(zip(names, seen, strict=True))
    return {
        "labels_seen_by": [name for name, seen in pairs if (seen == SEEN).any()],
        "labels_seen_not_told_by": [name for name, seen in pairs if (seen == NOT_TOLD).any()],
    }


def save_scores(path: Path, table: ScoreTable) -> None:
    """Write `scores.npz`; `load_scores` gives the same table back.

    Raises:
        InputError: the name does not end in .npz, or the place cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise InputError(f"{path}: scores are written as .npz, choose a name that ends so")
    arrays: dict[str, Any] = {
        "narration_id": table.narration_id,
        "verb_output": table.verb_output,
        "noun_output": table.noun_output,
        "kind": np.array(table.kind),
    }
    if table.action_id is not None:
        arrays |= {"action_id": table.action_id, "action_output": table.action_output}
    if (seen_of(table) != NOT_TOLD).any():
        arrays["seen"] = table.seen
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def load_scores(path: Path) -> ScoreTable:
    """Read `scores.npz`, or the official baselines' results (`.pt`: a list of dicts or a dict of arrays).

    Raises:
        InputError: the file is missing, damaged, of another kind or needs code to be run, naming it.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected scores (.npz, or the official baselines' .pt)")
    if suffix in PICKLE_SUFFIXES:
        raise InputError(
            f"{path}: a pickle can run any code when it is opened, so it is not read. If you trust it,"
            " open it yourself and save its arrays:"
            " numpy.savez('scores.npz', narration_id=..., verb_output=..., noun_output=..., kind='logits')"
        )
    if suffix == ".npz":
        arrays = _read_npz(path)
    elif suffix in OFFICIAL_SUFFIXES:
        arrays = read_official_scores(path)
    else:
        raise InputError(f"{path}: expected scores as .npz, or the official baselines' .pt")
    try:
        return _table_of(arrays)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            claimed_bytes = sum(member.file_size for member in archive.infolist())
            if claimed_bytes > MAX_FILE_BYTES:
                raise InputError(f"unpacks to {claimed_bytes / 2**30:.1f} GiB, more than {MAX_FILE_BYTES >> 30}")
            return {member.filename.removesuffix(".npy"): _read_array(archive, member) for member in archive.infolist()}
    except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds for damaged files
        reason = str(error) or type(error).__name__
        raise InputError(
            f"{path}: not a readable scores.npz ({reason:.200}). It may be cut off: write it again."
        ) from error


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """An array, read in pieces: `np.load` unpacks a member that is none at once, however large it really is."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{member.filename!r:.60} is packed by another method than deflate")
    with archive.open(member) as file:
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    if array.size > member.file_size:  # of values that take no bytes there may be any number
        raise InputError(f"{member.filename!r:.60} has {array.size:,} values in {member.file_size:,} bytes")
    return array


def _table_of(arrays: Mapping[str, np.ndarray]) -> ScoreTable:
    needed = ("narration_id", "verb_output", "noun_output", "kind")
    lacking = [key for key in needed if key not in arrays]
    if lacking:
        raise InputError(
            f"{', '.join(lacking)} missing, expected {', '.join(needed)}; found {', '.join(arrays) or 'nothing'}"
        )
    return ScoreTable(
        narration_id=arrays["narration_id"],
        verb_output=arrays["verb_output"],
        noun_output=arrays["noun_output"],
        kind=cast(Kind, str(arrays["kind"])),  # checked there
        action_id=arrays.get("action_id"),
        action_output=arrays.get("action_output"),
        seen=arrays.get("seen"),
    )


def checked_ids(narration_ids: Sequence[str] | np.ndarray) -> np.ndarray:
    """(S,) str, at least one, each once."""
    ids = np.asarray(narration_ids)
    if ids.dtype == object and all(isinstance(narration_id, str) for narration_id in ids.flat):
        ids = ids.astype(str)
    if ids.ndim != 1 or len(ids) == 0 or ids.dtype.kind != "U":
        raise InputError(
            f"narration_id is {ids.dtype} of shape {ids.shape}, expected one text per segment, at least one"
        )
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        repeated = unique[counts > 1].tolist()
        raise InputError(f"{len(repeated)} narration ids appear more than once ({_some(repeated)}), expected each once")
    return ids


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:MAX_IDS_SHOWN]) + (", ..." if len(ids) > MAX_IDS_SHOWN else "")
