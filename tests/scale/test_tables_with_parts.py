"""A search whose tables have parts makes the decisions of one whose tables are single files."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bbam_ray.results import parts
from bbam_ray.results.store import read_table
from stress.stored_study import without_times

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

SCRIPT = Path(__file__).with_name("parts_script.py")
TRIALS = 16
TINY = {"scenes": 150, "test_scenes": 60, "labeled_fraction": 0.4, "warmup_passes": 1}
TINY |= {"hidden_dim": 16, "feature_dim": 8}


def arguments(results: Path, name: str) -> list[str]:
    """TPE, and trials that are pruned: both depend on the results of earlier trials."""
    flags = ["--results", str(results), "--name", name, "--num-samples", str(TRIALS), "--seed", "3"]
    flags += ["--scheduler", "asha", "--reduction-factor", "2", "--max-concurrent", "2"]
    flags += ["--epochs", "5", "--warmup-epochs", "1", "--confirm-seeds", "0", "--folds", "1"]
    flags += ["--no-dashboard", "--no-reuse"]
    return flags + [part for name, value in TINY.items() for part in ("--set", f"{name}={value}")]


def test_a_killed_and_resumed_search_with_parts_ends_like_one_with_single_files(
    tmp_path: Path, launch: Callable[..., Any]
) -> None:
    results = tmp_path / "results"
    single = launch("launch/tune.py", *arguments(results, "single"))
    assert single.finish() == 0, single.output
    folder = results / "digits" / "parts"
    trials = folder / "trials.parquet"
    first = launch(SCRIPT, *arguments(results, "parts"))
    first.until(lambda: trials.exists() and len(read_table(trials)) >= 5)
    os.kill(first.pid, signal.SIGKILL)
    first.kill()
    ended = read_table(trials).to_pandas()
    assert len(pd.read_parquet(trials)) == 0 and len(parts.part_numbers(trials)) >= 5
    second = launch(SCRIPT, *arguments(results, "parts"), "--resume")
    assert second.finish() == 0, second.output
    assert not (folder / parts.FOLDER).exists()
    for name in ("trials", "history", "labels"):
        frames = [
            without_times(pd.read_parquet(results / "digits" / study / f"{name}.parquet"))
            for study in ("single", "parts")
        ]
        pd.testing.assert_frame_equal(*frames)  # bit by bit
    after = pd.read_parquet(trials)
    assert set(after["state"]) == {"COMPLETE", "PRUNED"}
    unchanged = after[after["number"].isin(ended["number"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(unchanged, ended)  # none was trained again
