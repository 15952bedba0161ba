"""Tables with parts: every reader sees what a single file would hold, whatever was written when."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bbam_ray.errors import UsageError
from bbam_ray.files import PREVIOUS
from bbam_ray.report.live_page import state_of
from bbam_ray.results import merging, parts, schemas, store
from bbam_ray.results.epoch_rows import put_epoch
from bbam_ray.results.loading import Study
from bbam_ray.results.repair import repair_study, repair_table
from bbam_ray.results.store import StudyStore, Table, read_table, write_table
from bbam_ray.results.study import StudyRecord

KINDS = {"scale": "float"}
SCHEMA = schemas.HISTORY
Key = tuple[int, int]


def table(path: Path) -> Table:
    return Table(path, SCHEMA, ("number", "epoch"))


def row(number: int, epoch: int, loss: float | None = None) -> dict[str, Any]:
    return {"study": "s", "trial_id": f"t{number}", "number": number, "epoch": epoch, "loss": loss}


def contents(rows: list[dict[str, Any]]) -> dict[Key, Any]:
    assert [(r["number"], r["epoch"]) for r in rows] == sorted(
        {(r["number"], r["epoch"]) for r in rows}
    )  # each key once, in order
    return {(r["number"], r["epoch"]): r["loss"] for r in rows}


@pytest.fixture()
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.parquet"


@pytest.fixture()
def with_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store writes parts from the second flush on, and merges them only when it is told to."""
    monkeypatch.setattr(store, "_SMALL_BYTES", 0)
    monkeypatch.setattr(store, "_MERGE_SHARE", 1e-9)


# -------------------------------------------------------------------------- one table


def test_a_part_replaces_rows_of_the_file_and_of_earlier_parts(path: Path) -> None:
    history = table(path)
    history.put([row(0, 1, 0.1), row(0, 2, 0.2), row(1, 1, 0.3)])
    history.flush()
    history.put([row(0, 2, 2.0), row(2, 1, 0.4)])
    history.flush(whole=False)
    history.put([row(0, 2, 3.0), row(0, 3)])
    history.flush(whole=False)
    expected = {(0, 1): 0.1, (0, 2): 3.0, (0, 3): None, (1, 1): 0.3, (2, 1): 0.4}
    assert contents(read_table(path).to_pylist()) == contents(history.rows()) == expected
    assert contents(table(path).rows()) == expected
    assert contents(history.rows_of(0)) == {(0, 1): 0.1, (0, 2): 3.0, (0, 3): None}
    assert history.groups() == table(path).groups() == {0, 1, 2}
    assert read_table(path).schema.equals(SCHEMA, check_metadata=True)
    # The file alone is what it was, and is readable as it is.
    assert len(pd.read_parquet(path)) == 3
    history.flush()
    assert contents(pq.read_table(path).to_pylist()) == expected
    history.finish()
    assert contents(pd.read_parquet(path).astype(object).to_dict("records")).keys() == (
        expected.keys()
    )
    assert not (path.parent / parts.FOLDER).exists()


def test_a_file_without_parts_has_the_metadata_of_its_schema_only(path: Path) -> None:
    history = table(path)
    history.put([row(0, 1)])
    history.flush()
    metadata = pq.read_schema(path).metadata
    assert metadata == {b"schema_version": str(schemas.SCHEMA_VERSION).encode()}


def test_parts_that_are_merged_do_not_count_again(path: Path) -> None:
    """As after a kill between the new file and the removal of its parts."""
    history = table(path)
    history.flush()
    history.put([row(0, 1, 0.5), row(1, 1, 0.5)])
    history.flush(whole=False)
    shutil.copytree(path.parent / parts.FOLDER, path.parent / "copy")
    history.put([row(0, 1, 0.75)])
    history.drop([1])
    history.finish()
    shutil.copytree(path.parent / "copy", path.parent / parts.FOLDER)
    assert contents(read_table(path).to_pylist()) == {(0, 1): 0.75}
    again = table(path)
    assert contents(again.rows()) == {(0, 1): 0.75} and not again.has_parts
    again.put([row(2, 1)])
    again.flush(whole=False)
    assert parts.part_numbers(path) == [1, 2]  # no number is used twice
    assert set(contents(read_table(path).to_pylist())) == {(0, 1), (2, 1)}


