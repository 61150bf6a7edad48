"""What the explorer's server answers: its own page, rows, one segment, figures' numbers and pictures.

Only GET, only for 127.0.0.1 and localhost by name (so that no other site's page can reach it by a name of its own that
points here), and only things that this file lists: no path of a request reaches the file system.

    /                                      the page
    /static/NAME                           one of STATIC, or vega.js
    /api/about                             classes, videos, runs, colours
    /api/rows?FILTERS&sort=&order=&start=&count=
    /api/plots?FILTERS&classes=&class_order=
    /api/segment?id=                       one segment with its scores
    /api/clip?id=                          how many pictures a segment has, and when they are
    /api/picture?id=&number=               one of them, JPEG
"""

import asyncio
import json
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from h11 import LocalProtocolError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from egochef.errors import InputError
from egochef.report.explorer import query as ask
from egochef.report.explorer.detail import segment_detail
from egochef.report.explorer.index import Index
from egochef.report.explorer.pictures import MAX_FRAMES, Clip, Pictures
from egochef.report.theme import OUTCOMES, theme_css, vega_config, vega_javascript

ROWS_A_PAGE = 50
MAX_ID_LETTERS = 200
MAX_QUERY_BYTES = 4096
HOSTS = re.compile(rb"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?", re.IGNORECASE)
"""another port than ours is one that somebody forwards"""
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
STATIC = {name: f"text/{'css' if name.endswith('.css') else 'javascript'}; charset=utf-8" for name in (
    "app.css", "app.js", "dom.js", "panel.js", "player.js", "plots.js", "theme.css", "datatables.js")}  # fmt: skip
"""what the page loads, by the type that it is sent as; vega.js, which takes a second to make, stands apart"""

_making_vega = threading.Lock()


def make_app(index: Index, pictures: Pictures, title: str) -> ASGIApp:
    """The explorer of an index as an ASGI application.

    Args:
        title: what is browsed, for the page's head.
    """
    about = _about(index, title)
    one_clip_at_a_time = asyncio.Lock()  # decoding takes all of a core, and pictures are not for two threads

    async def clip_of(request: Request, row: int) -> Clip | None:
        """None: nobody waits for it any more."""
        async with one_clip_at_a_time:
            if await request.is_disconnected():
                return None
            return await run_in_threadpool(pictures.clip, index.segments[row])

    def send_about(request: Request) -> Response:
        _given(request).end()
        return _json(about)

    def send_rows(request: Request) -> Response:
        given = _given(request)
        query = ask.take_query(given, index)
        column = given.choice("sort", ask.COLUMNS) or "segment"
        falling = given.choice("order", ("asc", "desc")) == "desc"
        start = given.whole("start", ask.MAX_START) or 0
        count = given.whole("count", ask.MAX_COUNT + 1)
        given.end()
        kept = ask.matching(index, query)
        rows = ask.sorted_rows(index, query, kept, column, falling=falling)
        shown = rows[start : start + (ROWS_A_PAGE if count is None else count)].tolist()
        return _json(
            {**ask.summary(index, query, kept), "rows": [ask.row_of_table(index, query, row) for row in shown]}
        )

    def send_plots(request: Request) -> Response:
        given = _given(request)
        query = ask.take_query(given, index)
        task = given.choice("classes", ("verb", "noun")) or "verb"
        order = given.choice("class_order", ask.CLASS_ORDERS) or "most"
        given.end()
        return _json(ask.plots(index, query, ask.matching(index, query), task, order))

    def send_segment(request: Request) -> Response:
        given = _given(request)
        row = _row(given, index)
        given.end()
        return _json(segment_detail(index, row))

    async def send_clip(request: Request) -> Response:
        given = _given(request)
        row = _row(given, index)
        given.end()
        clip = await clip_of(request, row) or Clip(fault="nobody waited for it")
        size = {"width_px": clip.width_px, "height_px": clip.height_px}
        return _json({"times_s": clip.times_s, **size, "fault": clip.fault})

    async def send_picture(request: Request) -> Response:
        given = _given(request)
        row, number = _row(given, index), given.whole("number", MAX_FRAMES)
        given.end()
        clip = await clip_of(request, row) or Clip(fault="nobody waited for it")
        if clip.fault:
            raise HTTPException(404, clip.fault)
        if number is None or number >= len(clip.jpegs):
            raise HTTPException(404, f"no such picture, the segment has {len(clip.jpegs)}")
        return Response(clip.jpegs[number], media_type="image/jpeg")

    def send_static(request: Request) -> Response:
        name = request.path_params["name"]
        if name == "vega.js":
            return Response(_vega(), media_type=STATIC["app.js"])
        if name not in STATIC:
            raise HTTPException(404, "no such page")
        return Response(_static(name), media_type=STATIC[name])

    def send_page(request: Request) -> Response:  # its query is the page's own: filters, for who loads it again
        return Response(_ours("page.html"), media_type="text/html; charset=utf-8")

    pages: dict[str, Callable[[Request], Any]] = {
        "/": send_page,
        "/static/{name}": send_static,
        "/api/about": send_about,
        "/api/rows": send_rows,
        "/api/plots": send_plots,
        "/api/segment": send_segment,
        "/api/clip": send_clip,
        "/api/picture": send_picture,
    }
    routes = [Route(path, endpoint, methods=["GET"]) for path, endpoint in pages.items()]
    faults = {InputError: _bad_request, HTTPException: _http_fault}
    return _guarded(Starlette(routes=routes, exception_handlers=faults))


