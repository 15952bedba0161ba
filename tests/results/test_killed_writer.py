"""A writer of tables that is killed before any of its file operations: no row is lost or stored twice.

The folder is copied before every operation of a writer that is not killed: each copy is what a kill at
that moment would have left. The flushes that had returned by then must be in it.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bbam_ray.results import parts
from bbam_ray.results import store as stores
from bbam_ray.results.epoch_rows import put_epoch
from bbam_ray.results.repair import repair_study
from bbam_ray.results.store import StudyStore, read_table
from bbam_ray.results.study import StudyRecord

OPERATIONS = ("rename", "replace", "unlink", "remove", "link", "mkdir", "rmdir")
TRIALS, EPOCHS, LABELS = 5, 2, "ab"
Read = Callable[[Path], pd.DataFrame]


@dataclass
class Moment:
    """A copy of the folder, and the trials whose flush had returned."""

    folder: Path
    flushed: set[int]


def write_study(folder: Path, flushed: set[int]) -> None:
    """Write a study: parts, merges, rows that are replaced, and a trial that is dropped."""
    store = StudyStore(folder, {})
    store.flush()
    for number in (*range(TRIALS), 99):
        identity = {"study": "s", "trial_id": f"t{number:05d}", "number": number}
        for epoch in range(1, EPOCHS + 1):
            angles = {name: [[1.0], [2.0]] for name in ("angles_positive", "angles_negative")}
            put_epoch(store, identity, {"epoch": epoch, "val_map": 0.5}, angles, LABELS)
            store.flush()
        if number != 99:  # it does not end
            store.end_trial(identity | {"state": "COMPLETE", "epochs": EPOCHS})
            store.flush(whole=number in (1, 2, 3))
            flushed.add(number)
    store.drop_unfinished()
    store.flush(whole=True)
    store.finish()


@pytest.fixture(scope="module", params=[0, 1 << 30], ids=["with parts", "without parts"])
def moments(request: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Moment]:
    folder, copies = (tmp_path_factory.mktemp(name) for name in ("study", "copies"))
    StudyRecord.create(folder / "s", {"num_samples": TRIALS, "space": {}})
    flushed: set[int] = set()
    moments: list[Moment] = []
    is_copying = False

    def watched(operation: Callable[..., Any]) -> Callable[..., Any]:
        def watch(*arguments: Any, **options: Any) -> Any:
            nonlocal is_copying
            if not is_copying:
                is_copying = True
                copy = copies / f"{len(moments):04d}"
                shutil.copytree(folder / "s", copy)
                moments.append(Moment(copy, set(flushed)))
                is_copying = False
            return operation(*arguments, **options)

        return watch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "_SMALL_BYTES", request.param)
        patch.setattr(stores, "_MERGE_SHARE", 1e-9)  # parts are merged where write_study says so
        for name in OPERATIONS:
            patch.setattr(os, name, watched(getattr(os, name)))
        write_study(folder / "s", flushed)
    return [*moments, Moment(folder / "s", set(flushed))]


def frames(folder: Path, read: Read) -> list[pd.DataFrame]:
    return [read(folder / f"{name}.parquet") for name in ("trials", "history", "labels")]


def check_complete(folder: Path, read: Read) -> set[int]:
    """Each trial once, with all of its epochs and labels, each of them once; returns their numbers."""
    trials, history, labels = frames(folder, read)
    assert not trials.duplicated(["number"]).any()
    assert not history.duplicated(["number", "epoch"]).any()
    assert not labels.duplicated(["number", "epoch", "label"]).any()
    epochs, rows = (Counter(frame["number"].tolist()) for frame in (history, labels))
    with_histograms = labels[labels["angles_positive"].notna()]
    for number in trials["number"]:
        assert epochs[number] == EPOCHS and rows[number] == EPOCHS * len(LABELS)
        own = with_histograms[with_histograms["number"] == number]
        assert own["epoch"].tolist() == [EPOCHS] * len(LABELS)
    return set(trials["number"])


def with_parts(path: Path) -> pd.DataFrame:
    frame: pd.DataFrame = read_table(path).to_pandas()
    return frame


def test_readers_see_what_was_flushed(moments: list[Moment]) -> None:
    assert len(moments) > 80
    for moment in moments:
        if (moment.folder / "trials.parquet").exists():  # else the first flush was under way
            assert check_complete(moment.folder, with_parts) >= moment.flushed
            check_complete(moment.folder, pd.read_parquet)  # as other programs do
        else:
            assert not moment.flushed


def test_a_resumed_study_has_it_in_single_files(moments: list[Moment], tmp_path: Path) -> None:
    for moment in moments:
        folder = Path(shutil.copytree(moment.folder, tmp_path / moment.folder.name))
        assert repair_study(folder) == []
        if not (folder / "trials.parquet").exists():
            continue
        assert check_complete(folder, pd.read_parquet) >= moment.flushed
        store = StudyStore(folder, {})
        store.drop_unfinished()
        store.finish()
        assert set(pd.read_parquet(folder / "history.parquet")["number"]) == store.trials.groups()
        assert not (folder / parts.FOLDER).exists()
        assert not [path for path in folder.rglob(".*.[0-9]*") if path.is_file()]
        shutil.rmtree(folder)


def test_the_end_has_everything(moments: list[Moment]) -> None:
    assert check_complete(moments[-1].folder, pd.read_parquet) == set(range(TRIALS))
    names = {path.name for path in moments[-1].folder.iterdir()}
    tables = {f"{name}.parquet" for name in ("trials", "history", "labels", "confirm")}
    assert names == {*tables, "study.json", ".previous"}
