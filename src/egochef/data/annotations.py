"""Reads EK-100's official annotation files.

In: a data folder (see `find_annotations` and `find_videos` for its layouts). Out: `Segment` records, the class tables
and the tail and unseen lists. Everything is checked on reading; a fault names file, row and value.
Source of the format: the README of the official epic-kitchens-100-annotations repository.
"""

import csv
import functools
import hashlib
import logging
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from egochef.errors import InputError
from egochef.files import atomic_path, check_is_file, write_text
from egochef.taxonomy import Taxonomy
from egochef.texts import escaped, has_controls, id_fault, name_fault, quoted

log = logging.getLogger(__name__)
Item = TypeVar("Item")

SPLIT_FILES = {
    "train": "EPIC_100_train.csv",
    "validation": "EPIC_100_validation.csv",
    "test": "EPIC_100_test_timestamps.csv",
}
UNSEEN_FILES = {
    "validation": "EPIC_100_unseen_participant_ids_validation.csv",
    "test": "EPIC_100_unseen_participant_ids_test.csv",
}
ANNOTATION_FOLDERS = ("epic-kitchens-100-annotations", "epic-kitchens-100-annotations-master")
VIDEO_PLACES = (
    "videos_640x360/{participant}/{video}",
    "videos/{participant}/{video}",
    "{participant}/videos/{video}",
)
PARTICIPANTS_FILE = "participants.csv"
"""optional, beside the official files (column participant_id): whose videos the folder has, if not everybody's"""
MAX_FAULTS_SHOWN = 5

