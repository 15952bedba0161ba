"""Measure every part of a study against a plain implementation, store the results and make a table.

python -m benchmarks [--full] [--only PART ...] [--store FILE] [--write benchmarks/README.md]
python -m benchmarks --table [--write benchmarks/README.md]
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import candidates, epoch, gpu, refresh, scaling, startup, step, validation, views
from benchmarks.measure import STORE, Measured, append, last_measured, latest
from benchmarks.page import write_section

PARTS: dict[str, Callable[[bool], list[Measured]]] = {
    "refresh": refresh.run,
    "validation": validation.run,
    "step": step.run,
    "views": views.run,
    "epoch": epoch.run,
    "candidates": candidates.run,
    "startup": startup.run,
    "scaling": scaling.run,
    "gpu": gpu.run,
}


def table(store: Path) -> str:
    """Markdown table with the newest row of every part and case.

    A case that was not measured in its newest run, for lack of a GPU, says when it was measured.
    """
    rows, before = latest(store), last_measured(store)
    lines = ["| part | case | plain | ours | plain / ours | rounds | details |"]
    lines.append("|---|---|---|---|---|---|---|")
    for _, row in rows.iterrows():
        if pd.isna(row["ours_s"]):
            since = before.get((row["part"], row["case"]))
            text = "not measured since " + since if since else "not measured, never before"
            cells = ["", text, "", "", _details(json.loads(row["details"]))]
        else:
            ratio = "" if pd.isna(row["ratio"]) else f"{row['ratio']:.2f}"
            cells = [_seconds(row["plain_s"]), _seconds(row["ours_s"]), ratio, str(row["rounds"])]
            cells.append(_details(json.loads(row["details"])))
        lines.append("| " + " | ".join([row["part"], row["case"], *cells]) + " |")
    origins = rows[["hardware", "git_commit", "measured_at", "versions"]].drop_duplicates(
        ["hardware", "git_commit"]
    )
    for _, one in origins.iterrows():
        day, commit = one["measured_at"].date().isoformat(), (one["git_commit"] or "unknown")[:9]
        lines += ["", f"{one['hardware']}; {one['versions']}; commit {commit}, {day}."]
    return "\n".join(lines)


def _seconds(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.3g} s"


def _details(details: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{name.replace('_', ' ')} {text(value)}" for name, value in details.items())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="at the sizes in benchmarks/README.md")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--store", type=Path, default=STORE, metavar="FILE")
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    for part in [] if arguments.table else arguments.only:
        print(f"{part} ...", flush=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            append(PARTS[part](arguments.full), arguments.store)
    if not arguments.store.exists():
        raise SystemExit(f"{arguments.store}: nothing has been measured yet")
    text = table(arguments.store)
    print(text)
    if arguments.write:
        write_section(arguments.write, "measurements", text)


if __name__ == "__main__":
    main()
