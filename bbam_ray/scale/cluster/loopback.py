"""A private Ray on this machine listens on the loopback address only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bbam_ray.scale import private_api

ADDRESS = "127.0.0.1"

# Read by the processes that Ray starts; a user's own settings take precedence.
_INTERFACE = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


@contextmanager
def only_loopback() -> Iterator[dict[str, Any]]:
    """Ray and the messages of its workers, if started inside the block, are reachable from here only.

    Yields:
        Options for ``ray.init``.
    """
    added = [name for name in _INTERFACE if name not in os.environ]
    os.environ.update((name, _INTERFACE[name]) for name in added)
    try:
        with private_api.node_address_option(ADDRESS) as options:
            yield options
        with suppress(RuntimeError):  # a user without a home folder
            _make_private(Path.home() / ".ray" / "auth_token")
    finally:
        for name in added:
            os.environ.pop(name, None)


def _make_private(token: Path) -> None:
    """Ray makes the token that opens its ports readable for all users of the machine."""
    with suppress(OSError):
        status = token.stat()
        if status.st_uid == os.getuid() and status.st_mode & 0o077:
            token.chmod(0o600)
