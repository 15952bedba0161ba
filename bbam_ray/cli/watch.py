"""``bbam-ray watch``: a page about a running study, on this machine's loopback address only."""

from __future__ import annotations

import errno
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bbam_ray.errors import UsageError

_HOST, _PORT = "127.0.0.1", 8266
# Scripts of the page itself and nothing from elsewhere, nor to it: whatever a text of the study did there,
# it could tell nobody. Plotly makes functions of texts.
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_REMOTE_SECONDS = 10.0  # between looks at a study on object storage


class Watched:
    """A study and its page, which is made anew when the study has changed.

    Args:
        place: folder or URI of the study.
    """

    def __init__(self, place: Path) -> None:
        from bbam_ray.results.remote import address_of, local_copy

        self._place, self._remote = place, address_of(place) is not None
        self.folder, self._looked = local_copy(place), time.monotonic()
        self._lock, self._page = threading.Lock(), ("", "")

    def state(self) -> str:
        """A text that changes with the study."""
        from bbam_ray.report.live_page import state_of
        from bbam_ray.results.remote import local_copy

        with self._lock:
            if self._remote and time.monotonic() - self._looked > _REMOTE_SECONDS:
                self.folder, self._looked = local_copy(self._place), time.monotonic()
            return state_of(self.folder)

    def page(self) -> str:
        """HTML; drawn once for each state."""
        from bbam_ray.report.live_page import live_html

        state = self.state()
        with self._lock:
            if self._page[0] != state:
                self._page = state, live_html(self.folder)
            return self._page[1]


def server_for(watched: Watched, port: int) -> ThreadingHTTPServer:
    """A server on the loopback address that gives the page and nothing else.

    Raises:
        UsageError: the port is taken.
    """
    from plotly.offline import get_plotlyjs

    plotly = get_plotlyjs().encode()

    class Handler(BaseHTTPRequestHandler):
        """Answers ``/``, ``/state`` and ``/plotly.js``."""

        server_version, sys_version = "bbam-ray", ""

        def do_GET(self) -> None:
            # A page elsewhere could have its own name resolved to this address (DNS rebinding).
            hosts = self.headers.get_all("Host") or []
            names = [host.rsplit(":", 1)[0] for host in hosts]
            if names not in (["127.0.0.1"], ["localhost"]):
                self._answer(403, "text/plain", b"only by 127.0.0.1 or localhost\n")
            elif self.path == "/state":
                self._answer(200, "text/plain", watched.state().encode())
            elif self.path == "/plotly.js":
                self._answer(200, "text/javascript", plotly, "max-age=86400")
            elif self.path == "/":
                self._page()
            else:
                self._answer(404, "text/plain", b"there is only /\n")

        def _page(self) -> None:
            try:
                content = watched.page()
            except UsageError as error:  # the study is gone, or between two of its files
                self._answer(503, "text/plain; charset=utf-8", f"{error}\n".encode())
                return
            self._answer(200, "text/html; charset=utf-8", content.encode())

        def _answer(self, code: int, kind: str, body: bytes, cache: str = "no-store") -> None:
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
            """Say nothing: somebody looks every two seconds."""

    try:
        return ThreadingHTTPServer((_HOST, port), Handler)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise UsageError(
            f"--port {port}: taken, or not allowed; use another, or 0 for any"
        ) from None


def watch(
    study: Annotated[Path, typer.Argument(help="Folder or URI <results>/<dataset>/<study>.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = _PORT,
) -> int:
    """Show a study while it runs, at an address of this machine only; ends with Ctrl-C."""
    from bbam_ray.report.live_page import live_html
    from bbam_ray.results.redaction import redacted

    watched = Watched(study)
    live_html(watched.folder)  # whatever is wrong is said here
    server = server_for(watched, port)
    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f"{redacted(str(study))}: http://{_HOST}:{server.server_port}  (Ctrl-C ends it)",
        markup=False,
    )
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        console.print("ended")
    finally:
        server.server_close()
    return 0