def test_rows_of_one_group_are_read_from_their_row_groups(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "GROUP_ROWS", 4)
    history = table(path)
    history.put([row(number, epoch, number) for number in range(5) for epoch in (1, 2, 3)])
    history.flush()
    assert pq.ParquetFile(path).num_row_groups == 4
    assert [r["epoch"] for r in table(path).rows_of(3)] == [1, 2, 3]
    assert table(path).rows_of(9) == []
    read: list[int] = []
    original = pq.ParquetFile.read_row_groups
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_groups",
        lambda self, groups, *more, **options: (
            read.append(len(groups)),
            original(self, groups, *more, **options),
        )[1],
    )
    assert contents(read_table(path, where=("number", 0)).to_pylist()).keys() == {
        (0, 1),
        (0, 2),
        (0, 3),
    }
    assert read == [1]
    assert [(n, len(rows)) for n, rows in history.rows_by_group()] == [(n, 3) for n in range(5)]


def test_a_merge_sorts_only_from_the_first_changed_group_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "GROUP_ROWS", 50)
    history = table(path)
    history.put([row(number, 1) for number in range(1000)])
    history.flush()
    sorted_rows: list[int] = []
    original = merging.sort
    monkeypatch.setattr(
        merging, "sort", lambda rows, key: (sorted_rows.append(len(rows)), original(rows, key))[1]
    )
    history.put([row(number, 2) for number in range(990, 1010)])
    history.flush()
    assert sorted_rows == [30]
    assert len(contents(read_table(path).to_pylist())) == 1020
    groups = [pq.ParquetFile(path).metadata.row_group(i).num_rows for i in range(21)]
    assert groups == [50] * 20 + [20]


def test_a_table_of_an_older_version_gets_the_new_columns(path: Path) -> None:
    older = SCHEMA.remove(SCHEMA.get_field_index("held_out"))
    pq.write_table(pa.Table.from_pylist([row(0, 1, 0.5)], schema=older), path)
    history = table(path)
    history.put([row(1, 1) | {"held_out": 3.0}])
    history.flush(whole=False)
    assert read_table(path)["held_out"].to_pylist() == [None, 3.0]
    history.finish()
    assert pq.read_table(path)["held_out"].to_pylist() == [None, 3.0]
    assert pq.read_table(path)["loss"].to_pylist() == [0.5, None]


def test_a_table_can_be_read_while_its_parts_are_written_and_merged(path: Path) -> None:
    """Versions of a row only become newer, and no row disappears."""
    history = table(path)
    history.put([row(0, 1, 0)])
    history.flush()

    def write() -> None:
        for step in range(1, 300):
            history.put([row(0, 1, step), row(step, 1)])
            history.flush(whole=step % 7 == 0)

    last, count, reads = -1.0, 0, 0
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(write)
        while not done.done():
            rows = contents(read_table(path).to_pylist())
            assert rows[0, 1] >= last and len(rows) >= count
            assert len(rows) == rows[0, 1] + 1  # of one moment
            last, count, reads = rows[0, 1], len(rows), reads + 1
        done.result()
    assert reads > 10 and len(read_table(path)) == 300


# ---------------------------------------------------------------------- random sequences

_numbers, _epochs = st.integers(0, 4), st.integers(1, 3)
_puts = st.tuples(
    st.just("put"), st.lists(st.tuples(_numbers, _epochs, st.floats(0, 1)), min_size=1, max_size=4)
)
_steps = st.one_of(
    _puts,
    _puts,
    st.tuples(st.just("drop"), st.sets(_numbers, max_size=2)),
    st.tuples(st.just("part"), st.none()),
    st.tuples(st.just("part"), st.none()),
    st.tuples(st.just("whole"), st.none()),
    st.tuples(st.just("kill"), st.none()),
    st.tuples(st.just("finish"), st.none()),
    st.tuples(st.just("damage"), st.none()),
)


