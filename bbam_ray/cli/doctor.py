"""``bbam-ray doctor``: look at this machine, or at every node of a cluster, before a study is started."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console

from bbam_ray.cli import options as shared
from bbam_ray.commands import checks
from bbam_ray.errors import EXIT_USAGE

_STYLES = {"ok": "green", "warning": "yellow", "blocker": "bold red"}


def doctor(
    address: shared.Address = "local",
    results: shared.Results = Path("results"),
    json_: shared.Json = False,
) -> int:
    """Check versions, GPUs, results folder, clocks, disks, dashboard and token; 2 if a run would break."""
    from bbam_ray.results.remote import address_of
    from bbam_ray.scale.cluster.connection import connected
    from bbam_ray.scale.cluster.doctor import examine

    checks.check_address(address)
    console = Console(stderr=json_, soft_wrap=True, highlight=False)
    with connected(address) as url:
        found = examine(results if address_of(results) else results.absolute(), url)
    blockers = sum(finding.level == "blocker" for finding in found)
    if json_:
        typer.echo(json.dumps([asdict(finding) for finding in found]))
    else:
        for finding in found:
            console.print(f"{finding.level:8}", style=_STYLES[finding.level], end="")
            console.print(f"{finding.check}: {finding.text}", markup=False)
        warnings = sum(finding.level == "warning" for finding in found)
        console.print(f"{len(found)} checks, {warnings} warnings, {blockers} blockers")
    return EXIT_USAGE if blockers else 0
