"""What a search pays: the tables from rows by hand, and the pages that hold them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bbam_ray.methods import BASELINES
from benchmarks import regret
from benchmarks.regret_table import gains_table, interval, short_table, write_tables
from benchmarks.stored_cells import read_cells

ROOT = Path(__file__).parents[2]


def row(seed: int, final: float, published: float, **other: object) -> dict[str, object]:
    """A cell whose only baseline of use is the first; the others are at 0.1."""
    baselines = {f"{name}_map": 0.1 for name in BASELINES} | {f"{BASELINES[0]}_map": 0.5}
    cell = {"set": "scene", "method": "bbam", "seed": seed, "budget": 8, "rule": "folds"}
    return {**cell, "test_map": final, "published_map": published, **baselines, **other}


def test_the_short_table_has_means_and_intervals_over_seeds() -> None:
    data = pd.DataFrame(
        [
            row(0, 0.7, 0.6),
            row(1, 0.8, 0.65),
            row(0, 0.9, 0.1, method="cap"),
            row(0, 0.9, 0.1, budget=16),
            row(0, 0.9, 0.1, rule="one fold"),
            row(0, 0.4, 0.6, set="yeast"),
        ]
    )
    lines = short_table(data).splitlines()[2:]
    # Differences of 10 and 15 points: standard error 2.5, and t = 12.706 with one degree of freedom.
    assert lines == [
        "| scene | 2 | 0.750 | +12.5 [-19.3, +44.3] | +25.0 [-38.5, +88.5] |",
        "| yeast | 1 | 0.400 | -20.0 | -10.0 |",
    ]


def test_intervals_leave_out_what_was_not_measured() -> None:
    assert interval(pd.Series([float("nan")])) == ""
    assert interval(pd.Series([float("nan"), 0.031])) == "+3.1"


def test_without_rows_nothing_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- gains -->\nold\n<!-- /gains -->\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="has no rows yet"):
        write_tables(pd.DataFrame(), None, page)
    assert "old" in page.read_text(encoding="utf-8")


def test_the_tables_of_the_pages_are_those_of_the_store() -> None:
    data = read_cells(regret.STORE)
    assert short_table(data) in (ROOT / "README.md").read_text(encoding="utf-8")
    assert gains_table(data) in (ROOT / "docs" / "regret.md").read_text(encoding="utf-8")
