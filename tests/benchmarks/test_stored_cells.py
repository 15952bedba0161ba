"""Measured cells are stored at once, and not measured again."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.stored_cells import Values, cell_parser, measure_missing, read_cells


def test_only_missing_cells_are_measured_and_each_is_stored_at_once(tmp_path: Path) -> None:
    store, measured = tmp_path / "cells.parquet", []

    def measure(cell: Values) -> Values:
        measured.append(cell["seed"])
        if cell["seed"] == 3 and measured.count(3) == 1:
            raise RuntimeError("interrupted")
        return {"value": cell["seed"] / 2}

    assert read_cells(store).empty
    cells = [{"set": name, "seed": seed} for name, seed in (("a", 1), ("b", 2), ("a", 3))]
    with pytest.raises(RuntimeError, match="interrupted"):
        measure_missing(store, cells, measure)
    assert read_cells(store)["seed"].tolist() == [1, 2]
    measure_missing(store, [*cells, {"set": "b", "seed": 1}], measure)
    assert measured == [1, 2, 3, 3, 1]
    assert read_cells(store)["value"].tolist() == [0.5, 1.0, 1.5, 0.5]


def test_options_of_a_benchmark_are_lists_with_defaults() -> None:
    parser = cell_parser("text", range(3), sets=("a", "b"), methods=("m",))
    arguments = parser.parse_args([])
    assert (arguments.sets, arguments.methods, arguments.seeds) == (["a", "b"], ["m"], [0, 1, 2])
    assert arguments.data == Path("data") and arguments.write is None and not arguments.table
    arguments = parser.parse_args(["--sets", "c,d", "--seeds", "4,10", "--write", "x.md"])
    assert (arguments.sets, arguments.seeds) == (["c", "d"], [4, 10])
    assert arguments.write == Path("x.md")
