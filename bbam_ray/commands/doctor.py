"""Checks of this machine, or of every node of a cluster, before a study starts."""

from __future__ import annotations

from pathlib import Path

from bbam_ray.commands import checks
from bbam_ray.results.remote import address_of
from bbam_ray.scale.cluster.connection import connected
from bbam_ray.scale.cluster.doctor import Finding, examine


def doctor(address: str = "local", results: Path | str = "results") -> list[Finding]:
    """Check versions, GPUs, results folder, clocks, disks, dashboard and token.

    Args:
        address: of Ray: "local", "auto" or "ray://HOST:PORT".
        results: folder of all results, or a URI.

    Returns:
        One finding per check; a finding of level "blocker" means that a run would fail.

    Raises:
        UsageError: no such cluster.
    """
    checks.check_address(address)
    folder = Path(results)
    with connected(address) as dashboard:
        return examine(folder if address_of(folder) else folder.absolute(), dashboard)
