"""Old log files of Ray's ended processes are removed; those of running ones and all others stay."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from bbam_ray.scale.cluster import session_logs
from bbam_ray.scale.cluster.session_logs import prune, pruned_logs

ID = "1d91b0087eabc7a2ea199949cd6fc1f89603d78d822bafe0ee1c7cde"
NEVER_A_PROCESS = 2**22  # Linux has no larger process number


def names_of(process: int) -> set[str]:
    """As Ray names them."""
    job = f"worker-{ID}-01000000-{process}"
    return {f"python-core-worker-{ID}_{process}.log", f"{job}.out", f"{job}.err", f"{job}.out.1"}


def write_logs(logs: Path, processes: range) -> None:
    logs.mkdir(exist_ok=True)
    for age, process in enumerate(processes):
        for name in names_of(process):
            (logs / name).write_text("x")
            os.utime(logs / name, (1e9 - age, 1e9 - age))


def test_the_newest_ended_processes_keep_their_files(tmp_path: Path) -> None:
    ended = range(NEVER_A_PROCESS + 1, NEVER_A_PROCESS + 8)
    write_logs(tmp_path, ended)
    more = {"raylet.out", "gcs_server.out", "worker-notes.txt", f"worker-{ID}-x.err"}
    running = names_of(os.getpid())
    for name in more | running:
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (1e8, 1e8))
    prune(tmp_path, keep=3)
    kept = set.union(*(names_of(process) for process in ended[:3]))
    assert {path.name for path in tmp_path.iterdir()} == kept | more | running
    prune(tmp_path, keep=3)
    assert {path.name for path in tmp_path.iterdir()} == kept | more | running


def test_a_folder_that_is_missing_is_no_error(tmp_path: Path) -> None:
    prune(tmp_path / "missing")


def test_it_happens_while_the_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_logs, "_SECONDS", 0.01)
    count = session_logs.KEPT_PROCESSES + 5
    write_logs(tmp_path / "logs", range(NEVER_A_PROCESS + 1, NEVER_A_PROCESS + 1 + count))
    before = threading.active_count()
    with pruned_logs(tmp_path):
        until = time.monotonic() + 20
        while len(list((tmp_path / "logs").iterdir())) > 4 * session_logs.KEPT_PROCESSES:
            assert time.monotonic() < until
            time.sleep(0.01)
    assert threading.active_count() == before
