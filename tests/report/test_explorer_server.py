"""The explorer's server as a process: what it serves and to whom, and what it makes of all that is malformed."""

import io
import json
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from explorer_process import DAMAGED_VIDEO, HOSTILE, MISSING_VIDEO, explorer, spoiled_copy, write_scores
from PIL import Image

from egochef.cli.main import main
from egochef.data.annotations import open_data_folder, read_split
from egochef.data.prepare import prepare
from egochef.data.store import StoreSpec
from egochef.report.explorer.app import MAX_QUERY_BYTES, STATIC
from egochef.video.decode import decode_at


@pytest.fixture(scope="module")
def root(toy_root, tmp_path_factory):
    return spoiled_copy(toy_root, tmp_path_factory.mktemp("explorer") / "kitchen")


@pytest.fixture(scope="module")
def runs(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores")
    return [write_scores(folder / f"{name}.npz", root, seed) for seed, name in enumerate(("first", "second"))]


@pytest.fixture(scope="module")
def server(root, runs):
    with explorer("--data", root, "--run", *runs) as running:
        yield running


def rows(server, **parameters):
    return server.get("/api/rows", **parameters).json()["rows"]


# ---- what it serves


def test_the_page_and_all_that_it_loads(server):
    page = server.get("/")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "://" not in page.body.decode()  # nothing from a network
    for name, kind in (*STATIC.items(), ("vega.js", STATIC["app.js"])):
        answer = server.get(f"/static/{name}")
        assert (answer.status, answer.headers["content-type"]) == (200, kind)
        assert len(answer.body) > 300
    assert server.get("/api/about").json()["runs"] == ["first", "second"]


def test_rows_by_the_page(server, root):
    segments = read_split(open_data_folder(root), "train")
    first = server.get("/api/rows", split="train", count=10)
    assert first.headers["content-type"] == "application/json"
    found = first.json()
    assert (found["matched"], len(found["rows"])) == (len(segments), 10)
    rest = rows(server, split="train", start=10, count=200)
    ids = [row["id"] for row in (*found["rows"], *rest)]
    assert sorted(ids) == sorted(segment.narration_id for segment in segments)
    assert rows(server, start=9_000_000) == []
    assert len(rows(server, count=0)) == 0


def test_what_the_runs_say(server):
    right = server.get("/api/rows", action_is="right", run=1).json()
    wrong = server.get("/api/rows", action_is="wrong", run=1).json()
    assert right["matched"] + wrong["matched"] == 8  # the validation split
    assert all(row["shown"]["action_is"] == "right" for row in right["rows"])
    pairs = server.get("/api/rows", other=1, task="verb").json()["pairs"]
    assert sum(pairs.values()) == 8
    assert len(rows(server, other=1, task="verb", pair="only_second")) == pairs["only_second"]


def test_a_hostile_narration_stays_text(server):
    (row,) = (row for row in rows(server, split="validation") if "<script>" in row["narration"])
    assert row["narration"] == HOSTILE.replace("\u2028", "\\u2028")  # written out where it is read
    answer = server.get("/api/segment", id=row["id"])
    assert answer.headers["content-type"] == "application/json"  # and nosniff: nobody takes it for a page
    assert answer.json()["narration"] == row["narration"]
    assert "\u2028".encode() not in answer.body


def test_pictures_are_those_of_the_video(server, root):
    segment = read_split(open_data_folder(root), "validation")[0]
    clip = server.get("/api/clip", id=segment.narration_id).json()
    assert clip["fault"] == ""
    assert len(clip["times_s"]) == 32
    assert all(segment.start_s <= time_s < segment.stop_s for time_s in clip["times_s"])
    video = root / "videos_640x360" / "P02" / f"{segment.video_id}.MP4"
    wanted = decode_at(video, clip["times_s"]).frames
    for number in (0, 13, 31):
        answer = server.get("/api/picture", id=segment.narration_id, number=number)
        assert answer.headers["content-type"] == "image/jpeg"
        picture = np.asarray(Image.open(io.BytesIO(answer.body)))
        assert picture.shape == (clip["height_px"], clip["width_px"], 3) == wanted[number].shape
        assert np.abs(picture.astype(int) - wanted[number]).mean() < 4
    assert server.get("/api/picture", id=segment.narration_id, number=32).status == 400
    assert server.get("/api/picture", id=segment.narration_id).status == 404


@pytest.mark.parametrize("video", [DAMAGED_VIDEO, MISSING_VIDEO])
def test_a_video_that_cannot_be_read_is_told(server, root, video):
    folder = open_data_folder(root)
    segments = [*read_split(folder, "validation"), *read_split(folder, "test")]
    segment = next(each for each in segments if each.video_id == video)
    clip = server.get("/api/clip", id=segment.narration_id)
    assert (clip.status, clip.json()["times_s"]) == (200, [])
    assert f"{video}.MP4" in clip.json()["fault"]
    picture = server.get("/api/picture", id=segment.narration_id, number=0)
    assert (picture.status, f"{video}.MP4" in picture.json()["error"]) == (404, True)
    assert server.get("/api/segment", id=segment.narration_id).status == 200


def test_a_video_that_comes_later_is_found(toy_root, tmp_path):
    root = spoiled_copy(toy_root, tmp_path / "kitchen")
    path = f"videos_640x360/{MISSING_VIDEO.split('_')[0]}/{MISSING_VIDEO}.MP4"
    with explorer("--data", root) as server:
        (row, *_) = rows(server, video=MISSING_VIDEO)
        assert "no such video" in server.get("/api/clip", id=row["id"]).json()["fault"]
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).symlink_to(toy_root / path)
        assert len(server.get("/api/clip", id=row["id"]).json()["times_s"]) == 32


