"""Searches that are killed, run side by side, or stop trials of Ray Train: minutes each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bbam_ray.results.store import read_table
from stress.stored_study import without_times

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

TINY = {"scenes": 150, "test_scenes": 60, "labeled_fraction": 0.4, "warmup_passes": 1}
TINY |= {"hidden_dim": 16, "feature_dim": 8}
SETTINGS = [part for name, value in TINY.items() for part in ("--set", f"{name}={value}")]


def arguments(results: Path, name: str, *more: str) -> list[str]:
    common = ["--epochs", "6", "--warmup-epochs", "2", "--confirm-seeds", "0", "--no-dashboard"]
    common += ["--folds", "1"]
    where = ["launch/tune.py", "--results", str(results), "--name", name, "--no-reuse"]
    return [*where, *common, *SETTINGS, *more]


def frame(results: Path, name: str, table: str) -> pd.DataFrame:
    return read_table(results / "digits" / name / f"{table}.parquet").to_pandas()


def assert_equal(results: Path, first: str, second: str) -> None:
    for table in ("trials", "history", "labels"):
        left, right = (without_times(frame(results, name, table)) for name in (first, second))
        pd.testing.assert_frame_equal(left, right)


def test_two_studies_at_once_do_not_disturb_each_other(
    tmp_path: Path, launch: Callable[..., Any]
) -> None:
    results = tmp_path / "results"
    rules = ("--num-samples", "6", "--scheduler", "asha", "--max-concurrent", "1")
    alone = launch(*arguments(results, "alone", *rules))
    assert alone.finish() == 0, alone.output
    pair = [launch(*arguments(results, name, *rules)) for name in ("left", "right")]
    for study in pair:
        assert study.finish(300) == 0, study.output
    for name in ("left", "right"):
        assert_equal(results, name, "alone")


def test_one_study_is_not_run_twice_at_once(tmp_path: Path, launch: Callable[..., Any]) -> None:
    results = tmp_path / "results"
    first = launch(*arguments(results, "one", "--num-samples", "40"))
    first.until(lambda: (results / "digits" / "one" / "history.parquet").exists())
    second = launch(*arguments(results, "one", "--num-samples", "40", "--resume"))
    assert second.finish() == 2
    assert "is being run by another process" in second.output


@pytest.mark.parametrize("dashboard", ["--no-dashboard", "--dashboard"])
def test_trials_of_ray_train_that_stop_early_free_their_workers(
    dashboard: str, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    """Every trial needs both CPUs: one that kept its workers would hold up the next for ever."""
    results = tmp_path / "results"
    rules = ("--num-samples", "4", "--scheduler", "asha", "--reduction-factor", "2")
    nested = launch(
        *arguments(results, "nested", *rules, "--workers", "2", "--trial-runner", "train"),
        dashboard,
    )
    assert nested.finish(400) == 0, nested.output
    trials = frame(results, "nested", "trials")
    assert trials["number"].tolist() == [0, 1, 2, 3]
    assert set(trials["state"]) == {"COMPLETE", "PRUNED"}
    gang = launch(*arguments(results, "gang", *rules, "--workers", "2"))
    assert gang.finish(200) == 0, gang.output
    others = frame(results, "gang", "trials")
    assert others["state"].tolist() == trials["state"].tolist()
    assert others["epochs"].tolist() == trials["epochs"].tolist()
    gap = (others["val_map"] - trials["val_map"]).abs()
    assert gap.max() <= 0.005