def _can_be_restored(path: Path) -> bool:
    """Whether all rows are in the previous version and in parts; a file may be written without a part."""
    previous = path.parent / PREVIOUS / path.name
    if not previous.exists():
        return False
    whole = read_table(path)
    alone = path.parent / "alone" / path.name
    shutil.rmtree(alone.parent, ignore_errors=True)
    alone.parent.mkdir()
    shutil.copyfile(previous, alone)
    if parts.parts_folder(path).exists():
        shutil.copytree(parts.parts_folder(path), parts.parts_folder(alone))
    return bool(read_table(alone).equals(whole))


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(_steps, max_size=25))
def test_any_sequence_of_writes_and_kills_reads_as_one_table(
    steps: list[tuple[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "history.parquet"
    history = table(path)
    history.flush()
    rows: dict[Key, float] = {}  # in memory and on the disk
    stored: dict[Key, float] = {}  # on the disk
    removed = False  # whether rows were dropped since the file was written
    for step, argument in steps:
        if step == "put":
            history.put(row(*each) for each in argument)
            rows |= {(number, epoch): loss for number, epoch, loss in argument}
        elif step == "drop":
            history.drop(argument)
            removed |= bool({number for number, _ in stored} & argument)
            rows = {key: loss for key, loss in rows.items() if key[0] not in argument}
        elif step == "part" and not removed:
            history.flush(whole=False)
            stored = dict(rows)
        elif step in ("whole", "finish"):
            history.flush() if step == "whole" else history.finish()
            stored, removed = dict(rows), False
        elif step == "kill":
            history, rows, removed = table(path), dict(stored), False
        elif step == "damage" and not history.changed and _can_be_restored(path):
            path.write_bytes(path.read_bytes()[:-9])
            repair_table(path)
            history = table(path)
        assert contents(history.rows()) == dict(sorted(rows.items()))
        assert contents(read_table(path).to_pylist()) == dict(sorted(stored.items()))
        assert history.groups() == {number for number, _ in rows}
        for number in range(5):
            of_group = {key: loss for key, loss in sorted(rows.items()) if key[0] == number}
            assert contents(history.rows_of(number)) == of_group
    history.finish()
    assert contents(pq.read_table(path).to_pylist()) == dict(sorted(rows.items()))
    assert not (path.parent / parts.FOLDER).exists()


# ------------------------------------------------------------------------------ repair


def end_trial(study: StudyStore, number: int) -> None:
    identity = {"study": "s", "trial_id": f"t{number:05d}", "number": number}
    for epoch in (1, 2):
        values = {"prior": [0.2, 0.3]}
        put_epoch(study, identity, {"epoch": epoch, "val_map": 0.1 * number}, values, "ab")
    study.end_trial(identity | {"state": "COMPLETE", "epochs": 2, "val_map": 0.1 * number})


@pytest.fixture()
def killed(tmp_path: Path, with_parts: None) -> Path:
    """A study of twelve trials: six in the files, three of them in parts too, and six in parts only."""
    folder = tmp_path / "digits" / "s"
    space = {"metric": "val_map", "mode": "max"}
    content = {"dataset": "digits", "method": "bbam", "num_samples": 20, "space": space}
    StudyRecord.create(folder, content)
    study = StudyStore(folder, KINDS)
    for number in range(12):
        end_trial(study, number)
        study.flush(whole=number in (1, 2, 5))
    assert parts.part_numbers(folder / "trials.parquet") == list(range(3, 12))
    assert len(pq.read_table(folder / "trials.parquet")) == 6
    return folder


def numbers(folder: Path, name: str = "trials") -> list[int]:
    return read_table(folder / f"{name}.parquet")["number"].to_pylist()


def test_a_killed_study_is_merged_when_it_is_resumed(killed: Path) -> None:
    assert numbers(killed) == list(range(12))
    assert repair_study(killed) == []
    for name, count in (("trials", 12), ("history", 24), ("labels", 48)):
        assert len(pd.read_parquet(killed / f"{name}.parquet")) == count
    StudyStore(killed, KINDS).finish()
    assert not (killed / parts.FOLDER).exists()
    assert numbers(killed) == list(range(12))
    for name in ("trials", "history", "labels"):  # the previous version is complete too
        assert len(read_table(killed / PREVIOUS / f"{name}.parquet")) == len(
            read_table(killed / f"{name}.parquet")
        )


@pytest.mark.parametrize("name", ["trials", "history", "labels"])
def test_a_damaged_file_is_restored_with_its_parts_and_nothing_is_lost(
    name: str, killed: Path
) -> None:
    before = read_table(killed / f"{name}.parquet")
    path = killed / f"{name}.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        read_table(path)
    (finding,) = repair_study(killed)
    assert finding == f"{path} was damaged and is restored from its previous version"
    assert read_table(path).equals(before)
    assert numbers(killed) == list(range(12))


@pytest.mark.parametrize("name", ["trials", "history", "labels"])
def test_the_rows_of_a_damaged_part_are_named_and_its_trial_is_trained_again(
    name: str, killed: Path
) -> None:
    part = parts.part_path(killed / f"{name}.parquet", 10)  # of trial 10
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(UsageError, match=r"00000010\.parquet: cannot be read as Parquet"):
        read_table(killed / f"{name}.parquet")
    first, *others = repair_study(killed)
    assert first == f"{part} was damaged and its rows are lost"
    assert others == (
        [] if name == "trials" else ["epochs of trial 10 are lost: they are trained again"]
    )
    assert numbers(killed) == [*range(10), 11]
    assert part.with_name("00000010.parquet.damaged").exists()
    assert repair_study(killed) == []


def test_a_lost_file_without_previous_version_keeps_the_rows_of_its_parts(killed: Path) -> None:
    for path in (killed / "trials.parquet", killed / PREVIOUS / "trials.parquet"):
        path.write_bytes(b"PAR1")
    (finding,) = repair_study(killed)
    assert finding.endswith("was damaged and its rows are lost")
    assert set(numbers(killed)) >= set(range(6, 12))


def test_unfinished_parts_of_killed_processes_are_removed(killed: Path) -> None:
    litter = killed / parts.FOLDER / "trials" / ".00000012.parquet.4242"
    litter.write_bytes(b"PAR1")
    assert len(numbers(killed)) == 12
    repair_study(killed)
    assert not litter.exists()


def test_a_table_that_is_replaced_as_a_whole_leaves_no_part_in_force(killed: Path) -> None:
    path = killed / "trials.parquet"
    write_table(path, read_table(path).slice(0, 2))
    assert numbers(killed) == [0, 1]
    assert StudyStore(killed, KINDS).trials.groups() == {0, 1}


# ----------------------------------------------------------------------------- readers


def test_every_reader_of_a_running_study_sees_the_parts(killed: Path) -> None:
    study = Study(killed)
    assert sorted(study.trials["number"]) == list(range(12))
    assert len(study.history) == 24 and len(study.labels) == 48
    state = state_of(killed)
    running = StudyStore(killed, KINDS)
    end_trial(running, 12)
    running._merge_due = float("inf")
    running.flush()
    assert state_of(killed) != state
    assert len(pq.read_table(killed / "trials.parquet")) == 6  # the file is the same
    assert read_table(killed / "trials.parquet").num_rows == 13


def test_an_optional_table_has_a_file_before_it_has_parts(tmp_path: Path, with_parts: None) -> None:
    """Readers take a table whose file is missing for one without rows."""
    running = StudyStore(tmp_path, KINDS)
    running.flush()
    running._merge_due = float("inf")
    folds = tmp_path / "folds.parquet"
    assert not folds.exists()
    for fold in (0, 1):
        running.folds.put([row(0, 1) | {"fold": fold}])
        running.flush()
        assert read_table(folds)["fold"].to_pylist() == list(range(fold + 1))
    assert len(pq.read_table(folds)) == 1 and parts.part_numbers(folds)


def test_a_part_that_is_a_pipe_is_an_error(killed: Path) -> None:
    part = parts.part_path(killed / "trials.parquet", 11)
    part.unlink()
    os.mkfifo(part)
    with pytest.raises(UsageError, match="is a pipe or a device"):
        read_table(killed / "trials.parquet")
