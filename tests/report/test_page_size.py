"""The size of a report: below 2 MB also for many trials, with every value of its tables in full."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bbam_ray.report.study_report import write_report
from bbam_ray.results.study import StudyRecord

LIMIT = 2_000_000  # bytes
MORE_SETTINGS = tuple(f"setting_{letter}" for letter in "abcde")


@pytest.fixture(params=[100, 1000])
def large(
    request: pytest.FixtureRequest, write_study: Callable[..., Path], tmp_path: Path
) -> tuple[Path, int]:
    """A study with ten settings and standard errors over five folds, and its number of trials."""
    trials = request.param
    folder = write_study(
        tmp_path / "large",
        trials=trials,
        labels=20 if trials == 100 else 1,
        failed=trials // 50,
        pruned=trials // 5,
        epochs=13 if trials == 100 else 3,
        settings={"labeled_fraction": 0.05, "folds": 5},
    )
    record = StudyRecord.open(folder)
    space = record.content["space"]
    table = pq.read_table(folder / "trials.parquet")
    generator = np.random.default_rng(0)
    for name in MORE_SETTINGS:
        space["parameters"][name] = {"type": "float", "low": 0.0, "high": 1.0}
        table = table.append_column(f"param_{name}", pa.array(generator.random(trials)))
    errors = pa.array(0.01 * generator.random(trials))
    column = table.schema.get_field_index("standard_error")
    table = table.set_column(column, "standard_error", errors)
    pq.write_table(table, folder / "trials.parquet")
    record.update(space=space)
    return folder, trials


def test_a_report_is_small_and_complete(large: tuple[Path, int]) -> None:
    folder, trials = large
    page = write_report(folder)
    assert page.stat().st_size < LIMIT
    source = page.read_text(encoding="utf-8")
    body = source.split('<table class="sortable">')[1].split("</table>")[0].split("<tbody>")[1]
    rows = body.split("<tr")[1:]
    assert len(rows) == trials
    by_number = {int(m[1]): row for row in rows if (m := re.search(r"<td[^>]*>(\d+)", row))}
    stored = pq.read_table(folder / "trials.parquet").to_pylist()
    for row in (stored[0], stored[trials // 2]):
        for name in ("val_map", "standard_error", *(f"param_{s}" for s in MORE_SETTINGS)):
            value = row[name]
            cells = re.findall(r'<td(?: data-value="([^"]*)")?>([^<]*)', by_number[row["number"]])
            assert value in [
                float(full or text) for full, text in cells if _is_number(full or text)
            ]


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"-?[\d.]+(e-?\d+)?", text))
