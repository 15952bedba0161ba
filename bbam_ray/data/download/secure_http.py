"""Requests whose answers nobody can change on their way: https, also after redirects."""

from __future__ import annotations

import ipaddress
import re
import urllib.request
from email.message import Message
from typing import IO
from urllib.parse import urlsplit

from bbam_ray.errors import UsageError


def refuse_insecure(url: str, redirected_from: str = "") -> None:
    """Let https pass, and http to this machine itself, unless https was redirected there."""
    scheme = urlsplit(url).scheme
    downgrade = redirected_from.startswith("https:")
    if scheme == "https" or (scheme == "http" and _loopback(url) and not downgrade):
        return
    before = f"{redirected_from} redirects to " if redirected_from else ""
    raise UsageError(f"{before}{url}: downloads go over https only; use an https address")


def opener(url: str) -> urllib.request.OpenerDirector:
    """What opens this address: through the user's proxy, but never between this machine and itself."""
    proxies = [urllib.request.ProxyHandler({})] if _loopback(url) else []
    return urllib.request.build_opener(_Redirects, *proxies)


def content_range(headers: Message) -> tuple[int | None, int | None]:
    """First byte and size of the whole file; None for what the server leaves out."""
    value = headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)", value.strip())
    first, total = found.groups() if found else (None, None)
    return (None if first is None else int(first)), (None if total is None else int(total))


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            refuse_insecure(newurl, redirected_from=req.full_url)
        except UsageError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
