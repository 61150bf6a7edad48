"""Live sources to test with: an HTTP MJPEG server that can stall, close and come back; FFmpeg writing into a fifo."""

import resource
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

import simplejpeg
from numbered import numbered_picture

DEADLINE_S = 300.0
"""how long a test waits for what must come; a busy machine is slow"""


def wait_for(true: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Look until `true()` is, and give what it said.

    Raises:
        AssertionError: it does not become so in time.
    """
    end = time.monotonic() + deadline_s
    while not (found := true()):
        assert time.monotonic() < end, f"waited {deadline_s:.0f} s for {what}"
        time.sleep(0.01)
    return found


@contextmanager
def no_file_longer_than(num_bytes: int) -> Iterator[None]:
    """For this process, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class MjpegServer:
    """Sends numbered pictures as multipart/x-mixed-replace on loopback, to any number of clients at once.

    The number goes on counting whoever listens, as a camera goes on seeing: it tells how old a picture is.
    """

    def __init__(self, fps: float = 25.0, size_px: tuple[int, int] = (64, 64), *, pictures: list[bytes] | None = None):
        self.fps = fps
        self.pictures = pictures or [encode(number, size_px) for number in range(200)]
        self.num_connections = 0
        self.requests: list[str] = []
        self._began = time.monotonic()
        self._flows = threading.Event()
        self._flows.set()
        self._cut = 0  # connections begun before this one are to end
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    def __enter__(self) -> "MjpegServer":
        self.open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/video"

    @property
    def number(self) -> int:
        """Of the picture that is sent now."""
        return int((time.monotonic() - self._began) * self.fps) % len(self.pictures)

    def open(self) -> None:
        """Listen, at the same port as before."""
        self._server = _listen(self.serve, self._port)
        self._port = self._server.server_port

    def close(self) -> None:
        """End all connections and refuse new ones."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """End the connections that are open; new ones are served."""
        self._cut = self.num_connections + 1
        self._flows.set()

    def stall(self) -> None:
        """Keep connections open and send nothing more."""
        self._flows.clear()

    def flow(self) -> None:
        """Send again."""
        self._flows.set()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        self.num_connections += 1
        self.requests.append(request.path)
        number, last = self.num_connections, -1
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
        request.end_headers()
        while number >= self._cut:
            if self._flows.wait(0.02) and self.number != last:
                last = self.number
                jpeg = self.pictures[last]
                head = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                request.wfile.write(head.encode() + jpeg + b"\r\n")
            time.sleep(0.2 / self.fps)


class _Handler(BaseHTTPRequestHandler):
    serve: Callable[[BaseHTTPRequestHandler], None]

    def do_GET(self) -> None:
        with suppress(OSError):  # the client may go
            type(self).serve(self)

    def log_message(self, *parts: object) -> None:
        pass


def _listen(serve: Callable[[BaseHTTPRequestHandler], None], port: int = 0) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"serve": staticmethod(serve)}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


@contextmanager
def web(serve: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server on loopback that answers every request by `serve`; gives its address, without a slash at the end."""
    server = _listen(serve)
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def reply(request: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    """Answer a request; `Content_Type` stands for the header `Content-Type`."""
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


class RtspRelay:
    """Passes on to all who play what an FFmpeg records into it (RFC 2326, all in one TCP connection)."""

    def __init__(self) -> None:
        self.flows = True
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._connections = [self._socket]
        self._players: list[socket.socket] = []
        self._description = b""
        self._recording = threading.Event()
        self.url = f"rtsp://127.0.0.1:{self._socket.getsockname()[1]}/kitchen"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "RtspRelay":
        return self

    def __exit__(self, *exception: object) -> None:
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError), connection.makefile("rb") as file:
            while begin := file.read(1):
                if begin == b"$":  # a packet: channel, length, data
                    head = file.read(3)
                    packet = begin + head + file.read(int.from_bytes(head[1:], "big"))
                    for player in self._players if self.flows else []:
                        with suppress(OSError):
                            player.sendall(packet)
                else:
                    self._answer(connection, file, begin + file.readline())

    def _answer(self, connection: socket.socket, file: BinaryIO, line: bytes) -> None:
        method, fields = line.split()[0], {}
        while field := file.readline().strip():
            name, _, value = field.partition(b":")
            fields[name.lower()] = value.strip()
        sent = file.read(int(fields.get(b"content-length", 0)))
        lines, body = [b"RTSP/1.0 200 OK", b"CSeq: " + fields[b"cseq"], b"Session: 1"], b""
        if method == b"ANNOUNCE":
            self._description = sent
        elif method == b"OPTIONS":
            lines.append(b"Public: OPTIONS, DESCRIBE, SETUP, PLAY, ANNOUNCE, RECORD, TEARDOWN")
        elif method == b"DESCRIBE":
            self._recording.wait(DEADLINE_S)
            body = self._description
            lines += [b"Content-Type: application/sdp", b"Content-Length: %d" % len(body)]
        elif method == b"SETUP":
            lines.append(b"Transport: " + fields[b"transport"])
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        if method == b"PLAY":
            self._players.append(connection)
        elif method == b"RECORD":
            self._recording.set()


def encode(number: int, size_px: tuple[int, int] = (64, 64)) -> bytes:
    """A numbered picture as a JPEG file."""
    return simplejpeg.encode_jpeg(numbered_picture(number, *size_px), quality=95, colorspace="RGB")


@contextmanager
def ffmpeg(*words: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """FFmpeg with these arguments in the background; killed at the end if it still runs."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, words)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()
