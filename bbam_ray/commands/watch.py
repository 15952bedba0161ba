"""A page that shows a running study, served on the loopback address of this machine only."""

from __future__ import annotations

import errno
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bbam_ray.errors import UsageError
from bbam_ray.report.live_page import live_html, state_of
from bbam_ray.report.plotly_library import library
from bbam_ray.results.remote import address_of, local_copy

HOST = "127.0.0.1"
# Only scripts of the page itself run, and they can connect only to this server: a script hidden in a text
# of the study could not send anything elsewhere. Plotly compiles functions, hence 'unsafe-eval'.
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_REMOTE_SECONDS = 10.0  # between two downloads of a study on object storage


class Watched:
    """A study and its page, which is rendered again when the study has changed.

    Args:
        study: folder or URI of the study.

    Raises:
        UsageError: no study there, or no access.
    """

    def __init__(self, study: Path | str) -> None:
        self._study, self._remote = study, address_of(study) is not None
        self.folder, self._updated = local_copy(study), time.monotonic()
        self._lock, self._page = threading.Lock(), ("", "")

    def state(self) -> str:
        """A text that changes with the study."""
        with self._lock:
            if self._remote and time.monotonic() - self._updated > _REMOTE_SECONDS:
                self.folder, self._updated = local_copy(self._study), time.monotonic()
            return state_of(self.folder)

    def page(self) -> str:
        """The page as HTML; rendered once for each state."""
        state = self.state()
        with self._lock:
            if self._page[0] != state:
                self._page = state, live_html(self.folder)
            return self._page[1]


def server_for(watched: Watched, port: int) -> ThreadingHTTPServer:
    """A server on the loopback address that serves the page and nothing else.

    Args:
        watched: the study.
        port: 0 chooses a free one; ``server.server_port`` is the chosen one.

    Raises:
        UsageError: the port is in use.
    """
    plotly = library().encode()

    class Handler(BaseHTTPRequestHandler):
        """Serves ``/``, ``/state`` and ``/plotly.js``."""

        server_version, sys_version = "bbam-ray", ""

        def do_GET(self) -> None:
            # Against DNS rebinding: another site's name may resolve to this address.
            hosts = self.headers.get_all("Host") or []
            names = [host.rsplit(":", 1)[0] for host in hosts]
            if names not in (["127.0.0.1"], ["localhost"]):
                self._respond(403, "text/plain", b"use 127.0.0.1 or localhost\n")
            elif self.path == "/state":
                self._respond(200, "text/plain", watched.state().encode())
            elif self.path == "/plotly.js":
                self._respond(200, "text/javascript", plotly, "max-age=86400")
            elif self.path == "/":
                self._page()
            else:
                self._respond(404, "text/plain", b"not found; the page is at /\n")

        def _page(self) -> None:
            try:
                content = watched.page()
            except UsageError as error:  # deleted, or in the middle of an update
                self._respond(503, "text/plain; charset=utf-8", f"{error}\n".encode())
                return
            self._respond(200, "text/html; charset=utf-8", content.encode())

        def _respond(self, code: int, kind: str, body: bytes, cache: str = "no-store") -> None:
            self.send_response(code)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(body))),
                ("Cache-Control", cache),
                ("X-Content-Type-Options", "nosniff"),
                ("X-Frame-Options", "DENY"),
                ("Referrer-Policy", "no-referrer"),
                ("Content-Security-Policy", _POLICY),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing: the page polls every two seconds."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise UsageError(
            f"--port {port}: in use or not allowed; use another, or 0 for any free one"
        ) from None


def watch(study: Path | str, port: int = 8266) -> ThreadingHTTPServer:
    """A server for the page of a study, ready for ``serve_forever()``.

    Args:
        study: folder or URI ``<results>/<dataset>/<study>``.
        port: 0 chooses a free one.

    Raises:
        UsageError: no study there, one of a newer version, or a port in use.
    """
    watched = Watched(study)
    live_html(watched.folder)  # a study that cannot be shown fails here, not in the browser
    return server_for(watched, port)
