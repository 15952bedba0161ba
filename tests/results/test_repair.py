"""Torn files of a study: it goes on from what is whole, and says what is lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bbam_ray.errors import UsageError
from bbam_ray.files import PREVIOUS
from bbam_ray.results import schemas
from bbam_ray.results.epoch_rows import put_epoch
from bbam_ray.results.repair import repair_study, repair_table
from bbam_ray.results.store import StudyStore, read_table
from bbam_ray.results.study import INTERRUPTED, StudyRecord, check_folder

KINDS = {"scale": "float"}
EPOCHS = 2
TABLES = ("trials", "history", "labels", "confirm")


def end_trial(store: StudyStore, number: int) -> None:
    identity = {"study": "s", "trial_id": f"t{number:05d}", "number": number}
    for epoch in range(1, EPOCHS + 1):
        put_epoch(
            store, identity, {"epoch": epoch, "val_map": 0.1 * number}, {"prior": [0.2, 0.3]}, "ab"
        )
    row = {"state": "COMPLETE", "epochs": EPOCHS, "param_scale": 1.5, "val_map": 0.1 * number}
    store.trials.put([identity | row])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three trials and two confirmed runs, written in the order in which a search does."""
    folder = tmp_path_factory.mktemp("made") / "results" / "digits" / "s"
    record = StudyRecord.create(folder, {"num_samples": 3, "space": {}})
    store = StudyStore(folder, KINDS)
    store.flush()
    for number in range(3):
        end_trial(store, number)
        store.flush()
    for seed in (1, 2):
        store.confirm.put([{"study": "s", "trial_id": "t00002", "number": 2, "seed": seed}])
        store.flush()
    record.end(INTERRUPTED)
    return folder


@pytest.fixture()
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "s"))


def cut(content: bytes, offset: int) -> bytes:
    return content[:offset]


def zeroed(content: bytes, offset: int) -> bytes:
    """As after a power failure: the length is right, the end was never written."""
    return content[:offset] + bytes(len(content) - offset)


