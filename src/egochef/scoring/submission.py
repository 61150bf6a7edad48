"""Writes and checks the zip for the EK-100 action recognition competition.

Out: a zip with one member, `test.json`: `version` "0.2", `challenge` "action_recognition", `sls_pt`,
`sls_tl`, `sls_td`, and `results`: narration_id -> `verb` {"0": score, ...}, `noun` {"0": score, ...} and, for
all segments or for none, `action` {"verb,noun": score}, the 100 best. Source: `create_submission.py` and
`utils/challenge.py` of the official C1-Action-Recognition repository. `submission_json` has the rules for the
JSON inside.
"""

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from egochef.errors import InputError
from egochef.files import atomic_path
from egochef.scoring.actions import top_actions
from egochef.scoring.submission_json import (
    CHALLENGE,
    MAX_LEVEL,
    VERSION,
    Fault,
    Rules,
    find_faults,
    num_submitted_actions,
    parse_submission,
)
from egochef.scoring.table import ScoreTable, align, check_classes, checked_ids, log_probs, take_rows
from egochef.taxonomy import ACTION_BASE

MEMBER = "test.json"
COMPRESS_LEVEL = 1  # 5, the official script's, makes it 12 % smaller and takes twice as long
ROWS_AT_ONCE = 512
MAX_BYTES_PER_SCORE = 64  # in JSON; a careless writer needs 30
MAX_REASONS_SHOWN = 10


@dataclass(frozen=True)
class SLS:
    """The competition's supervision levels, 0 to 5 each (https://github.com/epic-kitchens/sls)."""

    pt: int
    """pretraining: 0 none, 1 public images, 2 public images and videos, 3 self-supervised on public data, 4
    that and EPIC, 5 private data"""
    tl: int
    """training labels: 0 none, 1 weak (video level), 2 weak (narration timestamps), 3 start and stop times, 4
    spatial too, 5 more"""
    td: int
    """training data: 0 zero-shot, 1 few-shot, 2 at most a quarter, 3 train, 4 train and validation, 5 more"""

    def __post_init__(self) -> None:
        for name in ("pt", "tl", "td"):
            level = getattr(self, name)
            if not isinstance(level, int) or isinstance(level, bool) or not 0 <= level <= MAX_LEVEL:
                raise InputError(f"SLS level {name} is {level!r}, expected a whole number from 0 to {MAX_LEVEL}")


@dataclass(frozen=True)
class SubmissionSummary:
    """What a valid submission holds."""

    num_segments: int
    num_actions: int
    """actions per segment, 0 if it has no action field"""
    sls: SLS
    zip_bytes: int
    """size of the file to upload"""
    json_bytes: int
    """size of test.json inside"""


def make_submission(
    path: Path,
    table: ScoreTable,
    sls: SLS,
    expected_ids: Sequence[str] | np.ndarray,
    num_verbs: int,
    num_nouns: int,
    with_actions: bool = True,
) -> SubmissionSummary:
    """Write the zip and check it; it appears under its name only if it is valid, and what was there stays if not.

    Args:
        expected_ids: narration ids of the split, the table's own in any order.
        with_actions: as in `write_submission`.

    Raises:
        InputError: as `write_submission` and `check_submission`, or the table is of other classes.
    """
    path = Path(path)
    check_classes(table, num_verbs, num_nouns, name="the submission", whose="the data")
    with atomic_path(path) as temporary:
        try:
            write_submission(temporary, table, sls, expected_ids, with_actions)
            return check_submission(temporary, expected_ids, num_verbs, num_nouns)
        except InputError as error:  # name the file that the user knows
            raise InputError(str(error).replace(str(temporary), str(path))) from error


