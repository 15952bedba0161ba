"""Paired measurements of the plain way and ours, and the Parquet file that keeps them."""

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
        ("figures", pa.string()),
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
        part: what of a study it is: "epoch", "refresh", ...
        case: sizes, in words.
        plain_s, ours_s: median seconds; None where that way was not timed.
        ratio: median over the rounds of plain / ours.
        rounds: how often both were run, in turn.
        figures: further numbers by name.
    """

    part: str
    case: str
    plain_s: float | None
    ours_s: float | None
    ratio: float | None
    rounds: int
    figures: dict[str, Any] = field(default_factory=dict)


def in_turn(plain: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Run both ways once unmeasured, then ``rounds`` times in turn.

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


def seconds(work: Callable[[], Any]) -> float:
    gc.collect()
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


class OwnProcess:
    """Work that is done in a process of its own, so that nothing that ours sets up helps it.

    Args:
        make: called there once with ``arguments``; what it returns is called for each piece of work and
            timed there.
    """

    def __init__(self, make: Callable[..., Callable[[], Any]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, make, arguments))
        self._process.start()

    def __call__(self) -> None:
        """Do the work once and wait for its end."""
        self._pipe.send(True)
        answer = self._pipe.recv()
        if isinstance(answer, BaseException):
            raise answer

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
    """Bytes of the new tensors that exist at most at once while it works, results included."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        work()
    changes = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for change in sorted(changes, key=lambda e: e.start_ns()):
        held += change.nbytes()
        peak = max(peak, held)
    return int(peak)


def keep(measured: list[Measured], store: Path) -> None:
    """Add rows to the file, with where and when they were measured."""
    facts = describe_environment(None)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    common = {
        "hardware": f"{facts['cpu_count']} CPUs, {gpu}",
        "versions": ", ".join(f"{n} {v}" for n, v in facts["packages"].items() if v),
        "git_commit": facts["git_commit"],
        "measured_at": datetime.now(UTC).replace(microsecond=0),
    }
    rows = [{**vars(one), "figures": json.dumps(one.figures), **common} for one in measured]
    table = pa.Table.from_pylist(rows, schema=_SCHEMA)
    if store.exists():
        table = pa.concat_tables([pq.read_table(store, schema=_SCHEMA), table])
    temporary = store.with_suffix(".part")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(store)


def latest(store: Path) -> pd.DataFrame:
    """The last measurement of each part and case, in the order in which they were first made."""
    table = pq.read_table(store).to_pandas()
    last = table.groupby(["part", "case"], sort=False).tail(1).set_index(["part", "case"])
    order = table.drop_duplicates(["part", "case"]).set_index(["part", "case"]).index
    found: pd.DataFrame = last.loc[order].reset_index()
    return found
