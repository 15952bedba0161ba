"""A disk that is full, or may not be written, for a while or for good: a real small file system."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bbam_ray.documents import write_json
from bbam_ray.errors import StorageError
from bbam_ray.results.patience import PATIENCE_S, Patience, patience_s
from bbam_ray.results.schemas import trials_schema
from bbam_ray.results.store import StudyStore, Table, read_table


@pytest.fixture()
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True
    )
    if made.returncode:
        pytest.skip("no file system may be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Take all that is free."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast


def read_only(disk: Path, now: bool) -> None:
    mode = "ro" if now else "rw"
    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)


def add(store: StudyStore, number: int) -> None:
    store.trials.put([{"study": "s", "trial_id": f"t{number}", "number": number, "epochs": 0}])


def stored(disk: Path) -> list[int]:
    return list(read_table(disk / "trials.parquet")["number"].to_pylist())


def test_rows_wait_in_memory_while_the_disk_is_full(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = StudyStore(disk, {})
    add(store, 0)
    assert store.flush() and not store.patience.waiting
    ballast = fill(disk)
    with caplog.at_level(logging.WARNING):
        for number in (1, 2):
            add(store, number)
            assert not store.flush()
    assert store.patience.waiting
    assert stored(disk) == [0]  # the old version is whole
    (said,) = (record.getMessage() for record in caplog.records)  # once, not with every try
    assert str(disk) in said and "No space left on device" in said
    ballast.unlink()
    assert store.flush() and not store.patience.waiting
    assert stored(disk) == [0, 1, 2]
    assert not [path for path in disk.rglob(".*.*") if path.is_file()]


def test_a_storage_that_becomes_read_only_for_a_while(disk: Path) -> None:
    store = StudyStore(disk, {})
    store.flush()
    read_only(disk, True)
    add(store, 0)
    assert not store.flush()
    threading.Timer(1.5, read_only, (disk, False)).start()
    began = time.monotonic()
    assert store.flush(wait=True)
    assert 1 < time.monotonic() - began < 30
    assert stored(disk) == [0]


def test_patience_ends_with_one_sentence_that_names_the_way_out(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BBAM_RAY_PATIENCE", "0.5")
    store = StudyStore(disk, {})
    store.flush()
    ballast = fill(disk)
    add(store, 0)
    with pytest.raises(
        StorageError, match=r"for \d s \(No space left.*free disk space.*--resume"
    ) as caught:
        store.flush(wait=True)
    assert "\n" not in str(caught.value)
    ballast.unlink()
    assert store.flush()  # it was not forgotten even now


def test_patience_begins_anew_after_each_success() -> None:
    tries = iter([True, False, True, False])

    def write() -> None:
        if next(tries):
            raise OSError(28, "No space left on device")

    patience = Patience(Path("results"))
    assert [patience.attempt(write) for _ in range(4)] == [False, True, False, True]


def test_a_request_to_stop_ends_the_wait() -> None:
    attempts: list[float] = []

    def write() -> None:
        attempts.append(time.monotonic())
        raise OSError(28, "No space left on device")

    patience = Patience(Path("results"))
    patience.hurry_when(lambda: len(attempts) == 2)
    with pytest.raises(StorageError, match="--resume"):
        patience.insist(write)
    assert len(attempts) == 2


def test_other_errors_are_not_waited_for() -> None:
    def write() -> None:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        Patience(Path("results")).attempt(write)


@pytest.mark.parametrize(
    ("given", "seconds"), [("3.5", 3.5), ("soon", PATIENCE_S), ("", PATIENCE_S)]
)
def test_how_long_is_a_variable(
    given: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BBAM_RAY_PATIENCE", given)
    assert patience_s() == seconds


def test_a_version_before_is_kept_as_a_link(tmp_path: Path) -> None:
    table = Table(tmp_path / "trials.parquet", trials_schema({}), ("number",))
    for number in range(3):
        table.put([{"study": "s", "trial_id": "t", "number": number}])
        table.flush()
    kept = tmp_path / ".previous" / "trials.parquet"
    assert read_table(kept)["number"].to_pylist() == [0, 1]
    assert os.stat(kept).st_nlink == 1


def test_without_links_nothing_is_kept_and_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path, target: Path) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    table = Table(tmp_path / "trials.parquet", trials_schema({}), ("number",))
    for number in range(3):
        table.put([{"study": "s", "trial_id": "t", "number": number}])
        table.flush()
    assert read_table(table.path).num_rows == 3
    assert not list((tmp_path / ".previous").iterdir())


def test_json_that_cannot_be_written_leaves_the_old_one(disk: Path) -> None:
    write_json(disk / "a.json", {"a": 1})
    fill(disk)
    with pytest.raises(OSError, match="No space"):
        write_json(disk / "a.json", {"a": "x" * 2_000_000})
    assert (disk / "a.json").read_text() == '{\n  "a": 1\n}\n'


def test_a_database_that_finds_no_room_says_so_like_any_file(disk: Path) -> None:
    import optuna

    from bbam_ray.scale.search.outcomes import Outcome
    from bbam_ray.scale.search.space_file import read_space
    from bbam_ray.scale.search.study_db import StudyDatabase

    path = Path(__file__).parents[2] / "search_spaces" / "digits.yaml"
    space = read_space(path, "digits", "bbam", {})
    outcome = Outcome(0, dict(space.published), "COMPLETE", (0.5,), {1: 0.5})
    with StudyDatabase(disk, space) as database:
        database.write({0: outcome})
        before = (disk / "study.db").read_bytes()
        fill(disk)
        with pytest.raises(OSError, match="No space"):
            database.write({0: outcome, 1: outcome})
        assert (disk / "study.db").read_bytes() == before
        (disk / "ballast").unlink()
        database.write({0: outcome, 1: outcome})  # no trial is added a second time
    storage = optuna.storages.RDBStorage(f"sqlite:///{disk / 'study.db'}")
    assert len(optuna.load_study(study_name=disk.name, storage=storage).trials) == 2
    storage.engine.dispose()
