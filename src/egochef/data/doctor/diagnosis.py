"""The whole examination of a data folder: annotations, then where the videos lie, then what is inside of them.

In: a data folder. Out: a `Diagnosis`.
"""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from egochef.data.annotations import find_annotations, read_participants
from egochef.data.doctor.faults import ERROR, Fault, error, number, some, warning
from egochef.data.doctor.files import Look, Seen, check_ends, look
from egochef.data.doctor.places import Files, find_files, list_files, unneeded
from egochef.data.doctor.tables import Annotations, Row, check_annotations, is_there, read_table
from egochef.data.store import is_store, open_store, shard_file
from egochef.errors import InputError
from egochef.parallel import run_parallel

STORE_PICTURES = 48
"""pictures of a segment in a store"""
STORE_FPS = 10
"""pictures a second of longer segments"""
STORE_PICTURE_BYTES = 17_000
MD5_FILE = "md5.csv"
"""the official download scripts' list: md5, file_remote_path, version"""


@dataclass(frozen=True)
class Diagnosis:
    """What was looked at, and what is wrong with it."""

    faults: tuple[Fault, ...]
    """errors first, each kind together"""
    num_videos: int
    """files that were looked into"""
    num_bytes: int
    """of these files"""
    segments: dict[str, int]
    """number of sound rows by split, of the participants looked at"""
    videos: dict[str, int]
    """number of videos that these rows need, by split"""

    @property
    def num_errors(self) -> int:
        return sum(fault.level == ERROR for fault in self.faults)

    @property
    def num_warnings(self) -> int:
        return len(self.faults) - self.num_errors


def diagnose(
    root: Path,
    *,
    videos: str = "quick",
    participants: Sequence[str] = (),
    md5: Path | None = None,
    num_workers: int | None = None,
) -> Diagnosis:
    """Look for everything that is wrong with a data folder.

    Args:
        root: a data folder; what it holds may be anything. Of a store, whether it is whole, and if `full` whether
            each picture is as it was written.
        videos: `quick` reads their containers only; `full` also decodes every frame that a row needs, and compares MD5s
            where the folder has the official list (`md5.csv`).
        participants: look only at their videos; nobody named: those the folder names, or everybody's.
        md5: the official list of MD5s: compare, even if `quick`. All bytes are read for it.
        num_workers: processes; None takes one for `quick`, which waits for the disk, else as many as there are
            processors.

    Raises:
        InputError: no such folder, or no rows of one of the participants.
    """
    if videos not in ("quick", "full"):
        raise InputError(f"videos is {videos!r}, expected quick or full")
    if num_workers is not None and num_workers < 1:
        raise InputError(f"num_workers is {num_workers}, expected at least 1")
    if not Path(root).is_dir():
        find_annotations(Path(root))  # raises
    root = Path(root)
    files = list_files(root)
    faults: list[Fault] = []
    folder = _find_annotations(root, files, faults)
    annotations = Annotations()
    if folder:
        annotations, found = check_annotations(folder)
        faults += found
    rows = _choose(annotations, folder, participants)
    by_video: defaultdict[str, list[Row]] = defaultdict(list)
    for row in chain.from_iterable(rows.values()):
        by_video[row.segment.video_id].append(row)

    if is_store(root):
        faults += _check_store(root, by_video, read_all=videos == "full")
        return _diagnosis(faults, rows)
    paths, found = find_files(root, {video: its[0].segment.participant_id for video, its in by_video.items()}, files)
    faults += found
    if annotations.whole:
        faults += unneeded(root, files, annotations.named_videos)
    for video in sorted((by_video.keys() - paths.keys()) & annotations.info.keys()):
        faults += check_ends(video, by_video[video], annotations.info[video].duration_s)
    md5s = _read_md5s(_md5_list(root, folder, md5, videos), faults)
    if md5s and (unlisted := sorted(path.name for path in paths.values() if path.name.lower() not in md5s)):
        what = f"names no MD5 of {number(len(unlisted), 'video')}: {some(unlisted)}"
        faults.append(warning("md5-unlisted", md5 or MD5_FILE, what, "Nothing; they are not compared."))
    looks = [
        Look(video, path, tuple(by_video[video]), annotations.info.get(video), md5s.get(path.name.lower(), frozenset()),
             decode=videos == "full")
        for video, path in paths.items()
    ]  # fmt: skip
    seen = _look_at_all(looks, num_workers or _num_workers(videos, md5s), faults)
    faults += _same_videos(looks, seen)
    faults += _check_space(root, rows)
    return _diagnosis(faults, rows, seen)


def _diagnosis(faults: list[Fault], rows: dict[str, list[Row]], seen: Mapping[int, Seen] | None = None) -> Diagnosis:
    seen = seen or {}
    return Diagnosis(
        faults=tuple(sorted(faults, key=lambda fault: (fault.level != ERROR, fault.kind))),
        num_videos=len(seen),
        num_bytes=sum(one.num_bytes for one in seen.values()),
        segments={split: len(its) for split, its in rows.items()},
        videos={split: len({row.segment.video_id for row in its}) for split, its in rows.items()},
    )