def test_a_store_and_a_split_that_it_lacks(toy_root, tmp_path):
    prepare(toy_root, tmp_path / "store", StoreSpec(size_px=90), splits=("validation",))
    with explorer("--data", tmp_path / "store") as server:
        (row, *_) = rows(server, split="validation")
        clip = server.get("/api/clip", id=row["id"]).json()
        assert (clip["fault"], clip["height_px"], len(clip["times_s"])) == ("", 90, 32)
        answer = server.get("/api/picture", id=row["id"], number=3)
        assert Image.open(io.BytesIO(answer.body)).size == (clip["width_px"], 90)
        (other, *_) = rows(server, split="train")
        assert "not in the store" in server.get("/api/clip", id=other["id"]).json()["fault"]
        about = server.get("/api/about").json()
        assert (about["runs"], about["scored_split"]) == ([], None)


# ---- to whom


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:8100", "127.0.0.1:1"])
def test_names_that_it_answers_to(server, host):
    assert server.get("/", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8100", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1:x",
     "127.0.0.2", "localhost:999999", "", "127.0.0.1@evil.example", "0.0.0.0", "[::1]"],
)  # fmt: skip
def test_names_that_somebody_else_points_here(server, host):
    for target in ("/", "/api/rows", "/static/app.js", "/api/picture?id=P02_01_0&number=0"):
        answer = server.get(target, headers={"Host": host})
        assert answer.status == 403
        assert answer.json() == {"error": "this server answers to 127.0.0.1 and localhost only"}