_TIMESTAMP = re.compile(r"(\d{2}):([0-5]\d):([0-5]\d(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Segment:
    """An annotated interval [start_s, stop_s) of a video."""

    narration_id: str
    participant_id: str
    video_id: str
    start_s: float
    """seconds from the video's start"""
    stop_s: float
    """seconds from the video's start, exclusive"""
    verb: int | None
    """verb id; None in the test split, whose labels are not public"""
    noun: int | None
    """noun id; None in the test split"""
    narration: str
    """the narrator's words; empty in the test split"""
    stop_frame: int
    """official number of the last frame: only the officially extracted pictures are counted that way"""


@dataclass(frozen=True)
class DataFolder:
    """A data folder with its class tables and lists read; splits are read by `read_split`."""

    root: Path
    annotations: Path
    """the folder of the CSV files"""
    taxonomy: Taxonomy
    tail_verbs: frozenset[int]
    tail_nouns: frozenset[int]
    unseen_participants: dict[str, frozenset[str]]
    """per split: participants who are not in train"""
    participants: frozenset[str]
    """whose segments are read; empty: everybody's"""

    def labelled(self, split: str) -> bool:
        return split != "test"


def open_data_folder(root: Path, participants: Sequence[str] = ()) -> DataFolder:
    """Find the annotations of a data folder or store and read its class tables, tail and unseen lists.

    Args:
        participants: read only their segments, for a folder that has only their videos.

    Missing tail or unseen lists (another dataset in the same layout) are logged; their metrics are then left out.

    Raises:
        InputError: no such folder, no annotations in it, or a fault in a table.
    """
    root = Path(root)
    folder = find_annotations(root)
    taxonomy = Taxonomy(
        verbs=read_class_names(folder / "EPIC_100_verb_classes.csv"),
        nouns=read_class_names(folder / "EPIC_100_noun_classes.csv"),
    )
    tail_verbs = _read_list(folder / "EPIC_100_tail_verbs.csv", "verb", _class_id(taxonomy.num_verbs))
    tail_nouns = _read_list(folder / "EPIC_100_tail_nouns.csv", "noun", _class_id(taxonomy.num_nouns))
    unseen = {split: _read_list(folder / name, "participant_id", _text) for split, name in UNSEEN_FILES.items()}
    chosen = read_participants(folder, participants)
    return DataFolder(root, folder, taxonomy, tail_verbs, tail_nouns, unseen, chosen)


def read_participants(annotations: Path, asked: Sequence[str] = ()) -> frozenset[str]:
    """Whose segments are read: those asked for, else those of the folder's PARTICIPANTS_FILE; empty: everybody's.

    Raises:
        InputError: somebody who is asked for is not in the file.
    """
    path = annotations / PARTICIPANTS_FILE
    if not path.is_file():
        return frozenset(asked)
    there = _read_list(path, "participant_id", _text)
    if missing := sorted(set(asked) - there):
        raise InputError(f"{path}: {missing[0]} is not in it, expected some of {', '.join(sorted(there))}")
    return frozenset(asked) or there


def copy_annotations(source: Path, root: Path, participants: Sequence[str] = ()) -> None:
    """Put the annotation files of the folder `source` into a folder made from them, so that it needs no other.

    Args:
        participants: whose segments the new folder has, for its PARTICIPANTS_FILE; empty: everybody's.
    """
    folder = root / ANNOTATION_FOLDERS[0]
    for path in sorted(path for path in source.glob("EPIC_100_*.csv") if path.is_file()):
        copy = folder / path.name
        if not copy.is_file() or copy.read_bytes() != path.read_bytes():
            with atomic_path(copy) as temporary:
                shutil.copyfile(path, temporary)
    if participants:
        write_text(folder / PARTICIPANTS_FILE, "\n".join(["participant_id", *sorted(participants)]) + "\n")


def find_annotations(root: Path) -> Path:
    """The folder of the official CSV files in a data folder.

    Raises:
        InputError: there is none; says where it was looked for.
    """
    if not root.is_dir():
        raise InputError(
            f"{root}: no such folder. Give an EK-100 data folder, or draw one with 'egochef toy --out DIR'."
        )
    for name in ANNOTATION_FOLDERS:
        if (root / name).is_dir():
            return root / name
    raise InputError(
        f"{root}: no annotations: expected a folder {' or '.join(ANNOTATION_FOLDERS)} with the EPIC_100_*.csv files"
    )


def find_video(root: Path, participant_id: str, video_id: str) -> Path | None:
    """The video's file in one of the known layouts (VIDEO_PLACES), or None."""
    for place in VIDEO_PLACES:
        for suffix in (".MP4", ".mp4"):
            path = root / (place.format(participant=participant_id, video=video_id) + suffix)
            if path.is_file():
                return path
    return None


def find_videos(folder: DataFolder, segments: tuple[Segment, ...]) -> dict[str, Path]:
    """The file of every video that the segments need, by video id.

    Raises:
        InputError: videos are missing; tells how many and names the first.
    """
    participants = {segment.video_id: segment.participant_id for segment in segments}
    found = {video: find_video(folder.root, participant, video) for video, participant in participants.items()}
    missing = sorted(video for video, path in found.items() if path is None)
    if missing:
        first = missing[0]
        place = VIDEO_PLACES[0].format(participant=participants[first], video=first) + ".MP4"
        more = f" (and {len(missing) - 1} more of {len(found)})" if len(missing) > 1 else ""
        raise InputError(
            f"{folder.root / place}: no such video{more}. Download it, or tell whose there are with --participants. "
            "The command egochef doctor tells all that is missing."
        )
    return {video: path for video, path in found.items() if path is not None}


def read_class_names(path: Path) -> tuple[str, ...]:
    """Class names by id, from a class file (columns id, key, ...).

    Raises:
        InputError: ids are not 0, 1, 2, ..., or a name is blank, stands twice, is very long or has control characters.
    """
    names: dict[str, None] = {}  # in order
    for row, (identity, name) in _read_columns(path, ("id", "key")):
        if identity != str(len(names)):
            what = f"id is {quoted(identity)}, expected {len(names)} (ids count up from 0)"
            raise InputError(f"{path}, row {row}: {what}")
        if fault := name_fault(name):
            raise InputError(f"{path}, row {row}: key {quoted(name)} {fault}. Give the class a plain name.")
        if not name or name in names:
            raise InputError(f"{path}, row {row}: key is {name!r}, expected a name that no other row has")
        names[name] = None
    if not names:
        raise InputError(f"{path}: no classes in it")
    return tuple(names)


def read_split(folder: DataFolder, split: str) -> tuple[Segment, ...]:
    """All segments of a split (of the folder's participants), in the file's order.

    Control characters in narrations are written out, as \\n, and such rows counted.

    Raises:
        InputError: an unknown or empty split, faults in its file (the first few are named, all are counted), a
            narration_id that another split has too, or none of its segments is of the participants.
    """
    if split not in SPLIT_FILES:
        raise InputError(f"unknown split {split!r}, expected one of {', '.join(SPLIT_FILES)}")
    path = folder.annotations / SPLIT_FILES[split]
    segments, faults = parse_split(path, folder.taxonomy, labelled=folder.labelled(split))
    faults += [] if faults else _in_other_splits(folder.annotations, split, segments)
    if faults:
        shown = "; ".join(faults[:MAX_FAULTS_SHOWN])
        more = f"; and {len(faults) - MAX_FAULTS_SHOWN} more faults" if len(faults) > MAX_FAULTS_SHOWN else ""
        raise InputError(f"{path}: {shown}{more}")
    if not segments:
        raise InputError(f"{path}: the {split} split is empty")
    if folder.participants:
        everybody = sorted({segment.participant_id for segment in segments})
        segments = [segment for segment in segments if segment.participant_id in folder.participants]
        if not segments:
            asked = ", ".join(sorted(folder.participants))
            raise InputError(f"{path}: no segment of {asked} in it, expected some of {', '.join(everybody)}")
    return tuple(segments)


def parse_split(path: Path, taxonomy: Taxonomy, *, labelled: bool) -> tuple[list[Segment], list[str]]:
    """Segments of one CSV file and the faults of the other rows (`row 7: start_timestamp is '0:1', ...`).

    Raises:
        InputError: the file cannot be read as CSV with the expected columns.
    """
    columns = ["narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp"]
    columns += ["start_frame", "stop_frame"]
    if labelled:
        columns += ["narration", "verb_class", "noun_class"]
    segments: list[Segment] = []
    faults: list[str] = []
    seen: dict[str, int] = {}
    odd: list[int] = []  # rows
    for row, values in _read_columns(path, tuple(columns)):
        try:
            segment = _parse_segment(values, taxonomy, labelled)
        except ValueError as error:
            faults.append(f"row {row}: {error}")
            continue
        if labelled and has_controls(values[7]):
            odd.append(row)
        earlier = seen.setdefault(segment.narration_id, row)
        if earlier != row:
            faults.append(f"row {row}: narration_id {segment.narration_id!r} stands in row {earlier} already")
            continue
        segments.append(segment)
    if odd:
        told = "%s: %d narrations hold control characters, which are read as \\n and the like, the first in row %d"
        log.warning(told, path, len(odd), odd[0])
    return segments, faults


def in_two_splits(ids: Mapping[str, Collection[str]]) -> Iterator[tuple[str, str, str]]:
    """Narration ids that stand in more than one split, each with the split and the first one that has it.

    Args:
        ids: narration ids by split.
    """
    first: dict[str, str] = {}
    for split, its in ids.items():
        for narration_id in its:
            if (earlier := first.setdefault(narration_id, split)) != split:
                yield narration_id, split, earlier


def _in_other_splits(folder: Path, split: str, segments: Sequence[Segment]) -> list[str]:
    """Faults of a split: its narration ids that another one has too."""
    paths = {name: path for name, file in SPLIT_FILES.items() if (path := folder / file).is_file()}
    own = {segment.narration_id for segment in segments}
    rows = {name: _rows_in(path) for name, path in paths.items() if name != split}
    if all(own.isdisjoint(its) for its in rows.values()):
        return []
    rows[split] = _rows_in(paths[split])
    return [
        f"row {rows[split][narration_id]}: narration_id {narration_id!r} stands in {paths[other].name}, "
        f"row {rows[other][narration_id]} too, and a segment belongs to one split"
        for narration_id, name, other in in_two_splits(rows)
        if name == split
    ]


def _rows_in(path: Path) -> Mapping[str, int]:
    """The row of each narration id in a split's file; what is wrong with the file is told where all of it is read."""
    stat = path.stat()
    return _read_rows(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=2 * len(SPLIT_FILES))
def _read_rows(path: Path, _mtime_ns: int, _num_bytes: int) -> Mapping[str, int]:
    rows: dict[str, int] = {}
    with suppress(InputError):
        for row, (narration_id,) in _read_columns(path, ("narration_id",)):
            rows.setdefault(narration_id, row)
    return rows


def _parse_segment(values: list[str], taxonomy: Taxonomy, labelled: bool) -> Segment:
    narration_id, participant_id, video_id, start, stop, start_frame, stop_frame = values[:7]
    if not participant_id or not video_id.startswith(participant_id + "_"):
        raise ValueError(
            f"video_id is {video_id!r}, expected to begin with the participant_id {participant_id!r} and '_'"
        )
    if not narration_id.startswith(video_id + "_"):
        raise ValueError(f"narration_id is {narration_id!r}, expected to begin with the video_id {video_id!r} and '_'")
    if fault := id_fault(narration_id):  # it begins with the other two
        raise ValueError(f"narration_id {quoted(narration_id)} {fault}, and files are named after ids")
    start_s, stop_s = _seconds("start_timestamp", start), _seconds("stop_timestamp", stop)
    if not start_s < stop_s:
        raise ValueError(f"start_timestamp {start} is not before stop_timestamp {stop}")
    for name, value in (("start_frame", start_frame), ("stop_frame", stop_frame)):
        if not value.isascii() or not value.isdigit():
            raise ValueError(f"{name} is {value!r}, expected a whole number")
    if not labelled:
        return Segment(narration_id, participant_id, video_id, start_s, stop_s, None, None, "", int(stop_frame))
    narration, verb, noun = values[7:]
    return Segment(
        narration_id,
        participant_id,
        video_id,
        start_s,
        stop_s,
        _class_id(taxonomy.num_verbs)("verb_class", verb),
        _class_id(taxonomy.num_nouns)("noun_class", noun),
        escaped(narration),
        int(stop_frame),
    )


def timestamp(time_s: float, decimals: int = 2) -> str:
    """Seconds as annotation files write them, HH:MM:SS.ss."""
    units = round(time_s * 10**decimals)
    seconds, rest = divmod(units, 10**decimals)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:0{decimals}d}"


