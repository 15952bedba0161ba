"""An epoch in the store: exactly the columns of the schemas, histograms for the last epoch only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bbam_ray.errors import UsageError
from bbam_ray.results.epoch_rows import put_epoch
from bbam_ray.results.schemas import HISTOGRAMS
from bbam_ray.results.store import StudyStore, read_table

SCORES = {1: None, 2: 0.3, 3: 0.5, 4: 0.4, 5: 0.5, 6: 0.7, 7: 0.2}
WARMUP = (1, 2)


def put(store: StudyStore, epoch: int, score: float | None, number: int = 0, **more: Any) -> None:
    """An epoch of two labels; warm-up epochs have no histograms."""
    identity = {"study": "s", "trial_id": f"t{number:05d}", "number": number}
    labels: dict[str, Any] = {"prior": [0.1, 0.2]}
    if epoch not in WARMUP:
        labels |= {name: [[float(epoch), 1.0], [float(epoch), 2.0]] for name in HISTOGRAMS}
    put_epoch(store, identity, {"epoch": epoch, "val_map": score} | more, labels, "ab")


def epochs_with_histograms(folder: Path, number: int = 0) -> set[int]:
    rows = [r for r in read_table(folder / "labels.parquet").to_pylist() if r["number"] == number]
    for row in rows:
        assert (row[HISTOGRAMS[0]] is None) == (row[HISTOGRAMS[1]] is None)
        assert row["prior"] is not None
        assert row[HISTOGRAMS[0]] is None or row[HISTOGRAMS[0]][0] == row["epoch"]
    with_one = [row["epoch"] for row in rows if row[HISTOGRAMS[0]] is not None]
    assert all(with_one.count(epoch) == 2 for epoch in with_one)  # of both labels
    return set(with_one)


@pytest.mark.parametrize("flushes", [True, False])
def test_only_the_last_epoch_so_far_keeps_its_histograms(flushes: bool, tmp_path: Path) -> None:
    store = StudyStore(tmp_path, {})
    kept = []
    for epoch, score in SCORES.items():
        put(store, epoch, score)
        put(store, epoch, 1.0 - epoch / 10, number=1)  # another trial, which gets worse
        if flushes:
            store.flush()
            kept.append(epochs_with_histograms(tmp_path))
    store.flush()
    assert kept in ([], [set(), set(), {3}, {4}, {5}, {6}, {7}])
    assert epochs_with_histograms(tmp_path) == {7}
    assert epochs_with_histograms(tmp_path, number=1) == {7}


def test_a_further_fold_replaces_the_histograms_of_the_last_epoch_only(tmp_path: Path) -> None:
    store = StudyStore(tmp_path, {})
    for epoch in (*SCORES, *SCORES):  # the epochs of two folds, whose means are stored
        put(store, epoch, SCORES[epoch])
        store.flush()
    assert epochs_with_histograms(tmp_path) == {7}


@pytest.mark.parametrize("reopened", [True, False], ids=["after a restart", "in one process"])
@pytest.mark.parametrize("done", [3, 4, 6, 7])
@pytest.mark.parametrize("kept", [0, 2, 3, 5, 6])
def test_a_resumed_run_stores_the_rows_of_an_undisturbed_one(
    kept: int, done: int, reopened: bool, tmp_path: Path
) -> None:
    """A run stores ``done`` epochs, dies, stores those of its checkpoint again, and trains on."""
    stores = []
    for name in ("undisturbed", "resumed"):
        (tmp_path / name).mkdir()
        stores.append(StudyStore(tmp_path / name, {}))
    undisturbed, resumed = stores
    for epoch, score in SCORES.items():
        put(undisturbed, epoch, score)
    for epoch in range(1, done + 1):
        put(resumed, epoch, SCORES[epoch])
    resumed.flush()
    if reopened:
        resumed = StudyStore(resumed.folder, {})
    for epoch in range(1, min(kept, done) + 1):  # from the checkpoint
        put(resumed, epoch, SCORES[epoch])
    resumed.flush()
    for epoch in range(min(kept, done) + 1, 8):
        put(resumed, epoch, SCORES[epoch])
    for store in stores:
        store.flush()
    resumed.flush()
    for table in ("history", "labels"):
        rows = [read_table(s.folder / f"{table}.parquet").to_pylist() for s in stores]
        assert rows[0] == rows[1]
    assert epochs_with_histograms(resumed.folder) == {7}


def test_a_trial_whose_worker_was_lost_stores_the_rows_of_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    """The recorder has the epochs of the checkpoint already: only the later ones come again."""
    for lost in range(1, 8):
        store = StudyStore(tmp_path, {})
        for epoch in [*range(1, lost + 1), *range(max(1, lost - 1), 8)]:
            put(store, epoch, SCORES[epoch])
        store.flush()
        assert epochs_with_histograms(tmp_path) == {7}


def test_a_table_of_an_older_version_loses_the_histograms_of_earlier_epochs(tmp_path: Path) -> None:
    store = StudyStore(tmp_path, {})
    for epoch in (3, 4, 5):
        row = {"study": "s", "trial_id": "t00000", "number": 0, "epoch": epoch, "prior": 0.1}
        histograms = {name: [float(epoch)] for name in HISTOGRAMS}
        store.labels.put([row | {"label": label} | histograms for label in "ab"])
    store.flush()
    again = StudyStore(tmp_path, {})
    for epoch in (3, 4, 5):
        put(again, epoch, SCORES[epoch])
    again.flush()
    assert epochs_with_histograms(tmp_path) == {5}


@pytest.mark.parametrize(
    ("scalars", "labels", "message"),
    [
        ({"lss": 1.0}, {}, r"history\.parquet has no column 'lss' \(did you mean 'loss'\?\)"),
        ({}, {"entropy": [0.1, 0.2]}, r"labels\.parquet has no column 'entropy'.*schemas\.py"),
    ],
)
def test_an_unknown_column_is_an_error(
    scalars: dict[str, Any], labels: dict[str, Any], message: str, tmp_path: Path
) -> None:
    store = StudyStore(tmp_path, {})
    identity = {"study": "s", "trial_id": "t00000", "number": 0}
    with pytest.raises(UsageError, match=message):
        put_epoch(store, identity, {"epoch": 1} | scalars, labels, "ab")
