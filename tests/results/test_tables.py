"""Tables on disk: rows by key, missing as null, whole files only."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from bbam_ray import files
from bbam_ray.documents import write_json
from bbam_ray.errors import UsageError
from bbam_ray.results import schemas
from bbam_ray.results.store import StudyStore, Table, read_table

KINDS = {"scale": "float", "balance": "bool"}


def row(number: int, **values: Any) -> dict[str, Any]:
    return {"study": "s", "trial_id": f"t{number}", "number": number, "state": "COMPLETE"} | values


def table(path: Path) -> Table:
    return Table(path, schemas.trials_schema(KINDS), ("number",))


def test_rows_come_back_in_the_order_of_their_key(tmp_path: Path) -> None:
    trials = table(tmp_path / "t.parquet")
    trials.put([row(10), row(2, param_scale=3.5, param_balance=False)])
    trials.put([row(1)])
    trials.flush()
    stored = read_table(tmp_path / "t.parquet")
    assert stored.schema.equals(schemas.trials_schema(KINDS), check_metadata=True)
    assert stored["number"].to_pylist() == [1, 2, 10]
    assert stored["param_scale"].to_pylist() == [None, 3.5, None]
    assert stored["param_balance"].to_pylist() == [None, False, None]
    assert trials.rows() == stored.to_pylist()


def test_a_row_with_the_same_key_replaces_the_old_one(tmp_path: Path) -> None:
    trials = table(tmp_path / "t.parquet")
    trials.put([row(0, val_map=0.1, error="old"), row(1)])
    trials.flush()
    again = table(tmp_path / "t.parquet")
    again.put([row(0, val_map=0.2)])
    again.flush()
    first, second = read_table(tmp_path / "t.parquet").to_pylist()
    assert (first["val_map"], first["error"]) == (0.2, None)
    assert second["number"] == 1


def test_missing_and_nan_values_are_null(tmp_path: Path) -> None:
    trials = table(tmp_path / "t.parquet")
    trials.put([row(0, val_map=math.nan, param_scale=math.inf)])
    trials.flush()
    stored = read_table(tmp_path / "t.parquet")
    (only,) = stored.to_pylist()
    assert only["val_map"] is None and only["seed"] is None
    assert stored["val_map"].null_count == 1
    assert only["param_scale"] == math.inf


def test_an_unknown_column_is_refused_and_named(tmp_path: Path) -> None:
    trials = table(tmp_path / "t.parquet")
    with pytest.raises(UsageError) as caught:
        trials.put([row(0), row(1, val_mpa=0.5)])
    assert str(caught.value) == (
        "t.parquet has no column 'val_mpa' (did you mean 'val_map'?); add it to the schema of the table "
        "in bbam_ray/results/schemas.py"
    )


def test_columns_of_another_version_are_left_out_of_a_table_that_is_opened_again(
    tmp_path: Path,
) -> None:
    newer = schemas.trials_schema(KINDS | {"depth": "int"})
    rows = [row(0, param_depth=3, param_scale=2.0)]
    pq.write_table(pa.Table.from_pylist(rows, schema=newer), tmp_path / "t.parquet")
    (only,) = table(tmp_path / "t.parquet").rows()
    assert only["param_scale"] == 2.0 and "param_depth" not in only


def test_a_trial_state_is_stored_as_its_name(tmp_path: Path) -> None:
    trials = table(tmp_path / "t.parquet")
    trials.put([row(n, state=state) for n, state in enumerate(schemas.TrialState)])
    trials.flush()
    stored = read_table(tmp_path / "t.parquet")["state"]
    assert stored.type == pa.string()
    assert stored.to_pylist() == ["COMPLETE", "PRUNED", "FAILED"]


def test_times_are_stored_as_utc_whatever_their_zone(tmp_path: Path) -> None:
    elsewhere = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    trials = table(tmp_path / "t.parquet")
    trials.put([row(0, started_at=elsewhere)])
    trials.flush()
    (only,) = read_table(tmp_path / "t.parquet").to_pylist()
    assert only["started_at"] == datetime(2026, 1, 1, 7, tzinfo=UTC)
    assert only["started_at"].utcoffset() == timedelta(0)


def test_an_empty_table_is_written_with_its_columns_and_compressed_with_zstd(
    tmp_path: Path,
) -> None:
    empty, full = table(tmp_path / "e.parquet"), table(tmp_path / "f.parquet")
    full.put([row(0)])
    for each in (empty, full):
        each.flush()
    assert read_table(tmp_path / "e.parquet").num_rows == 0
    group = pq.ParquetFile(tmp_path / "f.parquet").metadata.row_group(0)
    assert {group.column(i).compression for i in range(group.num_columns)} == {"ZSTD"}


def test_a_table_is_only_rewritten_where_something_changed(tmp_path: Path) -> None:
    def version() -> tuple[int, int]:
        state = (tmp_path / "t.parquet").stat()
        return state.st_ino, state.st_mtime_ns

    trials = table(tmp_path / "t.parquet")
    trials.put([row(0)])
    trials.flush()
    first = version()
    trials.flush()
    table(tmp_path / "t.parquet").flush()
    assert version() == first
    trials.put([row(1)])
    trials.flush()
    assert version() != first


@pytest.mark.parametrize("moment", ["while writing", "before the rename"])
def test_a_write_that_breaks_off_leaves_the_old_table_and_no_litter(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = table(tmp_path / "t.parquet")
    trials.put([row(0)])
    trials.flush()
    trials.put([row(1)])

    def torn(writer: pq.ParquetWriter, rows: pa.Table) -> None:
        Path(writer.where).write_bytes(b"PAR1 half of a file")
        raise OSError(28, "No space left on device")

    def refused(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        if moment == "while writing":
            patch.setattr(pq.ParquetWriter, "write_table", torn)
        else:
            patch.setattr(files.os, "fsync", refused)
        with pytest.raises(OSError):
            trials.flush()
    assert read_table(tmp_path / "t.parquet")["number"].to_pylist() == [0]
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]
    trials.flush()  # the row was not forgotten
    assert read_table(tmp_path / "t.parquet")["number"].to_pylist() == [0, 1]
    assert [path.name for path in (tmp_path / ".previous").iterdir()] == ["t.parquet"]


def test_a_file_is_complete_and_on_the_disk_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, order = tmp_path / "a.txt", []
    fsync = files.os.fsync
    monkeypatch.setattr(files.os, "fsync", lambda fd: (order.append(path.exists()), fsync(fd)))
    with files.atomic_file(path) as temporary:
        temporary.write_text("all of it")
    assert order == [False]
    assert path.read_text() == "all of it"


def test_a_table_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    newer = schemas.trials_schema(KINDS).with_metadata({"schema_version": "2"})
    pq.write_table(pa.Table.from_pylist([row(0)], schema=newer), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"t\.parquet: schema version 2 is newer.*update"):
        read_table(tmp_path / "t.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all" * 10])
def test_a_damaged_table_is_wrong_usage(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(UsageError, match=r"t\.parquet: cannot be read"):
        read_table(tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"nothing\.parquet"):
        read_table(tmp_path / "nothing.parquet")


def test_a_table_can_be_read_while_it_is_being_replaced(tmp_path: Path) -> None:
    """Files of changing length, as a running study has them: a reader sees one of them, never a mix."""
    path, written, read = tmp_path / "t.parquet", 0, 0
    trials = table(path)
    trials.put([row(0)])
    trials.flush()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(
            lambda: [(trials.put([row(n, error="e" * n)]), trials.flush()) for n in range(1, 300)]
        )
        while not done.done():
            count = read_table(path).num_rows
            assert count >= written
            written, read = count, read + 1
        done.result()
    assert read > 20 and read_table(path).num_rows == 300


def test_the_store_writes_trials_after_what_belongs_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, order = StudyStore(tmp_path, KINDS), []
    flush = Table.flush
    monkeypatch.setattr(
        Table,
        "flush",
        lambda self, **options: (order.append(self.path.stem), flush(self, **options)),
    )
    study.flush()
    assert order.index("history") < order.index("trials")
    assert order.index("labels") < order.index("trials")
    written = {path.stem for path in tmp_path.glob("*.parquet")}
    assert written == {"trials", "history", "labels", "confirm"}


def test_a_store_takes_over_what_an_earlier_one_wrote(tmp_path: Path) -> None:
    identity = {"study": "s", "trial_id": "t0", "number": 0}
    first = StudyStore(tmp_path, KINDS)
    first.history.put([identity | {"epoch": epoch, "val_map": 0.1 * epoch} for epoch in (1, 2)])
    first.labels.put([identity | {"epoch": 1, "label": label} for label in "ba"])
    first.confirm.put([identity | {"rank": 1, "seed": seed} for seed in (2, 1)])
    first.flush()
    again = StudyStore(tmp_path, KINDS)
    again.history.put([identity | {"epoch": 2, "val_map": 0.9}])
    assert [r["val_map"] for r in again.history.rows()] == [0.1, 0.9]
    assert [r["label"] for r in again.labels.rows()] == ["a", "b"]
    assert [r["seed"] for r in again.confirm.rows()] == [1, 2]


def test_epochs_of_trials_that_have_not_ended_are_forgotten(tmp_path: Path) -> None:
    study = StudyStore(tmp_path, KINDS)
    for number in range(3):
        identity = {"study": "s", "trial_id": f"t{number}", "number": number}
        study.history.put([identity | {"epoch": epoch} for epoch in (1, 2)])
        study.labels.put([identity | {"epoch": 1, "label": "a"}])
        if number != 1:
            study.trials.put([row(number)])
    study.flush()
    again = StudyStore(tmp_path, KINDS)
    again.drop_unfinished()
    again.flush()
    for table in (again.history, again.labels):
        assert table.groups() == {0, 2}
        assert table.rows_of(1) == []
        assert set(read_table(table.path)["number"].to_pylist()) == {0, 2}
    again.drop_unfinished()  # nothing is left to do
    assert [len(again.history.rows_of(n)) for n in (0, 1, 2)] == [2, 0, 2]


def test_json_with_numbers_that_json_lacks_is_standard_json(tmp_path: Path) -> None:
    content = {"a": math.inf, "b": [-math.inf, {"c": math.nan}], "d": Path("x"), "e": (1, 2.5)}
    write_json(tmp_path / "a.json", content)

    def no_constants(name: str) -> None:
        raise AssertionError(f"{name} is not standard JSON")

    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=no_constants) == {
        "a": "inf",
        "b": ["-inf", {"c": "nan"}],
        "d": "x",
        "e": [1, 2.5],
    }


def test_best_yaml_has_its_comment_and_reads_back(tmp_path: Path) -> None:
    values = {"scale": 20.5, "negative_ratio": math.inf, "balance": True, "data_dir": None}
    path = StudyStore(tmp_path, KINDS).write_best(values, "one line\nanother: line")
    text = path.read_text()
    assert text.startswith("# one line\n# another: line\n")
    assert yaml.safe_load(text) == values
