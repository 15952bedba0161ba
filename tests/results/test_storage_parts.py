"""Tables with parts on object storage: readers and other machines see complete trials at any moment."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyarrow import fs

from bbam_ray.results import parts
from bbam_ray.results import store as stores
from bbam_ray.results.epoch_rows import put_epoch
from bbam_ray.results.remote_files import RemoteFiles
from bbam_ray.results.repair import repair_study
from bbam_ray.results.storage import Storage
from bbam_ray.results.store import StudyStore, read_table
from bbam_ray.results.study import StudyRecord
from bbam_ray.results.sync_state import file_stats, is_part, upload_order

TRIALS, EPOCHS = 12, 2


@pytest.fixture()
def uri(s3_server: Any) -> str:
    """A results folder of its own in the bucket."""
    return f"s3://results/{uuid.uuid4().hex}"


def machine(name: str, uri: str, tmp_path: Path, **options: Any) -> Storage:
    """The storage as another machine sees it: with copies of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BBAM_RAY_CACHE", str(tmp_path / name))
        return Storage(uri, **options)


def begin(folder: Path) -> StudyStore:
    StudyRecord.create(folder, {"num_samples": TRIALS, "space": {}})
    store = StudyStore(folder, {})
    store.flush()
    return store


def end_trial(store: StudyStore, number: int) -> None:
    identity = {"study": "mine", "trial_id": f"t{number:05d}", "number": number}
    for epoch in range(1, EPOCHS + 1):
        put_epoch(store, identity, {"epoch": epoch, "val_map": 0.5}, {"prior": [0.1, 0.2]}, "ab")
        store.flush()
    store.end_trial(identity | {"state": "COMPLETE", "epochs": EPOCHS})
    store.flush()


def check_complete(folder: Path) -> set[int]:
    """Numbers of the trials; each has all of its epochs and labels."""
    trials, history, labels = (
        read_table(folder / f"{name}.parquet").to_pandas()
        for name in ("trials", "history", "labels")
    )
    epochs, rows = (Counter(frame["number"].tolist()) for frame in (history, labels))
    for number in trials["number"]:
        assert (epochs[number], rows[number]) == (EPOCHS, EPOCHS * 2), number
    assert not trials["number"].duplicated().any()
    return set(trials["number"])


def remote_names(uri: str) -> set[str]:
    files, base = fs.FileSystem.from_uri(uri)
    infos = files.get_file_info(fs.FileSelector(f"{base}/digits/mine", recursive=True))
    names = {info.path[len(base) + 13 :] for info in infos if info.type == fs.FileType.File}
    return {name for name in names if not name.startswith(".")}


def test_trials_are_uploaded_after_what_belongs_to_them() -> None:
    tables = ("labels", "folds", "history", "confirm", "trials")
    names = [f"{parts.FOLDER}/{name}/{n:08d}.parquet" for name in tables for n in (9, 10)]
    files = [f"{name}.parquet" for name in tables]
    rest = ["best.yaml", "checkpoints/x/model", "notes.txt"]
    in_order = [*rest, *files, *names, "study.json"]
    assert sorted({*in_order}, key=upload_order) == in_order
    assert [name for name in in_order if is_part(name)] == names


def test_all_files_are_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_SMALL_BYTES", 0)
    store = begin(tmp_path / "digits" / "mine")
    end_trial(store, 0)
    folder = store.folder
    expected = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and ".previous" not in path.parts
    }
    assert file_stats(folder).keys() == expected
    assert any(map(is_part, expected))


@pytest.mark.parametrize("share", [0.9, 1e-9], ids=["merged often", "never merged"])
def test_readers_and_another_machine_see_complete_trials(
    share: float, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver is lost at the end: it merges and uploads nothing any more."""
    monkeypatch.setattr(stores, "_SMALL_BYTES", 0)
    monkeypatch.setattr(stores, "_MERGE_SHARE", share)
    driver = machine("driver", uri, tmp_path)
    watching = machine("reader", uri, tmp_path, reads=True)
    seen: list[int] = []
    problems: list[BaseException] = []
    ended = threading.Event()

    def watch() -> None:
        try:
            while not ended.is_set():
                watching.fetch("mine")
                if (watching.local / "digits" / "mine" / "trials.parquet").is_file():
                    numbers = check_complete(watching.local / "digits" / "mine")
                    assert len(numbers) >= max(seen, default=0)
                    seen.append(len(numbers))
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=watch)
    with driver:
        store = begin(driver.local / "digits" / "mine")
        thread.start()
        for number in range(TRIALS):
            end_trial(store, number)
            time.sleep(0.3)
        until = time.monotonic() + 60
        while max(seen, default=0) < TRIALS and not problems and time.monotonic() < until:
            time.sleep(0.05)
        ended.set()
        thread.join()
    assert problems == []
    assert max(seen) == TRIALS and len(set(seen)) > 1
    assert any(map(is_part, remote_names(uri)))
    other = machine("other", uri, tmp_path)
    other.fetch("mine")
    folder = other.local / "digits" / "mine"
    with other:
        assert repair_study(folder) == []
        StudyStore(folder, {}).finish()
    assert len(pd.read_parquet(folder / "trials.parquet")) == TRIALS == len(check_complete(folder))
    tables = {f"{name}.parquet" for name in ("trials", "history", "labels", "confirm")}
    assert remote_names(uri) == {"study.json", *tables}


def test_an_upload_begins_again_if_a_part_was_merged_meanwhile(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_SMALL_BYTES", 0)
    monkeypatch.setattr(stores, "_MERGE_SHARE", 1e-9)
    driver = machine("driver", uri, tmp_path)
    store = begin(driver.local / "digits" / "mine")
    driver._push_all()
    for number in range(3):
        end_trial(store, number)
    write, is_merged = RemoteFiles.write, False

    def merging(files: RemoteFiles, path: str, content: Any) -> None:
        nonlocal is_merged
        if "/parts/history/" in path and not is_merged:
            is_merged = True
            store.finish()
        write(files, path, content)

    monkeypatch.setattr(RemoteFiles, "write", merging)
    driver._push_all()
    assert is_merged
    before = machine("one", uri, tmp_path)
    before.fetch("mine")
    check_complete(before.local / "digits" / "mine")  # no trial without its history
    driver._push_all()
    after = machine("two", uri, tmp_path)
    after.fetch("mine")
    assert check_complete(after.local / "digits" / "mine") == {0, 1, 2}
    assert not any(map(is_part, remote_names(uri)))
