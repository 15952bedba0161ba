"""Means, the best, and what is noise, against scipy on random tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from bbam_ray.core.metric_names import HEADLINE_METRICS
from bbam_ray.report import method_comparison as table
from bbam_ray.results.comparison import compared, paired_p_value

NUMBERS = st.floats(0, 1).map(lambda value: round(value, 3))


def row(entry: str, seed: int, value: float, fraction: float = 0.1, **more: Any) -> dict[str, Any]:
    figures = {f"test_{name}": value for name in HEADLINE_METRICS}
    common = {"entry": entry, "seed": seed, "labeled_fraction": fraction, "error": None}
    return {**common, **figures, "seconds_per_epoch": 2.0, "vdfd_mean": None, **more}


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=8))
def test_the_paired_test_is_that_of_scipy(pairs: list[tuple[float, float]]) -> None:
    differences = np.array([a - b for a, b in pairs])
    found = paired_p_value(pairs)
    if np.ptp(differences) < 1e-9:
        return  # no deviation: see below
    assert found == pytest.approx(float(ttest_rel(*zip(*pairs, strict=True)).pvalue), abs=1e-9)


def test_pairs_without_deviation_differ_for_certain_or_not_at_all() -> None:
    assert paired_p_value([(0.5, 0.5), (0.25, 0.25)]) == 1.0
    assert paired_p_value([(0.5, 0.25), (0.75, 0.5)]) == 0.0
    assert paired_p_value([(0.5, 0.25)]) is None


def test_mean_deviation_and_the_best_of_each_fraction() -> None:
    rows = [row("a", s, v) for s, v in enumerate((0.5, 0.6, 0.7))]
    rows += [row("b", s, v) for s, v in enumerate((0.4, 0.5, 0.6))]
    rows += [row("b", 0, 0.9, 0.2), row("a", 0, 0.3, 0.2)]
    a, b, later_a, later_b = compared(rows)
    assert [(line.labeled_fraction, line.entry) for line in (a, b, later_a, later_b)] == [
        *((0.1, "a"), (0.1, "b"), (0.2, "a"), (0.2, "b"))
    ]
    cell = a.cells["map"]
    assert cell.mean == pytest.approx(0.6) and cell.deviation == pytest.approx(0.1)
    assert cell.best and not b.cells["map"].best and cell.seeds == 3
    assert b.cells["hamming_loss"].best and not a.cells["hamming_loss"].best  # lower is better
    assert later_b.cells["map"].best and later_b.cells["map"].deviation is None


def test_what_cannot_be_told_from_the_best_is_marked() -> None:
    rows = [row("best", s, 0.8 + 0.001 * s) for s in range(5)]
    rows += [row("near", s, 0.795 + 0.02 * (-1) ** s) for s in range(5)]
    rows += [row("far", s, 0.7 + 0.001 * s * (-1) ** s) for s in range(5)]
    rows = [{**r, "test_hamming_loss": 1 - r["test_map"]} for r in rows]
    best, near, far = compared(rows)
    assert not best.cells["map"].within_noise
    assert near.cells["map"].within_noise and not far.cells["map"].within_noise


def test_failed_runs_are_left_out() -> None:
    rows = [row("a", 0, 0.5), row("a", 1, float("nan"), error="not finite")]
    (line,) = compared(rows)
    assert line.cells["map"].seeds == 1 and line.cells["map"].mean == 0.5


def test_only_common_seeds_are_paired() -> None:
    rows = [row("a", s, v) for s, v in ((0, 0.9), (1, 0.8), (2, 0.7))]
    rows += [row("b", s, v) for s, v in ((1, 0.1), (2, 0.3), (7, 0.9))]
    b = compared(rows)[1]
    assert b.cells["map"].p_value == pytest.approx(ttest_rel([0.8, 0.7], [0.1, 0.3]).pvalue)


def test_the_table_shows_the_best_in_bold_and_noise_with_a_mark() -> None:
    rows = [row("a|b", s, v, vdfd_mean=0.01234) for s, v in enumerate((0.5, 0.6))]
    rows += [row("<c>", s, v) for s, v in enumerate((0.4, 0.7))]
    text = table.comparison_markdown(compared(rows))
    head, rule, first, second, _, legend = text.splitlines()
    assert head.count("|") == rule.count("|") == second.count("|") == 10
    assert first.replace("\\|", "").count("|") == 10  # an escaped one is no border
    assert "**0.550 ± 0.071**" in first and "0.550 ± 0.212" in second
    assert "0.0123" in first and "2.00" in first and legend == table.LEGEND
    page = table.comparison_html("t", compared(rows), "bbam-ray compare --methods 'a&b'")
    assert "&lt;c&gt;" in page and "<c>" not in page and "a&amp;b" in page
    assert "<b>0.550 ± 0.071</b>" in page


def test_the_legend_says_that_a_single_seed_is_not_tested() -> None:
    text = table.comparison_markdown(compared([row("a", 0, 0.5), row("b", 0, 0.1)]))
    assert text.splitlines()[-1] == table.LEGEND + table.UNTESTED
