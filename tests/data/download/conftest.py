"""A real server whose answers a test can spoil, and which counts what it sends."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bbam_ray.data.download import http as download

BODY = random.Random(1).randbytes(1 << 20)


@dataclass
class Publisher:
    """How the server answers, what it was asked for and what it sent."""

    body: bytes = BODY
    cuts: list[int] = field(default_factory=list)  # bytes after which the next answers end
    codes: list[int] = field(default_factory=list)  # answers before the proper one
    ranges: bool = True
    shift: int = 0  # of the range that is sent
    length: bool = True
    redirect: str = ""
    stall_at: int | None = None
    go_on: threading.Event = field(default_factory=threading.Event)
    asked: list[str | None] = field(default_factory=list)
    sent: int = 0
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers["Range"]
        self.asked.append(asked)
        request.close_connection = True
        if self.redirect and request.path == "/file.bin":
            return self.head(request, 302, {"Location": self.redirect})
        if self.codes:
            return self.head(request, self.codes.pop(0), {"Content-Length": "0"})
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else 0
        if start and start >= len(self.body):
            return self.head(request, 416, {"Content-Range": f"bytes */{len(self.body)}"})
        start = start and start + self.shift
        headers = {"Content-Length": str(len(self.body) - start)} if self.length else {}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"
        self.head(request, 206 if start else 200, headers)
        end = start + self.cuts.pop(0) if self.cuts else len(self.body)
        for place in range(start, min(end, len(self.body)), 1024):
            if self.stall_at is not None and place >= self.stall_at:
                self.go_on.wait(30)
            self.sent += request.wfile.write(self.body[place : min(place + 1024, end)])
        return None

    def head(self, request: BaseHTTPRequestHandler, code: int, headers: dict[str, str]) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    behaviour = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behaviour.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # clients are killed on purpose

    monkeypatch.setattr(download, "WAITS", (0.0, 0.0))
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        behaviour.url = f"http://127.0.0.1:{server.server_port}/file.bin"
        yield behaviour
        behaviour.go_on.set()
        server.shutdown()
        thread.join()
