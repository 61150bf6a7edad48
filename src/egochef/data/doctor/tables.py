"""Looks through the annotation files of a data folder, each to its end.

In: the folder of the CSV files. Out: its sound rows (`Annotations`) and the faults of the others. What is refused here
is what `annotations.read_split` and `annotations.open_data_folder` refuse, and what they cannot see: files that are
sound by themselves and do not belong together.
"""

import ast
import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from egochef.data.annotations import (
    PARTICIPANTS_FILE,
    SPLIT_FILES,
    UNSEEN_FILES,
    Segment,
    _class_id,
    _parse_segment,
    _seconds,
    in_two_splits,
    read_participants,
)
from egochef.data.doctor.faults import Fault, error, number, some, warning
from egochef.errors import InputError
from egochef.files import check_is_file
from egochef.taxonomy import ACTION_BASE, Taxonomy
from egochef.texts import has_controls, id_fault, name_fault, quoted

OFFICIAL = "the official epic-kitchens-100-annotations repository"
REFETCH = f"Fetch it again from {OFFICIAL}."
BY_HAND = f"Correct the row, or fetch the file again from {OFFICIAL}. Spreadsheet programs spoil such files."
CLASS_FILES = {"verb": "EPIC_100_verb_classes.csv", "noun": "EPIC_100_noun_classes.csv"}
NUM_OFFICIAL = {"verb": 97, "noun": 300}
TAIL_FILES = {"verb": "EPIC_100_tail_verbs.csv", "noun": "EPIC_100_tail_nouns.csv"}
INFO_FILE = "EPIC_100_video_info.csv"
MAX_MISFITS = 0.1
"""part of the rows whose verb or noun need not be among their class's words (1 of 76,885 official ones is not)"""
V2_NOUNS = {"hand:left", "hand:right"}
"""classes of EPIC_100_noun_classes_v2.csv, which is not the challenge's file, and of no other"""

