"""The Parquet file with the results of ``stress.chaos``, and the Markdown tables made from it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bbam_ray.files import atomic_file
from bbam_ray.results.study import describe_environment

STORE = Path(__file__).with_name("chaos.parquet")
_SCHEMA = pa.schema(
    [
        ("part", pa.string()),
        ("kind", pa.string()),
        ("values", pa.string()),
        ("seed", pa.int64()),
        ("hardware", pa.string()),
        ("versions", pa.string()),
        ("git_commit", pa.string()),
        ("measured_at", pa.timestamp("s", tz="UTC")),
    ]
)
_COLUMNS = {
    "fault": {
        "injected": "injected",
        "lost_or_duplicated": "trials lost or duplicated",
        "unreadable": "unreadable tables",
        "differences": "results that differ",
        "other_failures": "hangs, wrong exit codes, other",
        "slowest_s": "slowest command, s",
    },
    "fuzz": {
        "cases": "cases",
        "accepted": "accepted",
        "refused": "refused",
        "defects": "defects",
        "slowest_s": "slowest, s",
    },
    "soak": {"first": "after the first tenth", "last": "at the end", "maximum": "maximum"},
    "growth": {
        "driver_MB": "memory of the driver, MB",
        "flush_ms": "a flush, ms",
        "slowest_flush_ms": "slowest, ms",
        "open_files": "open files",
        "threads": "threads",
        "processes": "processes",
        "parts": "files in `parts/`",
        "tables_MB": "tables and `study.db`, MB",
        "checkpoints_MB": "out-of-fold scores, MB",
        "ray_MB": "Ray's folder, MB",
        "temporary_MB": "temporary files, MB",
    },
}
_HEADS = {"fault": "fault", "fuzz": "reader", "soak": "resource", "growth": "a long study"}


def append(rows: Iterable[tuple[str, str, dict[str, Any]]], seed: int, store: Path) -> None:
    """Append rows to the file, with hardware, versions, commit and date.

    Args:
        rows: part (fault, fuzz, soak, growth), kind (name of the fault, reader or resource, or a number of
            trials) and values by name.
    """
    facts = describe_environment(None)
    common = {
        "seed": seed,
        "hardware": f"{facts['cpu_count']} CPUs, no GPU",
        "versions": ", ".join(f"{n} {v}" for n, v in facts["packages"].items() if v),
        "git_commit": facts["git_commit"],
        "measured_at": datetime.now(UTC).replace(microsecond=0),
    }
    new = [
        {"part": part, "kind": kind, "values": json.dumps(values), **common}
        for part, kind, values in rows
    ]
    table = pa.Table.from_pylist(new, schema=_SCHEMA)
    if store.exists():
        table = pa.concat_tables([pq.read_table(store, schema=_SCHEMA), table])
    with atomic_file(store) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def table(store: Path) -> str:
    """Markdown tables: the last run of each part; of faults and growth, the last run that has each row."""
    rows = pq.read_table(store).to_pandas()
    lines: list[str] = []
    for part, columns in _COLUMNS.items():
        selected = rows[rows["part"] == part]
        if selected.empty:
            continue
        if part in ("fault", "growth"):
            last = selected.groupby("kind")["measured_at"].transform("max")
        else:
            last = selected["measured_at"].max()
        selected = selected[selected["measured_at"] == last]
        values = pd.DataFrame(list(map(json.loads, selected["values"])), index=selected["kind"])
        lines += [f"| {_HEADS[part]} | {' | '.join(columns.values())} |"]
        lines.append("|---" * (len(columns) + 1) + "|")
        for kind, one in values.iterrows():
            lines.append(f"| {kind} | {' | '.join(_text(one[name]) for name in columns)} |")
        if part not in ("soak", "growth"):
            sums = [
                _text(values[n].max() if n == "slowest_s" else values[n].sum()) for n in columns
            ]
            lines.append(f"| **all** | {' | '.join(f'**{text}**' for text in sums)} |")
        if part == "fault" and (skipped := values[values["skipped"] > 0]["skipped"].to_dict()):
            names = ", ".join(f"{kind} ({count:.0f})" for kind, count in skipped.items())
            lines += ["", f"Skipped, since no file system could be mounted: {names}."]
        lines.append("")
        runs = [run for _, run in selected.groupby("measured_at", sort=False)]
        largest = max(map(len, runs))
        lines += [_origin(run, named=len(run) < largest) for run in runs]
        lines.append("")
    return "\n".join(lines[:-1])


def _origin(rows: pd.DataFrame, *, named: bool) -> str:
    """Hardware, seed, commit and date of one run; with the names of its rows if ``named``."""
    one = rows.iloc[0]
    day, commit = one["measured_at"].date().isoformat(), (one["git_commit"] or "?")[:9]
    which = f"{', '.join(rows['kind'])}: " if named else ""
    return f"{which}{one['hardware']}; seed {one['seed']}; commit {commit}, {day}."


def _text(value: Any) -> str:
    return f"{value:,.1f}" if isinstance(value, float) and value % 1 else f"{value:,.0f}"
