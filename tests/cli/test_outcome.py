"""What a search prints at its end."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from bbam_ray.cli.outcome import show_result
from bbam_ray.core.metric_names import HEADLINE_METRICS

ANSWERS = ("final", "published", "logistic", "logistic+propagation")


def printed(chosen: int, tmp_path: Any) -> str:
    """What a terminal of 80 columns shows of a study that chose a trial."""
    metrics = {f"test_{name}": 0.8787 for name in HEADLINE_METRICS}
    confirmed = [
        {"rank": rank, "number": chosen, "kind": kind, "answer": kind, "seed": seed, "networks": 12}
        | metrics
        | {"test_map": 0.88 + 0.01 * seed, "error": None, "started_at": 1}
        for rank, kind in enumerate(ANSWERS, start=1)
        for seed in (0, 1)
    ]
    trials = [{"number": n, "val_map": 0.7, "best_epoch": 3, "param_scale": 20.0} for n in range(8)]
    result: Any = SimpleNamespace(
        best=trials[chosen],
        trials=trials,
        confirm=confirmed,
        failed=[],
        pruned=[],
        not_started=[],
        cannot_start=False,
        out_of_budget=False,
    )
    space = SimpleNamespace(metric="val_map", parameters=["scale"], objectives=[("val_map", "max")])
    output = io.StringIO()
    plan: Any = SimpleNamespace(space=space, num_samples=8)
    show_result(Console(file=output, width=80), tmp_path, plan, result)
    return output.getvalue()


@pytest.mark.parametrize("chosen", [0, 3])
def test_the_table_of_test_metrics_fits_into_80_columns(chosen: int, tmp_path: Any) -> None:
    text = printed(chosen, tmp_path)
    assert "…" not in text
    (row,) = (line for line in text.splitlines() if line.startswith("logistic+propagation"))
    assert row.split() == [
        "logistic+propagation",
        "0.8850",
        "+-0.0071",
        *["0.8787"] * (len(HEADLINE_METRICS) - 1),
        "12",
        "2",
    ]


def test_a_search_that_chose_the_published_settings_says_so_once(tmp_path: Any) -> None:
    text = printed(0, tmp_path)
    assert "best: trial 0 of 8, the published settings, val_map 0.7000" in text
    assert "published settings (trial 0)" not in text
    text = printed(3, tmp_path)
    assert "best: trial 3 of 8, val_map 0.7000" in text
    assert "published settings (trial 0): val_map 0.7000" in text
