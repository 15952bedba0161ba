"""The Parquet file of what ``stress.chaos`` has found, and the tables made of it."""

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
        ("figures", pa.string()),
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
        "lost_or_doubled": "trials lost or doubled",
        "unreadable": "times unreadable",
        "other_figures": "other figures than undisturbed",
        "ended_badly": "hangs, wrong exit codes, other",
        "slowest_s": "slowest command, s",
    },
    "fuzz": {
        "cases": "cases",
        "accepted": "accepted",
        "refused": "refused",
        "tracebacks": "tracebacks",
        "slowest_s": "slowest, s",
    },
    "soak": {"began": "after the first tenth", "ended": "at the end", "most": "at most"},
}
_HEADS = {"fault": "disturbance", "fuzz": "reader", "soak": "of back-to-back studies"}


def keep(rows: Iterable[tuple[str, str, dict[str, Any]]], seed: int, store: Path) -> None:
    """Add rows of (part, kind, figures) to the file, with where and when they were found."""
    facts = describe_environment(None)
    common = {
        "seed": seed,
        "hardware": f"{facts['cpu_count']} CPUs, no GPU",
        "versions": ", ".join(f"{n} {v}" for n, v in facts["packages"].items() if v),
        "git_commit": facts["git_commit"],
        "measured_at": datetime.now(UTC).replace(microsecond=0),
    }
    new = [
        {"part": part, "kind": kind, "figures": json.dumps(figures), **common}
        for part, kind, figures in rows
    ]
    table = pa.Table.from_pylist(new, schema=_SCHEMA)
    if store.exists():
        table = pa.concat_tables([pq.read_table(store, schema=_SCHEMA), table])
    with atomic_file(store) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def table(store: Path) -> str:
    """Markdown: what the last run of each part has found; of disturbances, the last run with each kind."""
    rows = pq.read_table(store).to_pandas()
    lines: list[str] = []
    for part, columns in _COLUMNS.items():
        mine = rows[rows["part"] == part]
        if mine.empty:
            continue
        if part == "fault":
            last = mine.groupby("kind")["measured_at"].transform("max")
        else:
            last = mine["measured_at"].max()
        mine = mine[mine["measured_at"] == last]
        figures = pd.DataFrame(list(map(json.loads, mine["figures"])), index=mine["kind"])
        lines += [f"| {_HEADS[part]} | {' | '.join(columns.values())} |"]
        lines.append("|---" * (len(columns) + 1) + "|")
        for kind, one in figures.iterrows():
            lines.append(f"| {kind} | {' | '.join(_text(one[name]) for name in columns)} |")
        if part != "soak":
            sums = [
                _text(figures[n].max() if n == "slowest_s" else figures[n].sum()) for n in columns
            ]
            lines.append(f"| **all** | {' | '.join(f'**{text}**' for text in sums)} |")
        if part == "fault" and (out := figures[figures["left_out"] > 0]["left_out"].to_dict()):
            told = ", ".join(f"{kind} ({count:.0f})" for kind, count in out.items())
            lines += ["", f"Left out, since no file system could be mounted: {told}."]
        lines.append("")
        runs = [run for _, run in mine.groupby("measured_at", sort=False)]
        most = max(map(len, runs))
        lines += [_where(run, named=len(run) < most) for run in runs]
        lines.append("")
    return "\n".join(lines[:-1])


def _where(rows: pd.DataFrame, *, named: bool) -> str:
    """On what and when the rows of one run were measured; named where they are the fewer ones."""
    one = rows.iloc[0]
    day, commit = one["measured_at"].date().isoformat(), (one["git_commit"] or "?")[:9]
    which = f"{', '.join(rows['kind'])}: " if named else ""
    return f"{which}{one['hardware']}; seed {one['seed']}; commit {commit}, {day}."


def _text(value: Any) -> str:
    return f"{value:,.1f}" if isinstance(value, float) and value % 1 else f"{value:,.0f}"