def _guarded(app: ASGIApp) -> ASGIApp:
    """Refuses what the whole server refuses, and puts the security headers on every answer."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *ours]}
            await send(message)

        hosts = [value for name, value in scope["headers"] if name == b"host"]
        refusal = None
        if len(hosts) != 1 or not HOSTS.fullmatch(hosts[0]):
            refusal = _fault(403, "this server answers to 127.0.0.1 and localhost only")
        elif scope["method"] != "GET":
            refusal = _fault(405, "only GET", {"allow": "GET"})
        elif len(scope["query_string"]) > MAX_QUERY_BYTES:
            refusal = _fault(414, f"the address is longer than {MAX_QUERY_BYTES} bytes")
        with suppress(LocalProtocolError):  # a body that is malformed: uvicorn has answered and closed by itself
            await (refusal or app)(scope, receive, send_with_headers)

    return guarded


def _given(request: Request) -> ask.Parameters:
    return ask.Parameters(ask.parameters(request.scope["query_string"]))


def _row(given: ask.Parameters, index: Index) -> int:
    narration_id = given.text("id", MAX_ID_LETTERS)
    if narration_id not in index.row_of:
        raise HTTPException(404, f"no segment {narration_id[:40]!r}")
    return index.row_of[narration_id]


def _bad_request(request: Request, error: Exception) -> Response:
    return _fault(400, str(error))


def _http_fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _fault(error.status_code, "no such page" if error.detail == "Not Found" else error.detail)


def _fault(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return _json({"error": message}, status, headers)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Response(text, status, headers, media_type="application/json")


def _about(index: Index, title: str) -> dict[str, Any]:
    """What the page needs once."""
    owner = dict(zip(index.video.tolist(), index.participant.tolist(), strict=True))
    taxonomy = index.folder.taxonomy
    return {
        "title": title,
        "num_segments": len(index),
        "rows_a_page": ROWS_A_PAGE,
        "splits": index.splits,
        "scored_split": index.scored_split,
        "participants": index.participants,
        "videos": [[name, owner[code]] for code, name in enumerate(index.videos)],
        "verbs": taxonomy.verbs,
        "nouns": taxonomy.nouns,
        "runs": [run.name for run in index.predictions],
        "colours": {"right": OUTCOMES["right"], "wrong": OUTCOMES["both wrong"], "unknown": OUTCOMES["happens"]},
        "themes": {"light": vega_config(dark=False), "dark": vega_config(dark=True)},
    }


@cache
def _static(name: str) -> bytes:
    if name == "theme.css":
        return theme_css().encode()
    if name == "datatables.js":
        return _datatables().read_bytes()
    return _ours(name)


@cache
def _ours(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()


def _vega() -> bytes:
    with _making_vega:  # it takes a second: who comes meanwhile waits for the same
        return _vega_once()


@cache
def _vega_once() -> bytes:
    return vega_javascript().encode()


def _datatables() -> Path:
    """DataTables as an ES module, where itables carries it; itables itself is not imported, it would bring IPython."""
    spec = find_spec("itables")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / "html" / "dt_bundle.js"
    if not path.is_file():
        raise InputError(f'{path}: itables has no such file. Install the version that we know: pip install "itables<3"')
    return path
