"""Tables of measured cells: what is stored is not measured again."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

Values = dict[str, Any]


def read_cells(store: Path) -> pd.DataFrame:
    """The rows so far; none without the file."""
    return pd.read_parquet(store) if store.exists() else pd.DataFrame()


def measure_missing(
    store: Path, cells: Iterable[Values], measure: Callable[[Values], Values]
) -> None:
    """Measure the cells that are not stored, and store each at once.

    Args:
        store: a Parquet file; its first columns name the cell.
        cells: column to value, what names a cell.
        measure: returns the values of a cell.
    """
    for cell in cells:
        rows = read_cells(store)
        if len(rows) and (rows[list(cell)] == pd.Series(cell)).all(axis=1).any():
            continue
        values = measure(cell)
        rows = pd.concat([rows, pd.DataFrame([cell | values])], ignore_index=True)
        rows.to_parquet(store, index=False)
        print(cell | values, flush=True)


def cell_parser(
    description: str | None, seeds: Iterable[int], **lists: Iterable[str]
) -> argparse.ArgumentParser:
    """Options of a benchmark of many cells: --data, --seeds, --table, --write and lists of names.

    Args:
        description: of the benchmark.
        seeds: default of --seeds.
        lists: options with comma-separated names, and their defaults.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    for name, default in lists.items():
        parser.add_argument(f"--{name}", type=lambda text: text.split(","), default=list(default))
    parser.add_argument("--seeds", type=whole_numbers, default=list(seeds))
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    parser.add_argument("--write", type=Path, metavar="FILE")
    return parser


def whole_numbers(text: str) -> list[int]:
    """The numbers of a text such as "0,1,2"."""
    return [int(part) for part in text.split(",")]
