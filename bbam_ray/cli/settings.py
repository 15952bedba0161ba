"""``bbam-ray settings``: every setting with its default, range and meaning."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from bbam_ray.cli import options as shared


def settings(
    method: Annotated[
        str | None, typer.Option(help="List the settings of runs with this method.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="List the settings of runs on this data set, with its own defaults."),
    ] = None,
    json_: shared.Json = False,
) -> int:
    """List every setting for --set and YAML files: name, default, range or choices, and meaning."""
    from bbam_ray.commands import settings as command

    rows = command.setting_rows(method, dataset)
    if json_:
        typer.echo(json.dumps([asdict(row) for row in rows]))
        return 0
    console = Console(soft_wrap=True, highlight=False)
    for group, members in groupby(rows, key=lambda row: row.group):
        title = f"{group} settings" if group == command.COMMON else f"settings of {group}"
        console.print(f"{title}\n", style="bold underline")
        for row in members:
            line = Text.assemble((f"{row.name} = {row.default_text}", "bold"), f"   {row.allowed}")
            if row.default != row.general_default:
                line.append(f"   (common default: {row.general_text})")
            console.print(line)
            console.print(f"    {row.description}\n", markup=False)
    return 0