def write_submission(
    path: Path,
    table: ScoreTable,
    sls: SLS,
    expected_ids: Sequence[str] | np.ndarray,
    with_actions: bool = True,
) -> None:
    """Write the zip, segments in the order of `expected_ids`, unchecked. The same input gives the same bytes.

    Verb and noun scores are log-probabilities: the official evaluator softmaxes the whole array at once,
    which raw logits with large offsets do not survive and probabilities do not mean.

    Args:
        expected_ids: narration ids of the split, the table's own in any order.
        with_actions: also give the 100 best actions; without them the evaluator makes its own.

    Raises:
        InputError: the table is of other segments, has too few actions, or the zip cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".zip":
        raise InputError(f"{path}: a submission is a .zip, choose a name that ends so")
    table = align(table, expected_ids)
    num_actions = num_submitted_actions(table.num_verbs, table.num_nouns)
    if with_actions and table.action_id is not None and table.action_id.shape[1] < num_actions:
        raise InputError(
            f"the scores list {table.action_id.shape[1]} actions per segment, a submission needs"
            f" {num_actions}: list more, or submit without actions"
        )
    pieces = _json_pieces(table, sls, num_actions if with_actions else 0)
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=COMPRESS_LEVEL) as archive,
        archive.open(MEMBER, "w") as file,  # dated 1980
    ):
        for text in pieces:
            file.write(text.encode())


def _json_pieces(table: ScoreTable, sls: SLS, num_actions: int) -> Iterator[str]:
    """The text of test.json, a few hundred segments at a time."""
    head = {"version": VERSION, "challenge": CHALLENGE, "sls_pt": sls.pt, "sls_tl": sls.tl, "sls_td": sls.td}
    yield json.dumps(head)[:-1] + ', "results": {\n'
    # One %-format call a segment does all the work in C. Six digits are more than scores mean; actions get
    # nine, so that their order is exactly the table's.
    verbs, nouns = ("{" + ",".join(f'"{i}":%.6g' for i in range(n)) + "}" for n in (table.num_verbs, table.num_nouns))
    actions = "{" + ",".join(['"%d,%d":%.9g'] * num_actions) + "}"
    template = f'%s:{{"verb":{verbs},"noun":{nouns}' + (f',"action":{actions}' if num_actions else "") + "}"
    for start in range(0, len(table), ROWS_AT_ONCE):
        part = take_rows(table, slice(start, start + ROWS_AT_ONCE))
        columns = [*log_probs(part)]
        if num_actions:
            action_ids, scores = top_actions(part, num_actions)
            triples = np.stack([*np.divmod(action_ids, ACTION_BASE), scores], axis=2)  # (S, A, 3)
            columns.append(triples.reshape(len(part), -1))
        rows = np.concatenate(columns, axis=1).tolist()
        texts = (
            template % (json.dumps(name), *row) for name, row in zip(part.narration_id.tolist(), rows, strict=True)
        )
        yield (",\n" if start else "") + ",\n".join(texts)
    yield "\n}}\n"


def check_submission(
    path: Path, expected_ids: Sequence[str] | np.ndarray, num_verbs: int, num_nouns: int
) -> SubmissionSummary:
    """Check a submission from anyone, strictly: what the competition may refuse is refused here.

    Args:
        expected_ids: narration ids of the split.

    Raises:
        InputError: it is no valid submission; the first reasons, each with how often and where first.
    """
    path = Path(path)
    rules = Rules.of(checked_ids(expected_ids).tolist(), num_verbs, num_nouns)
    data = _read_member(path, MAX_BYTES_PER_SCORE * rules.num_scores + (1 << 20))
    max_values = 2 * (rules.num_scores + len(rules.narration_ids)) + 1000
    if (num_values := data.count(b",")) > max_values:  # each takes a hundred bytes once it is parsed
        raise InputError(
            f"{path}: {MEMBER} holds {num_values:,} values, more than these segments can need ({max_values:,})"
        )
    try:
        document = parse_submission(data.decode("utf-8"), rules)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {MEMBER} is not JSON text in UTF-8 ({error}). Write it again.") from error
    faults = list(find_faults(document, rules))
    if faults:
        raise InputError(f"{path}: not a valid submission. {_summarise(faults)}")
    num_with_actions = next(iter(document["results"].values())).has_actions * rules.num_actions
    sls = SLS(pt=document["sls_pt"], tl=document["sls_tl"], td=document["sls_td"])
    return SubmissionSummary(len(document["results"]), num_with_actions, sls, path.stat().st_size, len(data))


def _read_member(path: Path, max_bytes: int) -> bytes:
    """The bytes of test.json, which must be the only member and unpack to at most `max_bytes`."""
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a submission zip")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [member.filename for member in archive.infolist()]
            if names != [MEMBER]:
                found = ", ".join(f"{name!r:.60}" for name in names[:5]) + (", ..." if len(names) > 5 else "")
                raise InputError(
                    f"{path}: holds {len(names)} members ({found}), expected only {MEMBER!r}:"
                    " zip the file itself, not its folder"
                )
            member = archive.infolist()[0]
            if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InputError(f"{path}: {MEMBER} is encrypted or packed by a rare method, expected plain deflate")
            if member.file_size > max_bytes:
                raise InputError(
                    f"{path}: {MEMBER} unpacks to {member.file_size:,} bytes, more than these segments"
                    f" can need ({max_bytes:,})"
                )
            with archive.open(member) as file:
                # In pieces: without a length, all that is packed is unpacked first, whatever file_size says.
                return file.read(member.file_size)
    except InputError:
        raise
    except Exception as error:  # zipfile and zlib raise a dozen kinds for damaged files
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: not a readable zip ({reason:.200}). It may be cut off: write it again.") from error


def _summarise(faults: list[Fault]) -> str:
    """One line: every reason with how often and where first."""
    groups: dict[str, list[str]] = {}
    for fault in faults:
        groups.setdefault(fault.reason, []).append(fault.where)
    shown = [
        f"{reason} ({f'{len(where):,} times, first ' if len(where) > 1 else ''}{where[0]})"
        for reason, where in list(groups.items())[:MAX_REASONS_SHOWN]
    ]
    more = len(groups) - len(shown)
    return "; ".join(shown) + (f"; and {more} more reasons" if more else "")
