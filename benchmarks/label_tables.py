"""How long tables of labels take to read, and the memory that it needs.

    python -m benchmarks.label_tables

Prints seconds (the median of three) and the peak memory above that of the empty process, for each table.
The tables are written to a temporary folder from a fixed seed; each is read in a process of its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bbam_ray.data.formats.labels.options import LabelOptions
from bbam_ray.data.formats.labels.reader import read_labels
from bbam_ray.data.formats.tables import read_user_table


def _labels(rows: int, columns: int) -> np.ndarray:
    return (np.random.default_rng(0).random((rows, columns)) < 0.1).astype(np.uint8)


def _names(row: np.ndarray) -> list[str]:
    return [f"label {column}" for column in np.flatnonzero(row)]


def _wide(path: Path, rows: int, columns: int, words: int) -> None:
    """A CSV with a text in quotes and a column of 0 and 1 for each label."""
    text = '"' + "some words, of a text " * words + '"'
    lines = ["id,text," + ",".join(f"label {column}" for column in range(columns))]
    for number, row in enumerate(_labels(rows, columns)):
        lines.append(f"{number:08x},{text}," + ",".join(map(str, row.tolist())))
    path.write_text("\n".join(lines) + "\n")


def _separated(path: Path, rows: int, columns: int) -> None:
    lines = [f"{n},{'|'.join(_names(row))}" for n, row in enumerate(_labels(rows, columns))]
    path.write_text("id,labels\n" + "\n".join(lines) + "\n")


def _lists(path: Path, rows: int, columns: int) -> None:
    lines = [
        json.dumps({"id": n, "labels": _names(r)}) for n, r in enumerate(_labels(rows, columns))
    ]
    path.write_text("\n".join(lines) + "\n")


def _vectors(path: Path, rows: int, columns: int) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(_labels(rows, columns).reshape(-1)), columns
    )
    pq.write_table(pa.table({"labels": vectors}), path)
    (path.parent / "labels.txt").write_text("".join(f"label {k}\n" for k in range(columns)))


TABLES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "160,000 x 6, CSV with texts of 440 characters": ("a.csv", lambda p: _wide(p, 160_000, 6, 20)),
    "40,000 x 80, CSV": ("b.csv", lambda p: _wide(p, 40_000, 80, 1)),
    "10,000 x 1,000, CSV": ("c.csv", lambda p: _wide(p, 10_000, 1_000, 1)),
    "160,000 rows of 6 labels, separated by a bar": ("d.csv", lambda p: _separated(p, 160_000, 6)),
    "40,000 rows of 80 labels, separated by a bar": ("e.csv", lambda p: _separated(p, 40_000, 80)),
    "40,000 lists of 80 labels, JSON lines": ("f.jsonl", lambda p: _lists(p, 40_000, 80)),
    "10,000 vectors of 1,000, Parquet": ("g.parquet", lambda p: _vectors(p, 10_000, 1_000)),
}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _measure(path: Path) -> dict[str, float]:
    """Seconds, and bytes above the empty process, of reading a table."""
    before, times = _peak(), []
    for _ in range(3):
        started = time.perf_counter()
        table = read_user_table(path)
        read_labels(
            [(table, None)],
            LabelOptions.build({"blank": "negative"}, "benchmark"),
            ignored=("id", "text"),
            names_file=path.parent / "labels.txt",
        )
        times.append(time.perf_counter() - started)
    return {"seconds": median(times), "bytes": _peak() - before}


def _in_process(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.label_tables", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Print the table of times and memory."""
    if sys.argv[1:2] == ["write"]:
        TABLES[sys.argv[2]][1](Path(sys.argv[3]))
        return
    if sys.argv[1:2] == ["read"]:
        print(json.dumps(_measure(Path(sys.argv[2]))))
        return
    print("| table | MB | seconds | peak memory in MB |\n|---|---|---|---|")
    for name, (file, _) in TABLES.items():
        with TemporaryDirectory() as folder:
            path = Path(folder) / file
            _in_process("write", name, str(path))
            values = json.loads(_in_process("read", str(path)))
            size = path.stat().st_size / 1e6
        print(f"| {name} | {size:.0f} | {values['seconds']:.2f} | {values['bytes'] / 1e6:.0f} |")


if __name__ == "__main__":
    main()
