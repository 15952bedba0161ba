"""Requests over https only, also after redirects, so that responses cannot be modified in transit."""

from __future__ import annotations

import ipaddress
import re
import urllib.request
from email.message import Message
from typing import IO
from urllib.parse import urlsplit

from bbam_ray.errors import UsageError


def refuse_insecure(url: str, redirected_from: str = "") -> None:
    """Raise a UsageError unless a URL is https, or http to this machine that https did not redirect to."""
    scheme = urlsplit(url).scheme
    downgrade = redirected_from.startswith("https:")
    if scheme == "https" or (scheme == "http" and _loopback(url) and not downgrade):
        return
    before = f"{redirected_from} redirects to " if redirected_from else ""
    raise UsageError(f"{before}{url}: downloads require https; use an https address")


def opener(url: str) -> urllib.request.OpenerDirector:
    """An opener for a URL: through the user's proxy, except for this machine itself."""
    proxies = [urllib.request.ProxyHandler({})] if _loopback(url) else []
    return urllib.request.build_opener(_Redirects, *proxies)


def content_range(headers: Message) -> tuple[int | None, int | None]:
    """First byte and total size of a partial response; None for what the server omits."""
    value = headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)", value.strip())
    first, total = match.groups() if match else (None, None)
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