def test_it_listens_on_this_machine_alone(server):
    lines = open("/proc/net/tcp").read().splitlines() if sys.platform.startswith("linux") else []  # noqa: PTH123, SIM115
    ours = [line.split()[1] for line in lines if line.split()[1].endswith(f":{server.port:04X}") and " 0A " in line]
    assert ours in ([f"0100007F:{server.port:04X}"], [])
    assert ours or not lines


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "X"])
def test_only_get(server, method):
    answer = server.get("/", method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize(
    "target", ["/", "/api/rows", "/static/app.js", "/nothing", "/api/rows?verb=x", "/api/rows?a=%"]
)
def test_headers_of_every_answer(server, target):
    headers = server.get(target).headers
    policy = dict(part.split(maxsplit=1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"  # no unsafe-inline or -eval
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


# ---- what is malformed


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/nothing", 404),
        ("/api", 404),
        ("/api/", 404),
        ("/index.html", 404),
        ("/static/", 404),
        ("/static/page.html", 404),
        ("/static/app.py", 404),
        ("/static/../app.py", 404),
        ("/static/..%2fapp.py", 404),
        ("/static/%2e%2e/%2e%2e/theme.py", 404),
        ("/static//etc/passwd", 404),
        ("/static/%2fetc%2fpasswd", 404),
        ("/static/app.js%00", 404),
        ("/../../etc/passwd", 404),
        ("//etc/passwd", 404),
        ("/%ff%fe", 404),
        ("/api/segment", 404),
        ("/api/segment?id=", 404),
        ("/api/segment?id=nobody", 404),
        ("/api/segment?id=../../etc/passwd", 404),
        ("/api/segment?id=" + "x" * 201, 400),
        ("/api/clip?id=P99_99_0", 404),
        ("/api/picture?id=P02_01_0&number=-1", 400),
        ("/api/picture?id=P02_01_0&number=1e9", 400),
        ("/api/picture?id=P02_01_0&number=" + "9" * 300, 400),
        ("/api/picture?id=P02_01_0&number=0&path=/etc/passwd", 400),
        ("/api/rows?start=-1", 400),
        ("/api/rows?start=99999999999999999999", 400),
        ("/api/rows?start=NaN", 400),
        ("/api/rows?count=201", 400),
        ("/api/rows?count=-5", 400),
        ("/api/rows?sort=password", 400),
        ("/api/rows?sort=other_confidence", 400),
        ("/api/rows?order=up", 400),
        ("/api/rows?verb={}", 400),
        ("/api/rows?verb[]=1", 400),
        ("/api/rows?search=%E0%A4", 400),
        ("/api/rows?search=%", 400),
        ("/api/rows?search=%u0041", 400),
        ("/api/rows?split=train&split=test", 400),
        ("/api/plots?classes=action", 400),
        ("/api/plots?class_order=random", 400),
        ("/api/about?x=1", 400),
        ("/api/rows?search=" + "x" * MAX_QUERY_BYTES, 414),
    ],
)
def test_a_malformed_request_gets_a_short_reason(server, target, status):
    answer = server.get(target)
    assert answer.status == status
    reason = answer.json()["error"]
    assert 3 < len(reason) < 300
    assert "Traceback" not in reason
    assert server.get("/api/rows?count=1").status == 200


GARBAGE = {
    "nothing": b"",
    "newlines": b"\r\n\r\n\r\n",
    "bytes": bytes(range(256)) * 8,
    "zeros": bytes(5000),
    "half a request": b"GET / HTTP/1.1\r\nHost: 127",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "version": b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "old and no host": b"GET / HTTP/1.0\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
    "not ascii": "GET /ü HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode("latin-1"),
    "query not ascii": "GET /api/rows?search=ü HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(),
    "spaces": b"GET /api rows HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "absolute": b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "star": b"GET * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "length": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -4\r\n\r\n",
    "length and chunks": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked"
    b"\r\n\r\n0\r\n\r\n",
    "bad chunks": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "upgrade": b"GET / HTTP/1.1\r\nHost: evil.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "long line": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    + b"".join(b"X-%d: 1\r\n" % n for n in range(9000))
    + b"\r\n",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_on_the_socket(server, name):
    """Each is refused or waited for; the server lives on."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=300) as connection:
        connection.sendall(GARBAGE[name])
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionResetError:  # it closed while we still wrote
            pass
    if answer:
        status = int(answer.split(b" ", 2)[1])
        # The parser takes any version for its own; the page comes if it is faster than our end of the connection.
        assert 400 <= status < 500 or (name, status) == ("version", 200), answer[:200]
    assert server.get("/api/rows?count=1").status == 200


def test_connections_that_say_nothing_hold_nobody_up(server):
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    try:
        for connection in silent[::2]:
            connection.sendall(b"GET /api/rows HTTP/1.1\r\n")
        assert server.get("/api/rows?count=1").status == 200
    finally:
        for connection in silent:
            connection.close()


def test_many_at_once(server):
    """Pictures, rows and figures from thirty threads."""
    targets = [f"/api/picture?id=P02_01_{n % 4}&number={n}" for n in range(12)] + ["/api/rows?sort=narration"] * 10
    targets += ["/api/plots", "/api/segment?id=P02_01_0"] * 4
    answers: list[int] = []
    threads = [threading.Thread(target=lambda t=t: answers.append(server.get(t).status)) for t in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * len(targets)


# ---- start and end


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--data", "no-such-folder", "--port", 0), "no such folder"),
        (("--data", "{root}", "--port", 70000), "--port is 70000, expected 0"),
        (("--data", "{root}", "--port", 0, "--split", "dev"), "unknown split 'dev'"),
        (("--data", "{root}", "--port", 0, "--run", "no-such.npz"), "no such file"),
        (("--data", "{root}", "--port", 0, "--run", "{root}"), "holds no run"),
        (("--data", "{root}", "--port", 0, "--run", "{run}", "{run}"), "given twice"),
        (("--data", "{root}", "--port", 0, "--run", "{run}", "--split", "train"), "does not fit"),
        (("--data", "{root}", "--port", 0, "--participants", "P77"), "no segment of P77"),
    ],
)
def test_what_cannot_be_explored(root, runs, capsys, words, reason):
    words = [str(word).format(root=root, run=runs[0]) for word in words]
    assert main(["explore", *words, "--no-browser"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert reason in told.err
    assert "Traceback" not in told.err


def test_a_port_in_use(server, root, capsys):
    assert main(["explore", "--data", str(root), "--port", str(server.port), "--no-browser"]) == 1
    told = f"port {server.port} is in use. Choose another with --port N, or a free one with --port 0."
    assert told in capsys.readouterr().err


def test_without_scores_torch_is_not_loaded(root):
    code = (
        "import sys; from pathlib import Path; from egochef.report.explorer.server import read_index;"
        "from egochef.report.explorer.app import make_app; from egochef.report.explorer.pictures import Pictures;"
        f"index = read_index(Path({json.dumps(str(root))})); make_app(index, Pictures(index.folder), 'x');"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("name", ["starlette", "uvicorn", "vl_convert", "itables"])
def test_the_library_that_is_missing_is_named(root, name, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, name, None)
    assert main(["explore", "--data", str(root), "--port", "0"]) == 1
    assert capsys.readouterr().err == f'egochef: the explorer: {name} is not installed: pip install "egochef[report]"\n'
