"""Paired measurements of a plain implementation and ours, and the Parquet file that stores them."""

from __future__ import annotations

import gc
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bbam_ray.results.study import describe_environment

STORE = Path(__file__).with_name("measurements.parquet")
_SCHEMA = pa.schema(
    [
        ("part", pa.string()),
        ("case", pa.string()),
        ("plain_s", pa.float64()),
        ("ours_s", pa.float64()),
        ("ratio", pa.float64()),
        ("rounds", pa.int32()),
        ("details", pa.string()),
        ("hardware", pa.string()),
        ("versions", pa.string()),
        ("git_commit", pa.string()),
        ("measured_at", pa.timestamp("s", tz="UTC")),
    ]
)


@dataclass(frozen=True)
class Measured:
    """One comparison.

    Args:
        part: of a study: "epoch", "refresh", ...
        case: sizes, in words.
        plain_s, ours_s: median seconds; None where that implementation was not timed.
        ratio: median over the rounds of plain / ours.
        rounds: how often both were run, alternating.
        details: other values by name.
    """

    part: str
    case: str
    plain_s: float | None
    ours_s: float | None
    ratio: float | None
    rounds: int
    details: dict[str, Any] = field(default_factory=dict)


def alternate(plain: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Time two implementations: one run of each as a warm-up, then ``rounds`` alternating runs.

    Returns:
        plain_s, ours_s, ratio and rounds of ``Measured``.
    """
    plain(), ours()
    pairs = [(seconds(plain), seconds(ours)) for _ in range(rounds)]
    return {
        "plain_s": median(a for a, _ in pairs),
        "ours_s": median(b for _, b in pairs),
        "ratio": median(a / b for a, b in pairs),
        "rounds": rounds,
    }


def timed_alone(work: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Time one implementation after a warm-up; the same values as ``alternate``, without a plain one."""
    work()
    ours = median(seconds(work) for _ in range(rounds))
    return {"plain_s": None, "ours_s": ours, "ratio": None, "rounds": rounds}


def seconds(work: Callable[[], Any]) -> float:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


class SeparateProcess:
    """Work in a separate process, so that the settings of this process do not affect it.

    Args:
        make: called once in that process with ``arguments``; returns the function that does the work.
        arguments: of ``make``; must be picklable.
    """

    def __init__(self, make: Callable[..., Callable[[], Any]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, make, arguments))
        self._process.start()

    def __call__(self) -> None:
        """Do the work once; raises the exception of the work."""
        self._pipe.send(True)
        error = self._pipe.recv()
        if error is not None:
            raise error

    def end(self) -> None:
        self._pipe.send(False)
        self._process.join()


def _serve(pipe: Connection, make: Callable[..., Callable[[], Any]], arguments: Any) -> None:
    work = make(*arguments)
    while pipe.recv():
        try:
            work()
            pipe.send(None)
        except Exception as error:
            pipe.send(error)


def extra_memory(work: Callable[[], Any]) -> int:
    """Peak memory of the tensors that ``work`` creates, in bytes, including its results."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        work()
    changes = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    current = peak = 0
    for change in sorted(changes, key=lambda e: e.start_ns()):
        current += change.nbytes()
        peak = max(peak, current)
    return int(peak)


def append(measured: list[Measured], store: Path) -> None:
    """Append rows to the file, with hardware, versions, commit and date."""
    facts = describe_environment(None)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    common = {
        "hardware": f"{facts['cpu_count']} CPUs, {gpu}",
        "versions": ", ".join(f"{n} {v}" for n, v in facts["packages"].items() if v),
        "git_commit": facts["git_commit"],
        "measured_at": datetime.now(UTC).replace(microsecond=0),
    }
    rows = [{**vars(one), "details": json.dumps(one.details), **common} for one in measured]
    table = pa.Table.from_pylist(rows, schema=_SCHEMA)
    if store.exists():
        table = pa.concat_tables([pq.read_table(store, schema=_SCHEMA), table])
    temporary = store.with_suffix(".part")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(store)


def latest(store: Path) -> pd.DataFrame:
    """The newest row of each part and case, in the order of their first rows."""
    table = pq.read_table(store).to_pandas()
    last = table.groupby(["part", "case"], sort=False).tail(1).set_index(["part", "case"])
    order = table.drop_duplicates(["part", "case"]).set_index(["part", "case"]).index
    newest: pd.DataFrame = last.loc[order].reset_index()
    return newest


def last_measured(store: Path) -> dict[tuple[str, str], str]:
    """Commit and day of the newest row with a time, by part and case."""
    table = pq.read_table(store).to_pandas()
    rows = table[table["ours_s"].notna()]
    return {
        (row["part"], row["case"]): f"{(row['git_commit'] or 'unknown')[:9]}, "
        f"{row['measured_at'].date().isoformat()}"
        for _, row in rows.iterrows()
    }
