"""Finds the videos that the rows need, or what became of them.

In: a data folder and the ids of its videos. Out: a file for each video that `annotations.find_video` finds, and a fault
for each that it does not, or that is there more than once.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from egochef.data.annotations import VIDEO_PLACES
from egochef.data.doctor.faults import Fault, error, number, some, warning

VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".m4v", ".webm", ".mts", ".m2ts", ".ts", ".mpg", ".mpeg", ".wmv"}
UNFINISHED_SUFFIXES = {".part", ".crdownload", ".aria2", ".tmp", ".download", ".!qb", ".!ut", ".partial", ".filepart"}
OTHER_FOLDERS = {"rgb_frames", "flow_frames", "frames_rgb_flow", "object_detection_images", "hand-objects", "masks"}
"""of the dataset, without videos and with millions of files"""
MAX_DEPTH = 6
"""folders below the data folder that are looked into"""


@dataclass(frozen=True)
class Found:
    """A file that has something to do with a video, wherever it lies."""

    path: Path
    unfinished: bool
    """a download program's, which is not through with it"""


@dataclass(frozen=True)
class Files:
    """What lies in a data folder."""

    videos: dict[str, list[Found]]
    """by video id in lower case: videos and unfinished downloads"""
    annotations: list[Path]
    """folders with a file EPIC_100_train.csv"""


def list_files(root: Path) -> Files:
    """All videos below `root` by their names, links followed."""
    files = Files({}, [])
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        place = Path(folder)
        try:
            status = place.stat()
        except OSError:
            folders.clear()
            continue
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        deep = len(place.relative_to(root).parts) >= MAX_DEPTH
        folders[:] = [] if deep else sorted(name for name in folders if name not in OTHER_FOLDERS and name[0] != ".")
        if "EPIC_100_train.csv" in names:
            files.annotations.append(place)
        for name in sorted(names):
            suffix = Path(name).suffix.lower()
            unfinished = suffix in UNFINISHED_SUFFIXES or name[0] == "."
            if (unfinished or suffix in VIDEO_SUFFIXES) and not name.startswith("._"):  # a Mac's notes on a file
                video = name.lstrip(".").split(".")[0].split(" ")[0].lower()
                files.videos.setdefault(video, []).append(Found(place / name, unfinished))
    return files


def find_files(root: Path, participants: Mapping[str, str], files: Files) -> tuple[dict[str, Path], list[Fault]]:
    """The file of each video.

    Args:
        participants: by video id.
        files: what lies in `root`.

    Returns:
        The files that are there, by video id, and the faults of the others.
    """
    found: dict[str, Path] = {}
    faults: list[Fault] = []
    missing = []
    places: Counter[str] = Counter(dict.fromkeys(VIDEO_PLACES, 0))
    for video, participant in participants.items():
        copies: list[Path] = []
        odd: list[Fault] = []
        for place in VIDEO_PLACES:
            for suffix in (".MP4", ".mp4"):
                path = root / (place.format(participant=participant, video=video) + suffix)
                if fault := _odd(path, video):
                    odd.append(fault)
                elif _is_file(path) and not any(path.samefile(copy) for copy in copies):
                    copies.append(path)
                    places[place] += 1
        if copies:
            found[video] = copies[0]
        elif odd:
            faults.append(odd[0])
        else:
            missing.append(video)
        if len(copies) > 1:
            what = f"is there {len(copies)} times; {copies[0]} is used, {some([str(path) for path in copies[1:]])} not"
            faults.append(warning("video-twice", video, what, "Remove all but one."))
    home = places.most_common(1)[0][0]  # where most of the others are
    for video in missing:
        target = root / (home.format(participant=participants[video], video=video) + ".MP4")
        faults.append(_explain(video, target, files.videos.get(video.lower(), [])))
    for video, path in found.items():
        if control := _control_file(path):
            what = f"is not fetched in full: {control.name} of the download program lies beside it"
            faults.append(error("video-unfinished", video, what, "Let the download end, or fetch the video again."))
    return found, faults


def unneeded(root: Path, files: Files, needed: frozenset[str]) -> Iterator[Fault]:
    """One warning for all videos that no row names."""
    known = {video.lower() for video in needed}
    others = [
        found.path.name
        for video, its in files.videos.items()
        for found in its
        if video not in known and not found.unfinished
    ]
    if others:
        what = f"holds {number(len(others), 'video')} that no row needs: {some(sorted(others))}"
        yield warning("videos-unneeded", root, what, "Nothing, or remove them to free space.")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _odd(path: Path, video: str) -> Fault | None:
    """What is wrong with a name that is taken by something else than a file."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            what = f"{path} is a link to {path.readlink()}, which is not there"
            return error("video-link-broken", video, what, "Mount what it leads to, or replace the link by the video.")
        return None
    except NotADirectoryError:
        return None
    except (OSError, ValueError) as reason:
        what = f"{path} cannot be looked at ({getattr(reason, 'strerror', None) or reason})"
        return error("video-unreadable", video, what, "Give yourself the right to read it.")
    if stat.S_ISDIR(mode):
        return error("video-is-folder", video, f"{path} is a folder", "Put the video file itself in its place.")
    if not stat.S_ISREG(mode):
        return error("video-is-folder", video, f"{path} is a device or a pipe", "Put the video file in its place.")
    return None


def _explain(video: str, target: Path, its: list[Found]) -> Fault:
    """Why a video is not where it is looked for."""
    whole = [found.path for found in its if not found.unfinished]
    if whole:
        whole.sort(key=lambda path: path.suffix.lower() != ".mp4")
        path = whole[0]
        if path.suffix.lower() == ".mp4":
            return error(
                "video-misplaced", video, f"lies at {path}, where it is not looked for", f"Move it to {target}"
            )
        what = f"lies at {path}: only names in .MP4 are looked for"
        return error("video-suffix", video, what, f"Rename it to {target}; what is inside may stay as it is.")
    if its:
        what = f"is not fetched in full: there is only {its[0].path}"
        return error("video-unfinished", video, what, f"Let the download go on, or fetch the video again to {target}")
    todo = "Fetch it, or name with --participants whose videos you have."
    return error("video-missing", video, f"is missing: expected {target}", todo)


def _control_file(path: Path) -> Path | None:
    """What a download program keeps beside a video of full length that is not full yet."""
    for suffix in (".aria2", ".!qB"):
        control = path.with_name(path.name + suffix)
        if _is_file(control):
            return control
    return None
