"""Tables of texts, and numbers as texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Table:
    """A table of plain texts.

    Args:
        name: for screen readers.
        columns: the header of each column.
        rows: a text per column.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def number_text(value: Any) -> str:
    """A value with up to four significant digits; empty for a missing one."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def decimals(value: float, digits: int = 4) -> str:
    """A number with a fixed number of decimals."""
    return f"{value:.{digits}f}"
