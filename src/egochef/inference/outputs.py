"""Where outputs go, looked at before hours of work rather than after. In: paths. Out: nothing, or what is wrong."""

import os
from collections.abc import Sequence
from pathlib import Path

from egochef.errors import InputError

FILM_SUFFIXES = (".mp4", ".mkv", ".mov")


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Whether files can be written without harm to each other or to what is read.

    Raises:
        InputError: one is an input, or given twice, or a folder, or its folder cannot be made or written.
    """
    taken = {path.resolve(): f"{path} is read" for path in inputs}
    for path in outputs:
        if other := taken.get(path.resolve()):
            raise InputError(f"{path}: cannot be written, {other}. Choose another name.")
        taken[path.resolve()] = "another output has that name"
        if path.is_dir():
            raise InputError(f"{path}: is a folder, expected the name of a file to write")
        folder = next(each for each in path.absolute().parents if each.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{path}: cannot be written in {folder}. Choose another place.")


def check_film(path: Path) -> None:
    """Whether a film can be of this name.

    Raises:
        InputError: its suffix names no container for it.
    """
    if path.suffix.lower() not in FILM_SUFFIXES:
        raise InputError(f"{path}: no video format of this name, expected one that ends in {', '.join(FILM_SUFFIXES)}")


def film_paths(out: Path, videos: Sequence[Path]) -> dict[Path, Path]:
    """A film's path for each video: `out` itself, or in the folder `out` the video's name with .mp4.

    A folder is one that is there already, or a name without suffix.

    Raises:
        InputError: several videos for one file or for one name in the folder, or a suffix that is no film's.
    """
    if out.suffix and not out.is_dir():
        check_film(out)
        if len(videos) > 1:
            raise InputError(f"{out}: one file for {len(videos)} videos, expected a folder")
        return {videos[0]: out}
    paths: dict[Path, Path] = {}
    for video in videos:
        path = out / f"{video.stem}.mp4"
        if path in paths.values():
            raise InputError(f"{path}: two videos of one name. Rename one, or do them one at a time.")
        paths[video] = path
    return paths
