"""Serves the explorer on this machine alone until Ctrl-C.

In: a data folder and what models say of it. Out: a page at http://127.0.0.1:PORT/.
"""

import errno
import logging
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from egochef.data.annotations import SPLIT_FILES, open_data_folder
from egochef.errors import InputError
from egochef.extras import need_extra
from egochef.report.explorer.index import Index, build_index, predictions_of

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
DEFAULT_PORT = 8100
SCORED = "validation"
"""the split that runs are scored on unless told otherwise"""
MAX_REQUEST_BYTES = 16 << 10
"""of a request's head"""
MAX_WAITING = 64
"""connections"""


def explore(
    data: Path,
    sources: Sequence[Path] = (),
    *,
    splits: Sequence[str] = (),
    scored_split: str | None = None,
    participants: Sequence[str] = (),
    device: str | None = None,
    port: int = DEFAULT_PORT,
    opens_browser: bool = True,
    tell_url: Callable[[str], None],
) -> None:
    """Read everything, serve it, and return after Ctrl-C.

    Args:
        sources: run folders and files of scores.
        splits: to browse; none: all that the folder has.
        scored_split: that the scores are of; None: `validation`, or the one split that is browsed.
        port: 0: a free one.
        tell_url: is called as soon as the page can be loaded.

    Raises:
        InputError: anything about folders, scores and port that does not fit.
    """
    need_extra("report", "the explorer", ("h11", "itables", "starlette", "uvicorn", "vl_convert"))
    from egochef.report.explorer.app import make_app
    from egochef.report.explorer.pictures import Pictures

    with open_socket(port) as listener:  # first: a port that is taken is told before work of minutes
        index = read_index(data, sources, splits, scored_split, participants, device)
        app = make_app(index, Pictures(index.folder), str(data))
        url = f"http://{HOST}:{listener.getsockname()[1]}/"
        runs = ", ".join(run.name for run in index.predictions)
        log.info("%s segments%s. Ctrl-C ends it.", f"{len(index):,}", f", predictions of {runs}" if runs else "")
        tell_url(url)
        if opens_browser and _has_screen():
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        _serve(app, listener)


def read_index(
    data: Path,
    sources: Sequence[Path] = (),
    splits: Sequence[str] = (),
    scored_split: str | None = None,
    participants: Sequence[str] = (),
    device: str | None = None,
) -> Index:
    """Segments as columns, with what the sources say of them; see `explore`.

    Raises:
        InputError: as `explore`.
    """
    folder = open_data_folder(data, participants)
    index = build_index(folder, splits)
    if not sources:
        return index
    from egochef.report.scores import read_scores

    scored = scored_split or (index.splits[0] if len(index.splits) == 1 else SCORED)
    if scored not in SPLIT_FILES:
        raise InputError(f"unknown split {scored!r}, expected one of {', '.join(SPLIT_FILES)}")
    if scored not in index.splits:
        raise InputError(
            f"the scores are of the {scored} split, but only {', '.join(index.splits)} is browsed. Add it to --split, "
            "or tell with --scored-split of which they are."
        )
    code = index.splits.index(scored)
    segments = tuple(segment for segment, own in zip(index.segments, index.split, strict=True) if own == code)
    scores = read_scores(sources, folder, scored, segments, device=device)
    return replace(index, predictions=tuple(predictions_of(index, scored, each) for each in scores))


def open_socket(port: int) -> socket.socket:
    """A listening socket at a port of this machine; who comes before it is served waits.

    Raises:
        InputError: the port is out of range, in use, or not for everybody.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"--port is {port}, expected 0 (a free one) to 65535")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # Windows would let two servers have the same port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(MAX_WAITING)
        return listener
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"port {port} is in use. Choose another with --port N, or a free one with --port 0."
            ) from None
        raise InputError(f"port {port} cannot be had ({error.strerror}). Choose another with --port N.") from None


def _serve(app: object, listener: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # below are remarks on malformed requests
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=MAX_REQUEST_BYTES,
        timeout_graceful_shutdown=1,
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:  # how uvicorn passes Ctrl-C on when it has ended everything
        log.info("ended")


def _has_screen() -> bool:
    """Whether a browser has somewhere to open; without one a text browser would take over the terminal."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
