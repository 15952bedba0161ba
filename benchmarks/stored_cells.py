"""Tables of measured cells: what is stored is not measured again."""

from __future__ import annotations

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