_TIME_COLUMNS = (
    "narration_id",
    "participant_id",
    "video_id",
    "start_timestamp",
    "stop_timestamp",
    "start_frame",
    "stop_frame",
)
_LABEL_COLUMNS = ("narration", "verb_class", "noun_class")
_CLASS = re.compile("[0-9]{1,9}")
Values = dict[str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """A sound row of a split."""

    segment: Segment
    where: str
    """`EPIC_100_train.csv, row 7`"""


@dataclass(frozen=True)
class VideoInfo:
    """What the official list of videos says of one."""

    duration_s: float
    width_px: int | None
    """None where the list does not say"""


@dataclass(frozen=True)
class Annotations:
    """What could be read."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    """sound rows by split"""
    named_videos: frozenset[str] = frozenset()
    """ids of all videos that a row names, sound or not"""
    whole: bool = False
    """every split has rows and was read to its end"""
    info: dict[str, VideoInfo] = field(default_factory=dict)
    """by video id; empty where there is no such list"""


@dataclass(frozen=True)
class Table:
    """A CSV file with a header."""

    name: str
    columns: tuple[str, ...]
    rows: list[tuple[int, Values]]
    """number (the header is row 1) and values by column, of the rows that have one value per column"""
    num_rows: int
    """with the others"""
    whole: bool
    """every row is among `rows`"""


@dataclass(frozen=True)
class _Classes:
    """A class file."""

    names: list[str]
    words: list[set[str]] | None
    """by class id, what annotators said for it; None where the file does not say"""
    sound: bool
    """its ids count up"""

    def fits(self, labels: "list[tuple[str, int]]") -> bool:
        """Whether nearly all (word, class id) agree with it; ids beyond its end do not count."""
        if self.words is None:
            return True
        told = [(word, identity) for word, identity in labels if identity < len(self.words)]
        misfits = sum(word not in self.words[identity] for word, identity in told)
        return misfits <= max(3, MAX_MISFITS * len(told))


def check_annotations(folder: Path) -> tuple[Annotations, list[Fault]]:
    """Read all annotation files in `folder`.

    Returns:
        Their sound rows, and the faults of everything else.
    """
    faults: list[Fault] = []
    tables = {split: _read_split_table(folder, split, faults) for split in SPLIT_FILES}
    num_classes = _check_classes(folder, tables, faults)
    rows: dict[str, list[Row]] = {}
    for split, table in tables.items():
        rows[split] = list(_sound_rows(table, num_classes, split != "test", faults)) if table else []
    faults += _ids_in_two_splits(rows)
    for kind, name in TAIL_FILES.items():
        faults += _check_tail(folder / name, kind, num_classes[kind])
    for split, name in UNSEEN_FILES.items():
        faults += _check_unseen(folder / name, split, rows)
    try:
        read_participants(folder)
    except (InputError, OSError) as reason:
        faults.append(error("list-value", PARTICIPANTS_FILE, str(reason), "Correct the list, or remove it."))
    info = _read_info(folder / INFO_FILE, faults)
    named = frozenset(values["video_id"] for table in tables.values() if table for _, values in table.rows)
    whole = all(table is not None and table.whole and table.rows for table in tables.values())
    return Annotations(rows, named, whole, info), faults


def read_table(path: Path, columns: Sequence[str], faults: list[Fault]) -> Table | None:
    """A CSV file that is there, or None where nothing can be made of it."""
    try:
        check_is_file(path)
        content = path.read_bytes()
    except OSError as reason:
        what = f"cannot be read ({reason.strerror})"
        faults.append(error("file-unreadable", path.name, what, f"Give yourself the right to read it. {REFETCH}"))
        return None
    if content.lstrip()[:1] == b"<" or content.startswith(b"version https://git-lfs"):
        what = "is a web page or a Git LFS pointer, expected a CSV file"
        faults.append(error("not-csv", path.name, what, f"{REFETCH} On GitHub take the raw file."))
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        what = f"is not UTF-8 ({reason.reason} at byte {reason.start:,})"
        faults.append(error("not-utf8", path.name, what, REFETCH))
        text = content.decode("utf-8-sig", errors="replace")
    header: list[str] = []
    rows: list[tuple[int, Values]] = []
    short: list[tuple[int, int]] = []  # row and its number of values
    whole = True
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        for values in reader:
            if len(values) == len(header):
                rows.append((reader.line_num, dict(zip(header, values, strict=True))))
            else:
                short.append((reader.line_num, len(values)))
    except csv.Error as reason:
        whole = False
        what = f"row {reader.line_num} is not CSV ({reason}); the rows from there on were not looked at"
        faults.append(error("not-csv", path.name, what, REFETCH))
    if missing := [column for column in columns if column not in header]:
        if not any(fault.where == path.name for fault in faults):
            what = f"has no column {some(missing)}; row 1 is {','.join(header)[:200]!r}"
            faults.append(error("column-missing", path.name, what, f"{REFETCH} It must keep commas between values."))
        return None
    for number_of_row, length in short:
        what = f"has {number(length, 'value')}, expected {len(header)}"
        faults.append(error("row-length", f"{path.name}, row {number_of_row}", what, BY_HAND))
    return Table(path.name, tuple(header), rows, len(rows) + len(short), whole and not short)


# Splits


def _read_split_table(folder: Path, split: str, faults: list[Fault]) -> Table | None:
    path = folder / SPLIT_FILES[split]
    if not is_there(path):
        what = f"is missing: the {split} split"
        faults.append(error("split-missing", path.name, what, f"Fetch it from {OFFICIAL} into {folder}."))
        return None
    table = read_table(path, _TIME_COLUMNS + (_LABEL_COLUMNS if split != "test" else ()), faults)
    if table and table.whole and not table.num_rows:
        faults.append(error("split-empty", path.name, f"the {split} split has no rows", REFETCH))
    return table


def _sound_rows(table: Table, num_classes: dict[str, int | None], labelled: bool, faults: list[Fault]) -> Iterator[Row]:
    """The rows that `annotations.parse_split` takes; the faults of each other row."""
    limits = {kind: num or ACTION_BASE for kind, num in num_classes.items()}
    taxonomy = Taxonomy(("",) * limits["verb"], ("",) * min(limits["noun"], ACTION_BASE))
    columns = _TIME_COLUMNS + (_LABEL_COLUMNS if labelled else ())
    odd = [row for row, values in table.rows if labelled and has_controls(values["narration"])]
    if odd:
        what = f"{number(len(odd), 'narration')} hold control characters, the first in row {odd[0]}"
        faults.append(
            warning("row-narration", table.name, what, "Nothing: they are read written out, as \\n. Or mend them.")
        )
    seen: dict[str, int] = {}
    for row, values in table.rows:
        where = f"{table.name}, row {row}"
        found = list(_row_faults(values, limits if labelled else {}))
        if not found:
            try:
                segment = _parse_segment([values[column] for column in columns], taxonomy, labelled)
            except ValueError as reason:  # a check that stands there and not here
                found = [("row-value", str(reason))]
        if not found:
            earlier = seen.setdefault(segment.narration_id, row)
            if earlier == row:
                yield Row(segment, where)
            else:
                found = [("id-duplicate", f"narration_id {segment.narration_id!r} stands in row {earlier} already")]
        faults += [error(kind, where, message, BY_HAND) for kind, message in found]


def _row_faults(values: Values, num_classes: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Kind and message of all that is wrong with a row."""
    participant, video, narration = (values[name] for name in ("participant_id", "video_id", "narration_id"))
    if not participant or not video.startswith(participant + "_"):
        what = f"video_id is {video!r}, expected to begin with the participant_id {participant!r} and '_'"
        yield "row-participant", what
    if not narration.startswith(video + "_"):
        what = f"narration_id is {narration!r}, expected to begin with the video_id {video!r} and '_'"
        yield "row-narration-id", what
    times_s = []
    for name in ("start_timestamp", "stop_timestamp"):
        try:
            times_s.append(_seconds(name, values[name]))
        except ValueError as reason:
            yield "row-timestamp", str(reason)
    if len(times_s) == 2 and not times_s[0] < times_s[1]:
        yield "row-order", f"start {values['start_timestamp']} is not before stop {values['stop_timestamp']}"
    for name in ("start_frame", "stop_frame"):
        if not values[name].isascii() or not values[name].isdigit():
            yield "row-frame", f"{name} is {values[name]!r}, expected a whole number"
    for kind, num in num_classes.items():
        try:
            _class_id(num)(f"{kind}_class", values[f"{kind}_class"])
        except ValueError as reason:
            yield f"row-{kind}", str(reason)


def _ids_in_two_splits(rows: dict[str, list[Row]]) -> Iterator[Fault]:
    where = {split: {row.segment.narration_id: row.where for row in split_rows} for split, split_rows in rows.items()}
    again = set()
    for narration_id, split, earlier in in_two_splits(where):
        again.add((split, narration_id))
        what = f"narration_id {narration_id!r} stands in {where[earlier][narration_id]} too"
        yield error("id-in-two-splits", where[split][narration_id], what, f"A segment belongs to one split. {BY_HAND}")
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for split, split_rows in rows.items():
        for row in split_rows:
            if (split, row.segment.narration_id) not in again:
                splits[row.segment.video_id].add(split)
    for video, its in splits.items():
        if len(its) > 1:
            what = f"is in the splits {' and '.join(its_name for its_name in SPLIT_FILES if its_name in its)}"
            todo = "Officially a video is in one: scores are too good where training saw the same video."
            yield warning("video-in-two-splits", video, what, todo)


# Classes


def _check_classes(folder: Path, tables: dict[str, Table | None], faults: list[Fault]) -> dict[str, int | None]:
    """The number of verbs and of nouns; None where the class file cannot be trusted."""
    classes = {kind: _read_classes(folder / name, faults) for kind, name in CLASS_FILES.items()}
    labels = {kind: _labels(tables, kind) for kind in classes}
    num_classes: dict[str, int | None] = dict.fromkeys(classes)
    verbs, nouns = classes["verb"], classes["noun"]
    fits = {kind: table is None or not table.sound or table.fits(labels[kind]) for kind, table in classes.items()}
    if verbs and nouns and not any(fits.values()) and verbs.fits(labels["noun"]) and nouns.fits(labels["verb"]):
        what = f"holds the nouns, and {CLASS_FILES['noun']} the verbs"
        faults.append(error("class-files-swapped", CLASS_FILES["verb"], what, "Swap their names."))
        return num_classes
    for kind, table in classes.items():
        if table is None or not table.sound:
            continue
        name, num, official = CLASS_FILES[kind], len(table.names), NUM_OFFICIAL[kind]
        beyond = [identity for _, identity in labels[kind] if num <= identity < official]
        if not fits[kind]:
            what = f"does not belong to these splits: the {kind}s of many rows are not among their classes' words"
            faults.append(error("class-file-other", name, what, REFETCH))
        elif kind == "noun" and set(table.names) >= V2_NOUNS:
            what = f"is EPIC_100_noun_classes_v2.csv under another name ({num} classes, the challenge has {official})"
            faults.append(error("class-file-v2", name, what, f"Fetch {name} itself from {OFFICIAL}."))
        elif num < official and beyond:
            what = f"is cut off: {num} classes, but rows name classes up to {max(beyond)}"
            faults.append(error("class-file-short", name, what, REFETCH))
        elif kind == "noun" and num > ACTION_BASE:
            what = f"has {num:,} classes, expected {ACTION_BASE} at most"
            faults.append(error("class-file-other", name, what, REFETCH))
        else:
            num_classes[kind] = num
            if num != official:
                what = f"has {num} classes, EK-100 has {official}"
                todo = f"Fine for another taxonomy, which cannot be submitted; else: {REFETCH}"
                faults.append(warning("class-count", name, what, todo))
    return num_classes


def _read_classes(path: Path, faults: list[Fault]) -> _Classes | None:
    if not is_there(path):
        todo = f"Fetch it from {OFFICIAL}; EPIC_100_noun_classes_v2.csv is another file and does not serve."
        faults.append(error("class-file-missing", path.name, "is missing", todo))
        return None
    table = read_table(path, ("id", "key"), faults)
    if table is None:
        return None
    if table.whole and not table.num_rows:
        faults.append(error("class-file-empty", path.name, "has no classes", REFETCH))
    jumps = [place for place, (_, values) in enumerate(table.rows) if values["id"] != str(place)]
    if jumps:
        row, values = table.rows[jumps[0]]
        what = f"id is {values['id']!r}, expected {jumps[0]}: ids count up from 0 ({number(len(jumps), 'row')} in all)"
        faults.append(error("class-ids", f"{path.name}, row {row}", what, REFETCH))
    names = [values["key"] for _, values in table.rows]
    seen: set[str] = set()
    for (row, _), name in zip(table.rows, names, strict=True):
        if fault := name_fault(name):
            what = f"key {quoted(name)} {fault}"
            faults.append(error("class-names", f"{path.name}, row {row}", what, "Give the class a plain name."))
        elif not name or name in seen:
            what = f"key is {name!r}, expected a name that no other row has"
            faults.append(error("class-names", f"{path.name}, row {row}", what, REFETCH))
        seen.add(name)
    words = None
    if "instances" in table.columns:
        words = [_words(values["instances"]) | {values["key"]} for _, values in table.rows]
    return _Classes(names, words, sound=bool(names) and not jumps and table.whole)


def _words(instances: str) -> set[str]:
    """The words of `"['take', 'grab']"`."""
    try:
        words = ast.literal_eval(instances.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return set()
    return {str(word) for word in words} if isinstance(words, list) else set()


def _labels(tables: dict[str, Table | None], kind: str) -> list[tuple[str, int]]:
    """The word and the class id of every row that has both."""
    return [
        (values[kind], int(values[f"{kind}_class"]))
        for split, table in tables.items()
        if table and split != "test" and kind in table.columns
        for _, values in table.rows
        if values[kind] and _CLASS.fullmatch(values[f"{kind}_class"])
    ]


# Lists


def _check_tail(path: Path, kind: str, num_classes: int | None) -> Iterator[Fault]:
    if not is_there(path):
        yield warning("list-missing", path.name, "is missing", f"Without it there are no tail scores. {REFETCH}")
        return
    faults: list[Fault] = []
    table = read_table(path, (kind,), faults)
    yield from faults
    for row, values in table.rows if table else ():
        try:
            _class_id(num_classes or ACTION_BASE)(kind, values[kind])
        except ValueError as reason:
            yield error("list-value", f"{path.name}, row {row}", str(reason), REFETCH)


def _check_unseen(path: Path, split: str, rows: dict[str, list[Row]]) -> Iterator[Fault]:
    if not is_there(path):
        yield warning("list-missing", path.name, "is missing", f"Without it there are no unseen scores. {REFETCH}")
        return
    faults: list[Fault] = []
    table = read_table(path, ("participant_id",), faults)
    yield from faults
    trained = {row.segment.participant_id for row in rows["train"]}
    present = {row.segment.participant_id for row in rows[split]}
    for row, values in table.rows if table else ():
        participant, where = values["participant_id"], f"{path.name}, row {row}"
        if not participant:
            yield error("list-value", where, "participant_id is blank", REFETCH)
        elif fault := id_fault(participant):
            yield error("list-value", where, f"participant_id {quoted(participant)} {fault}", REFETCH)
        elif participant in trained:
            what = f"{participant} is called unseen, but has segments in train"
            yield error("unseen-in-train", where, what, REFETCH)
        elif participant not in present and present:
            what = f"{participant} has no segment in {split}"
            yield warning("unseen-unknown", where, what, REFETCH)


def _read_info(path: Path, faults: list[Fault]) -> dict[str, VideoInfo]:
    """The official list of videos, which only the doctor needs."""
    info: dict[str, VideoInfo] = {}
    found: list[Fault] = []
    table = read_table(path, ("video_id", "duration"), found) if is_there(path) else None
    for row, values in table.rows if table else ():
        try:
            width = values.get("resolution", "").partition("x")[0]
            info[values["video_id"]] = VideoInfo(float(values["duration"]), int(width) if width.isdecimal() else None)
        except ValueError:
            what = f"duration is {values['duration']!r}, expected seconds"
            found.append(error("list-value", f"{path.name}, row {row}", what, REFETCH))
    faults += [warning(fault.kind, fault.where, fault.message, fault.todo) for fault in found]
    return info


def is_there(path: Path) -> bool:
    """Whether there is anything under the name; what cannot be looked at is read, and its fault told."""
    try:
        return path.exists()
    except OSError:
        return True
