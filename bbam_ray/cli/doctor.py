"""``bbam-ray doctor``: check this machine, or every node of a cluster, before a study starts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console

from bbam_ray.cli import options as shared
from bbam_ray.errors import EXIT_USAGE

_STYLES = {"ok": "green", "warning": "yellow", "blocker": "bold red"}


def doctor(
    address: shared.Address = "local",
    results: shared.Results = Path("results"),
    json_: shared.Json = False,
) -> int:
    """Check versions, GPUs, results folder, clocks, disks, dashboard and token.

    Ends with exit code 2 if a run would fail.
    """
    from bbam_ray.commands import doctor as command

    console = Console(stderr=json_, soft_wrap=True, highlight=False)
    findings = []
    for finding in command.doctor(address, results):
        findings.append(finding)
        if not json_:
            console.print(f"{finding.level:8}", style=_STYLES[finding.level], end="")
            console.print(f"{finding.check}: {finding.text}", markup=False)
    levels = [finding.level for finding in findings]
    if json_:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        console.print(
            f"{len(findings)} checks, {levels.count('warning')} warnings, "
            f"{levels.count('blocker')} blockers"
        )
    return EXIT_USAGE if "blocker" in levels else 0
