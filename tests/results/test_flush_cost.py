"""What a flush costs does not depend on the number of trials: files, bytes, memory, time for merges."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bbam_ray.results import parts
from bbam_ray.results import store as stores
from bbam_ray.results.epoch_rows import put_epoch
from bbam_ray.results.store import StudyStore, Table, read_table

LABELS = [f"label {n}" for n in range(10)]


def end_trial(store: StudyStore, number: int) -> None:
    """A trial of three epochs, with values that no compression makes smaller."""
    identity = {"study": "s", "trial_id": f"t{number:05d}", "number": number}
    draw = random.Random(number).random
    for epoch in (1, 2, 3):
        angles = [[float(int(60 * draw())) for _ in range(60)] for _ in LABELS]
        labels = {"prior": [draw() for _ in LABELS], "vdfd": [draw() for _ in LABELS]}
        labels |= {"angles_positive": angles, "angles_negative": angles}
        scalars = {"epoch": epoch, "val_map": draw(), "loss": draw(), "lr": draw()}
        put_epoch(store, identity, scalars, labels, LABELS)
    store.end_trial(identity | {"state": "COMPLETE", "epochs": 3, "val_map": draw()})


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and size of the files that readers see."""
    found = {}
    for path in folder.rglob("*.parquet"):
        if ".previous" not in path.parts:
            status = path.stat()
            found[path.as_posix()] = status.st_ino, status.st_size
    return found


def written(folder: Path, store: StudyStore) -> list[int]:
    """Sizes of the files that a flush writes."""
    before = files(folder)
    store.flush()
    return [
        size for path, (inode, size) in files(folder).items() if before.get(path) != (inode, size)
    ]


def test_a_part_has_the_rows_of_one_flush_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_SMALL_BYTES", 0)
    monkeypatch.setattr(stores, "_MERGE_SHARE", 1e-9)
    store = StudyStore(tmp_path, {})
    sizes = []
    for number in range(300):
        end_trial(store, number)
        sizes.append(written(tmp_path, store))
    assert {len(each) for each in sizes[10:]} == {3}  # labels, history, trials
    early, late = (sum(map(sum, sizes[n : n + 10])) / 10 for n in (10, 290))
    assert abs(late - early) < 0.05 * early


def test_bytes_for_a_trial_stay_the_same_with_merges(tmp_path: Path) -> None:
    """The first trials rewrite the small files; later ones write parts, and now and then new files."""
    store = StudyStore(tmp_path, {})
    sizes = []
    for number in range(300):
        end_trial(store, number)
        sizes.append(sum(written(tmp_path, store)))
    assert max(sizes[:20]) < 2 * stores._SMALL_BYTES
    assert sum(sizes[200:]) / 100 < 1.5 * sum(sizes[10:60]) / 50
    whole = sum(path.stat().st_size for path in tmp_path.glob("*.parquet"))
    store.finish()
    assert len(pq.read_table(tmp_path / "trials.parquet")) == 300
    assert whole > 4 * sum(sizes[200:]) / 100  # a flush that rewrote all of it would be seen


def test_a_store_keeps_no_rows_of_ended_trials_in_memory(tmp_path: Path) -> None:
    store = StudyStore(tmp_path, {})

    def blocks_after(first: int, last: int) -> int:
        for number in range(first, last):
            end_trial(store, number)
            store.flush()
        store.flush(whole=True)
        gc.collect()
        return sys.getallocatedblocks()

    blocks_after(0, 50)
    before, arrow = blocks_after(50, 60), pa.total_allocated_bytes()
    after = blocks_after(60, 260)
    assert (after - before) / 200 < 12  # a number in the sets of groups, strings that Python keeps
    assert pa.total_allocated_bytes() < arrow + 50_000
    assert store.histograms == {}


# ------------------------------------------------------------------------------- merges


@pytest.fixture()
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still, except that writing a file takes 0.2 seconds."""
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(stores, "time", clock)
    monkeypatch.setattr(stores, "_SMALL_BYTES", 0)
    flush = Table.flush

    def slow(table: Table, *, whole: bool = True) -> None:
        flush(table, whole=whole)
        clock.now += 0.2 * whole

    monkeypatch.setattr(Table, "flush", slow)
    return clock


def in_files(folder: Path) -> int:
    return len(pq.read_table(folder / "trials.parquet"))


def test_parts_are_merged_when_that_takes_two_percent_of_the_time(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    store = StudyStore(tmp_path, {})
    end_trial(store, 0)
    store.flush()
    assert in_files(tmp_path) == 1 and clock.now == pytest.approx(101.0)  # five tables
    for number, now in ((1, 102.0), (2, 149.9)):
        clock.now = now
        assert not store.merge_is_due
        end_trial(store, number)
        store.flush()
        assert (
            in_files(tmp_path) == 1 and len(read_table(tmp_path / "trials.parquet")) == number + 1
        )
    clock.now = 150.1  # also if nothing is written for a while
    assert store.merge_is_due
    store.flush()
    assert in_files(tmp_path) == 3 and not store.merge_is_due
    clock.now += 1000.0
    assert not store.merge_is_due  # there are no parts
    end_trial(store, 3)
    store.flush()
    assert in_files(tmp_path) == 4


def test_the_number_of_parts_is_limited(
    tmp_path: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_MOST_PARTS", 5)
    store = StudyStore(tmp_path, {})
    store.flush()
    for number in range(12):
        end_trial(store, number)
        store.flush()
        assert number + 1 - in_files(tmp_path) < 5
        # those of two merges: the previous version of the file may be needed
        assert len(parts.part_numbers(tmp_path / "trials.parquet")) <= 10


def test_small_tables_have_no_parts(tmp_path: Path) -> None:
    store = StudyStore(tmp_path, {})
    for number in range(5):
        end_trial(store, number)
        store.flush()
        assert in_files(tmp_path) == number + 1
    assert not (tmp_path / parts.FOLDER).exists()


def test_a_part_is_written_before_the_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that new rows are safe before the time that a merge takes."""
    monkeypatch.setattr(stores, "_SMALL_BYTES", 0)
    store = StudyStore(tmp_path, {})
    store.flush()
    end_trial(store, 0)
    order: list[str] = []
    flush = Table.flush

    def logged(table: Table, *, whole: bool = True) -> None:
        order.append("file" if whole else "part")
        flush(table, whole=whole)

    monkeypatch.setattr(Table, "flush", logged)
    store.flush(whole=True)
    assert order == ["part"] * 5 + ["file"] * 5


# ------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("chosen", [None, "mimalloc"])
def test_arrow_takes_and_returns_memory_of_the_system(chosen: str | None) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("ARROW_")}
    env |= {"ARROW_DEFAULT_MEMORY_POOL": chosen} if chosen else {}
    code = "import bbam_ray, pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    ended = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == (chosen or "system")