def _seconds(name: str, timestamp: str) -> float:
    match = _TIMESTAMP.fullmatch(timestamp)
    if not match:
        raise ValueError(f"{name} is {timestamp!r}, expected HH:MM:SS.ss")
    hours, minutes, seconds = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _class_id(num_classes: int) -> Callable[[str, str], int]:
    def parse(name: str, value: str) -> int:
        if not value.isascii() or not value.isdigit() or int(value) >= num_classes:
            raise ValueError(f"{name} is {value!r}, expected a class id from 0 to {num_classes - 1}")
        return int(value)

    return parse


def _text(name: str, value: str) -> str:
    if not value:
        raise ValueError(f"{name} is blank")
    if fault := id_fault(value):
        raise ValueError(f"{name} {quoted(value)} {fault}")
    return value


def _read_list(path: Path, column: str, parse: Callable[[str, str], Item]) -> frozenset[Item]:
    if not path.is_file():
        log.warning("%s is missing: its metrics are left out", path)
        return frozenset()
    items = []
    for row, (value,) in _read_columns(path, (column,)):
        try:
            items.append(parse(column, value))
        except ValueError as error:
            raise InputError(f"{path}, row {row}: {error}") from None
    return frozenset(items)


def _read_columns(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Row number (the header is row 1) and the named columns' values of each row.

    Raises:
        InputError: no file, not UTF-8, no header, a column missing, or a row of another length.
    """
    try:
        check_is_file(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            missing = [column for column in columns if column not in header]
            if missing:
                raise InputError(
                    f"{path}, row 1: no column {missing[0]!r}, found {', '.join(header)[:200] or 'nothing'}"
                )
            places = [header.index(column) for column in columns]
            for values in reader:
                if len(values) != len(header):
                    raise InputError(f"{path}, row {reader.line_num}: {len(values)} values, expected {len(header)}")
                yield reader.line_num, [values[place] for place in places]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. It comes with the official EK-100 annotations.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error})") from None


def annotation_digests(folder: Path) -> tuple[tuple[str, str], ...]:
    """(name, SHA-256) of the annotation files that are read, by name."""
    names = sorted(path.name for path in folder.glob("EPIC_100_*.csv") if path.is_file())
    return tuple((name, hashlib.sha256((folder / name).read_bytes()).hexdigest()) for name in names)


def check_annotations_kept(root: Path, digests: tuple[tuple[str, str], ...]) -> None:
    """Whether the annotation files in a folder of ours are those that it was made from.

    Args:
        digests: of `annotation_digests` at that time.

    Raises:
        InputError: they are not; names the first file that differs.
    """
    folder = Path(root) / ANNOTATION_FOLDERS[0]
    if changed := sorted(set(annotation_digests(folder)) ^ set(digests)):
        raise InputError(
            f"{folder / changed[0][0]}: not the file that {root} was made from. Put the old one back, or make the "
            "folder anew."
        )
