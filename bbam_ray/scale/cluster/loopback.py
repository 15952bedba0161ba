"""A private Ray on this machine listens on the loopback address alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray._private import ray_constants

ADDRESS = "127.0.0.1"

# Read by the processes that Ray starts; a user's own settings win.
_INTERFACE = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


@contextmanager
def only_loopback() -> Iterator[None]:
    """What Ray starts within it is reached from this machine only, and so are its workers' messages.

    Ray takes "127.0.0.1" as the address of its node only where it expects no other nodes; given as an
    argument, it would be replaced by the machine's address in its network, and every port opened there.
    """
    expects_others = ray_constants.ENABLE_RAY_CLUSTER
    added = [name for name in _INTERFACE if name not in os.environ]
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ.update((name, _INTERFACE[name]) for name in added)
    try:
        yield
        with suppress(RuntimeError):  # a user without a home
            _keep_for_ourselves(Path.home() / ".ray" / "auth_token")
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = expects_others
        for name in added:
            os.environ.pop(name, None)


def _keep_for_ourselves(token: Path) -> None:
    """Ray makes the token that opens its ports readable for all users of the machine."""
    with suppress(OSError):
        status = token.stat()
        if status.st_uid == os.getuid() and status.st_mode & 0o077:
            token.chmod(0o600)