def _check_store(root: Path, videos: Iterable[str], *, read_all: bool) -> Iterator[Fault]:
    """What is wrong with a store; its pictures' checksums are compared if all of it is to be read."""
    todo = "Run egochef prepare again: it makes only what is missing."
    try:
        store = open_store(root)
    except (InputError, OSError) as reason:
        yield error("store-broken", root, str(reason), todo)
        return
    if missing := sorted(video for video in videos if not is_there(shard_file(root, video))):
        yield error("store-incomplete", root, f"has no pictures of {some(missing)}", todo)
    if not read_all:
        return
    for place, video in enumerate(tqdm(store.video_ids, desc="tars", unit="tar", disable=None, leave=False, delay=1)):
        if video not in missing and (segments := store.damaged(place)):
            what = f"pictures of {number(len(segments), 'segment')} are damaged: {some(segments)}"
            yield error("store-damaged", store.shard(place), what, f"Remove the file. {todo}")


def _find_annotations(root: Path, files: Files, faults: list[Fault]) -> Path | None:
    try:
        folder = find_annotations(root)
    except InputError as reason:
        todo = "Put the official annotations there: git clone https://github.com/epic-kitchens/epic-kitchens-100-annotations"
        if files.annotations:
            todo = f"There is such a file in {files.annotations[0]}: move that folder there, or name another --data."
        faults.append(error("annotations-missing", root, str(reason).removeprefix(f"{root}: "), todo))
        return None
    others = [path for path in files.annotations if path.parent == root and path.name != folder.name]
    if not is_there(folder / "EPIC_100_train.csv") and files.annotations:
        what = f"has no EPIC_100_train.csv, but {files.annotations[0]} has"
        faults.append(error("annotations-misplaced", folder, what, f"Move its files to {folder}."))
    elif others:
        what = f"{folder} is read, {some([str(path) for path in others])} not"
        faults.append(warning("annotations-twice", root, what, "Remove one of them."))
    return folder


def _choose(annotations: Annotations, folder: Path | None, asked: Sequence[str]) -> dict[str, list[Row]]:
    """The rows of the participants that are looked at."""
    chosen = frozenset(asked)
    if folder:
        try:
            chosen = read_participants(folder, asked)
        except (InputError, OSError):
            if asked:
                raise
    everybody = {row.segment.participant_id for its in annotations.rows.values() for row in its}
    if everybody and (unknown := sorted(set(asked) - everybody)):
        raise InputError(
            f"{folder}: no segment of {', '.join(unknown)}, expected some of {', '.join(sorted(everybody))}"
        )
    if not chosen:
        return annotations.rows
    return {
        split: [row for row in its if row.segment.participant_id in chosen] for split, its in annotations.rows.items()
    }


def _md5_list(root: Path, folder: Path | None, given: Path | None, videos: str) -> Path | None:
    if given or videos == "quick":
        return given
    return next((path for place in (root, folder) if place and (path := place / MD5_FILE).is_file()), None)


def _read_md5s(path: Path | None, faults: list[Fault]) -> dict[str, frozenset[str]]:
    """MD5s of videos by file name in lower case (one video may have been published twice)."""
    table = read_table(path, ("md5", "file_remote_path"), faults) if path else None
    md5s: defaultdict[str, set[str]] = defaultdict(set)
    for _, values in table.rows if table else ():
        remote = values["file_remote_path"].split("/")
        if "videos" in remote[:-1]:
            md5s[remote[-1].lower()].add(values["md5"].strip().lower())
    return {name: frozenset(its) for name, its in md5s.items()}


def _num_workers(videos: str, md5s: dict[str, frozenset[str]]) -> int:
    if videos == "quick" and not md5s:
        return 1
    from egochef.runtime import num_cpus  # imports torch, for which a quick look need not wait

    return num_cpus()


def _look_at_all(looks: Sequence[Look], num_workers: int, faults: list[Fault]) -> dict[int, Seen]:
    """What was found by place; largest videos first, so that processes end together."""
    order = sorted(range(len(looks)), key=lambda place: -_size(looks[place].path))
    seen: dict[int, Seen] = {}
    try:
        with tqdm(total=len(looks), desc="videos", unit="video", disable=None, leave=False, delay=1) as bar:
            tasks = [looks[place] for place in order]
            for place, one in run_parallel(
                look, tasks, num_workers, name=lambda task: task.video_id, on_progress=bar.update
            ):
                seen[order[place]] = one
    except InputError as reason:  # a process was killed, perhaps by the video it was at
        what = f"{reason} {len(looks) - len(seen)} of {len(looks)} videos were not looked at."
        faults.append(error("videos-not-seen", "videos", what, "Run it again with --workers 1."))
    for place in sorted(seen):
        faults += seen[place].faults
    return seen


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _same_videos(looks: Sequence[Look], seen: dict[int, Seen]) -> Iterator[Fault]:
    """Videos of one size, beginning and end: one that lies there under two names."""
    first: dict[tuple[int, str], int] = {}
    for place in sorted(seen):
        one = seen[place]
        earlier = first.setdefault((one.num_bytes, one.edges), place) if one.edges else place
        if earlier != place:
            what = f"{looks[place].path} and {looks[earlier].path} are the same video under two names"
            yield error("video-same", looks[place].video_id, what, "Fetch the one that is wrong again.")


def _check_space(root: Path, rows: dict[str, list[Row]]) -> Iterator[Fault]:
    num_pictures = sum(
        max(STORE_PICTURES, round(STORE_FPS * (row.segment.stop_s - row.segment.start_s)))
        for row in chain.from_iterable(rows.values())
    )
    needed, free = num_pictures * STORE_PICTURE_BYTES, shutil.disk_usage(root).free
    if free < needed:
        what = f"has {free / 1e9:,.1f} GB free, a store of these segments takes about {needed / 1e9:,.1f} GB"
        yield warning("disk-space", root, what, "Let `egochef prepare --out` write the store to another disk.")
