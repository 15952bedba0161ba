"""What the driver of a search holds open does not depend on the number of ended trials.

Memory and time are measured by ``python -m stress.long_study``, since they need hundreds of trials.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from stress import long_study
from stress.chaos_results import append, table


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_files_threads_processes_and_folders_do_not_grow() -> None:
    rows = long_study.run(90, 1, "now: ")
    assert [row[:2] for row in rows] == [
        ("growth", "now: 30 trials"),
        ("growth", "now: 90 trials"),
    ]
    early, late = (values for _, _, values in rows)
    for name in ("open_files", "threads", "processes"):
        assert late[name] <= early[name] + 3, name  # one for each of 60 trials would be seen
    assert late["temporary_MB"] < 1 and late["ray_MB"] < 5
    assert late["tables_MB"] > early["tables_MB"]  # so these were the folders of the study


def test_the_last_run_of_each_prefix_is_shown(tmp_path: Path) -> None:
    store = tmp_path / "growth.parquet"

    def store_run(prefix: str, memory: float) -> None:
        names = ("flush_ms", "slowest_flush_ms", "open_files", "threads", "processes", "parts")
        names += ("tables_MB", "checkpoints_MB", "ray_MB", "temporary_MB")
        values = dict.fromkeys(names, 1.0) | {"driver_MB": memory}
        append([("growth", f"{prefix}90 trials", values)], 0, store)

    store_run("before: ", 800)
    store_run("", 600)
    lines = table(store).splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:4]] == [
        ["| before: 90 trials", "800"],
        ["| 90 trials", "600"],
    ]
