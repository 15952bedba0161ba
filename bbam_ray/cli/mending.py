"""What a command says of the files that it has mended before it goes on."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console


def print_repairs(console: Console, findings: Iterable[str]) -> None:
    """A line for each finding of ``results.repair``."""
    for finding in findings:
        console.print(f"repaired: {finding}", style="yellow", markup=False)