def test_a_whole_study_is_left_alone(folder: Path) -> None:
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert repair_study(folder) == []
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("tear", [cut, zeroed])
@pytest.mark.parametrize("name", TABLES)
def test_a_torn_table_gives_way_to_its_version_before(
    name: str, tear: Callable[[bytes, int], bytes], folder: Path
) -> None:
    path = folder / f"{name}.parquet"
    whole, before = path.read_bytes(), read_table(folder / PREVIOUS / path.name)
    assert before.num_rows < read_table(path).num_rows
    for offset in [*range(8), *range(8, len(whole), len(whole) // 40), *range(-8, 0)]:
        if (torn := tear(whole, offset % len(whole))) == whole:
            continue
        path.write_bytes(torn)
        (finding,) = repair_table(path)
        assert str(path) in finding
        assert read_table(path).equals(before)
        aside = path.with_name(f"{path.name}.damaged")
        assert aside.read_bytes() == torn  # nothing is thrown away
        aside.unlink()


@pytest.mark.parametrize("tear", [cut, zeroed])
def test_a_table_torn_at_any_byte_is_never_taken_for_a_whole_one(
    tear: Callable[[bytes, int], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "split.parquet"
    columns = {"index": range(5), "name": list("abcde"), "part": ["labeled"] * 5}
    pq.write_table(pa.table({n: list(c) for n, c in columns.items()}, schemas.SPLIT), path)
    whole = path.read_bytes()
    for offset in range(len(whole)):
        path.write_bytes(tear(whole, offset))
        with pytest.raises(UsageError, match="cannot be read as Parquet"):
            read_table(path)


@pytest.mark.parametrize("tear", [cut, zeroed])
def test_study_json_torn_at_any_byte_is_there_again(
    tear: Callable[[bytes, int], bytes], folder: Path
) -> None:
    path = folder / "study.json"
    whole, content = path.read_bytes(), json.loads(path.read_text())
    for offset in range(len(whole) - 1):  # the last byte ends a line
        path.write_bytes(tear(whole, offset))
        (finding,) = repair_study(folder)
        assert "study.json was damaged" in finding
        assert StudyRecord.open(folder).content == content
        path.with_name("study.json.damaged").unlink()


def test_a_record_that_is_gone_comes_back(folder: Path) -> None:
    content = StudyRecord.open(folder).content
    (folder / "study.json").unlink()
    results = folder.parents[1]
    assert check_folder(results, folder.parent.name, folder.name, resume=True) == folder
    repair_study(folder)
    assert StudyRecord.open(folder).content == content


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("both", [False, True], ids=["one version", "both versions"])
def test_what_is_left_is_consistent_and_the_rest_is_named(
    name: str, both: bool, folder: Path
) -> None:
    path = folder / f"{name}.parquet"
    for place in (path, folder / PREVIOUS / path.name)[: 1 + both]:
        place.write_bytes(place.read_bytes()[:-3])
    findings = repair_study(folder)
    store = StudyStore(folder, KINDS)
    found = [row["number"] for row in store.trials.rows()]
    for number in found:
        assert len(store.history.rows_of(number)) == EPOCHS
        assert len(store.labels.rows_of(number)) == EPOCHS * 2
    assert (
        "rows are lost" in findings[0]
        if both
        else "restored from its previous version" in findings[0]
    )
    if name in ("history", "labels"):
        assert found == ([] if both else [0, 1])
        assert (
            findings[1]
            == f"epochs of {'trials 0-2' if both else 'trial 2'} are lost: they are trained again"
        )
    else:
        assert len(findings) == 1
        assert found == ([0, 1, 2] if name == "confirm" else [] if both else [0, 1])
    assert repair_study(folder) == []


def test_a_trial_that_still_runs_says_nothing_about_those_that_have_ended(folder: Path) -> None:
    """A kill between the writing of two tables leaves its labels an epoch ahead of its history."""
    store = StudyStore(folder, KINDS)
    identity = {"study": "s", "trial_id": "t00009", "number": 9}
    for epoch in (1, 2, 3):
        put_epoch(store, identity, {"epoch": epoch}, {"prior": [0.2, 0.3]}, "ab")
        if epoch < 3:
            store.flush()
    store.labels.flush()
    assert repair_study(folder) == []
    (folder / "history.parquet").write_bytes(
        b"PAR1"
    )  # the version before lacks an epoch of trial 9
    (finding,) = repair_study(folder)
    assert "restored from its previous version" in finding
    assert read_table(folder / "trials.parquet")["number"].to_pylist() == [0, 1, 2]


def test_epochs_that_are_there_twice_in_number_but_not_in_kind_are_noticed(folder: Path) -> None:
    store = StudyStore(folder, KINDS)
    rows = store.history.rows_of(1)
    store.history.drop([1])
    store.history.put([{**row, "epoch": row["epoch"] + 1} for row in rows])  # 2 and 3 for 1 and 2
    store.history.flush()
    (finding,) = repair_study(folder)
    assert finding == "epochs of trial 1 are lost: they are trained again"


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_is_gone_comes_back(name: str, folder: Path) -> None:
    (folder / f"{name}.parquet").unlink()
    assert "was missing and is restored" in repair_study(folder)[0]
    assert (folder / f"{name}.parquet").exists()


@pytest.mark.parametrize("name", TABLES)
def test_a_repair_that_is_broken_off_is_made_again(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / f"{name}.parquet"
    path.write_bytes(b"torn")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copyfile", killed)
        repair_study(folder)
    assert path.read_bytes() == b"torn"
    assert "was damaged and is restored" in repair_study(folder)[0]
    assert path.with_name(f"{name}.parquet.damaged").read_bytes() == b"torn"
    assert not path.with_name(f"{name}.parquet.damaged1").exists()


def test_a_pipe_in_the_place_of_the_record_is_not_waited_for(folder: Path) -> None:
    content = StudyRecord.open(folder).content
    (folder / "study.json").unlink()
    os.mkfifo(folder / "study.json")
    repair_study(folder)
    assert StudyRecord.open(folder).content == content


def test_a_second_damage_does_not_overwrite_what_was_put_aside(folder: Path) -> None:
    path = folder / "trials.parquet"
    for content in (b"one", b"two"):
        path.write_bytes(content)
        repair_study(folder)
    kept = {p.read_bytes() for p in folder.glob("trials.parquet.damaged*")}
    assert kept == {b"one", b"two"}


def test_a_study_whose_record_is_lost_twice_is_refused(folder: Path) -> None:
    for path in (folder / "study.json", folder / PREVIOUS / "study.json"):
        path.write_bytes(b"{")
    with pytest.raises(UsageError, match="configuration of the study is lost"):
        repair_study(folder)
    assert (folder / "study.json").read_bytes() == b"{"


def test_a_newer_table_is_not_taken_for_a_damaged_one(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(schemas, "SCHEMA_VERSION", 0)
    with pytest.raises(UsageError, match="newer"):
        repair_study(folder)
    assert not list(folder.glob("*.damaged"))


def test_a_split_that_is_torn_makes_room_for_a_new_one(folder: Path) -> None:
    (folder / "split.parquet").write_bytes(b"PAR1")
    (finding,) = repair_study(folder)
    assert "rebuilt from the data" in finding
    assert not (folder / "split.parquet").exists()


def test_litter_of_killed_processes_goes_and_nothing_else(folder: Path) -> None:
    litter = [folder / name for name in (".trials.parquet.4242", ".study.db.9-journal")]
    litter.append(folder / PREVIOUS / ".study.json.17")
    others = [folder / name for name in (".storage.json", "notes.txt", ".hidden", ".notes.2024")]
    for path in litter + others:
        path.write_text("x")
    assert repair_study(folder) == []
    assert not any(path.exists() for path in litter)
    assert all(path.exists() for path in others)


def test_a_folder_made_by_a_process_that_died_at_once_can_be_used(tmp_path: Path) -> None:
    folder = tmp_path / "digits" / "s"
    folder.mkdir(parents=True)
    (folder / ".study.json.4242").write_text("{")
    assert check_folder(tmp_path, "digits", "s", resume=False) == folder
    assert StudyRecord.create(folder, {}).content["study"] == "s"
    with pytest.raises(UsageError, match="exists already"):
        check_folder(tmp_path, "digits", "s", resume=False)
