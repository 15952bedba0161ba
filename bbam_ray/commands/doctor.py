"""Checks of this machine, or of every node of a cluster, before a study starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from bbam_ray.commands import checks
from bbam_ray.errors import UsageError, brief
from bbam_ray.results.remote import address_of
from bbam_ray.scale.cluster.connection import connected
from bbam_ray.scale.cluster.doctor import (
    Finding,
    check_extras,
    check_gpus,
    check_results,
    examine,
)


def doctor(address: str = "local", results: Path | str = "results") -> Iterator[Finding]:
    """Check versions, GPUs, results folder, clocks, disks, dashboard and token.

    Args:
        address: of Ray: "local", "auto" or "ray://HOST:PORT".
        results: folder of all results, or a URI.

    Yields:
        The finding of each check as soon as it is done; one of level "blocker" means that a run would
        fail.

    Raises:
        UsageError: no such cluster.
    """
    checks.check_address(address)
    folder = Path(results)
    folder = folder if address_of(folder) else folder.absolute()
    finding = check_results(folder)
    yield finding
    if address == "local":
        yield from check_gpus()
    yield from check_extras()
    with ExitStack() as stack:
        try:
            dashboard = stack.enter_context(connected(address))
        except UsageError:
            raise
        except Exception as error:  # what keeps Ray from starting is the finding
            reason = brief(str(error) or type(error).__name__, 300)
            text = f"Ray does not start ({reason}); look at the logs in its session folder"
            yield Finding("Ray", "blocker", text)
            return
        yield Finding("Ray", "ok", f"{version('ray')}, connected")
        yield from examine(folder, dashboard, writable=finding.level != "blocker")
