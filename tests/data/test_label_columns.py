"""Which columns hold labels and parts: 0/1 columns, tables that differ, columns that look like a split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from label_inputs import Columns, labels_of, sets_of, write_table

from bbam_ray.errors import UsageError

SUFFIXES = [".csv", ".tsv", ".jsonl", ".parquet"]


def refused(match: str, *paths: Any, **options: Any) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        labels_of(*paths, **options)
    assert "\n" not in str(caught.value)


def notes_of(*paths: Any, **options: Any) -> str:
    labels = labels_of(*paths, **options)
    assert labels.reading is not None
    return "; ".join(labels.reading.notes)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("zero", "one"),
    [("0", "1"), ("0.0", "1.0"), ("0", "1.00"), ("false", "True"), ("no", "Yes"), (" 0", "+1")],
)  # fmt: skip
def test_numbers_compare_as_numbers(suffix: str, zero: str, one: str, tmp_path: Path) -> None:
    columns: Columns = {"a": [zero, one, one], "b": [one, zero, one]}
    path = write_table(tmp_path / f"t{suffix}", columns)
    labels = labels_of(path)
    assert sets_of(labels) == [{"b"}, {"a"}, {"a", "b"}]
    assert labels.reading is not None
    assert labels.reading.summary == "labels: 2 columns of 0 and 1; 3 of 3 rows labelled"


def test_tables_may_write_numbers_differently(tmp_path: Path) -> None:
    first = write_table(tmp_path / "a.csv", {"a": ["0", "1"], "b": ["1", "1"]})
    second = write_table(tmp_path / "b.csv", {"b": ["0.0", "1.0"], "a": ["1.0", "0.0"]})
    third = write_table(tmp_path / "c.parquet", {"a": [True, False], "b": [0, 1]})
    assert sets_of(labels_of(first, second, third)) == [
        {"b"}, {"a", "b"}, {"a"}, {"b"}, {"a"}, {"b"}
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_column_that_a_table_lacks_is_named(suffix: str, tmp_path: Path) -> None:
    train = write_table(tmp_path / f"train{suffix}", {"a": ["0", "1"], "b": ["1", "0"]})
    test = write_table(tmp_path / f"test{suffix}", {"a": ["0", "1"]})
    cased = write_table(tmp_path / f"other{suffix}", {"a": ["0", "1"], "B": ["1", "1"]})
    refused(rf"test{suffix}: no label column 'b', which train", (train, "train"), (test, "test"))
    refused("no label column 'B'|no label column 'b'", (train, "train"), (cased, "test"))
    both = labels_of((train, "train"), (test, "test"), ignore_columns="b")
    assert both.names == ("a",) and both.test.tolist() == [False, False, True, True]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_without_label_columns_is_unlabelled_or_refused(
    suffix: str, tmp_path: Path
) -> None:
    labelled = write_table(tmp_path / f"train{suffix}", {"id": ["0", "1"], "a": ["1", "0"]})
    lists = write_table(tmp_path / f"lists{suffix}", {"id": ["0", "1"], "labels": ["a|b", "b"]})
    bare = write_table(tmp_path / f"bare{suffix}", {"id": ["2", "3"]})
    for first in (labelled, lists):
        labels = labels_of((first, "train"), (bare, "train"))
        assert labels.is_labeled.tolist() == [True, True, False, False]
        assert f"bare{suffix} has no label column: its 2 rows are not labelled" in notes_of(
            (first, "train"), (bare, "train")
        )
        refused(f"bare{suffix}: no label column, so", (first, "train"), (bare, "validation"))
        labels = labels_of((first, "train"), (bare, "test"))
        assert labels.test.tolist() == [False, False, True, True] == (~labels.is_labeled).tolist()
        assert labels.reading is not None
        assert f"bare{suffix}: no label column, so nothing" in labels.reading.unlabeled_test
        assert "only validation figures" in notes_of((first, "train"), (bare, "test"))
        # A part of which some files have labels is another matter.
        refused(f"bare{suffix}: no label", (first, "train"), (bare, "test"), (first, "test"))
    refused(f"bare{suffix}: no labels; label some", bare)


def test_what_is_no_label_column_is_proposed_to_be_left_out(tmp_path: Path) -> None:
    columns: Columns = {"a": ["0", "1"], "who": ["x", "y"], "when": ["2020", "2021"]}
    path = write_table(tmp_path / "t.csv", columns)
    refused(r"line 2: label 'who' is 'x', .* --set ignore_columns=who,when", path)
    assert labels_of(path, ignore_columns="who,when").names == ("a",)
    assert labels_of(path, label_columns="a").names == ("a",)
    assert "not used: columns 'who', 'when'" in notes_of(path, label_columns="a")
    other = write_table(tmp_path / "u.csv", {"id": ["0", "1"], "tags": ["x|y", "y"]})
    refused("use --set label_columns=tags if this column holds all labels", other)
    assert sets_of(labels_of(other, label_columns="tags")) == [{"x", "y"}, {"y"}]
    wide = write_table(tmp_path / "w.csv", {k: ["0", "1"] for k in ("n", "a", "b", "c")})
    assert labels_of(wide, label_columns="a:c").names == ("a", "b", "c")
    assert labels_of(wide, label_columns="c,a").names == ("c", "a")
    refused("has no column 'x'; did you mean|has no column 'x'; known", wide, label_columns="a,x")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("cells", [["3", "0", "1"], ["x", "y|x", "y"]])
def test_a_column_labels_beside_columns_of_0_and_1_is_ambiguous(
    suffix: str, cells: list[str], tmp_path: Path
) -> None:
    columns: Columns = {"labels": cells, "a": ["0", "1", "1"], "b": ["1", "0", "0"]}
    path = write_table(tmp_path / f"t{suffix}", columns)
    refused(
        r"column 'labels' or in the 0/1 columns 'a', 'b'; choose --set label_columns=labels", path
    )
    assert labels_of(path, label_format="columns").names == ("a", "b")
    assert labels_of(path, label_columns="labels").names in (("0", "1", "3"), ("x", "y"))


def test_lists_beside_a_flag_are_the_labels(tmp_path: Path) -> None:
    columns: Columns = {"labels": [["x"], ["y"]], "nsfw": [False, True], "author": ["m", "n"]}
    path = write_table(tmp_path / "t.jsonl", columns)
    assert labels_of(path).names == ("x", "y")
    assert "not used: columns 'nsfw', 'author'" in notes_of(path)


@pytest.mark.parametrize(
    ("name", "values", "test", "validation"),
    [
        ("is_test", [True, False, False, False], 1, 0),
        ("is_val", ["0", "1", "1", "0"], 0, 2),
        ("is_train", [1, 0, 1, 1], 1, 0),
        ("Split", ["train", "TEST", "dev", "validation"], 1, 2),
        ("subset", ["train", "test", "train", "train"], 1, 0),
        ("fold", [0, 1, 2, 0], None, None),
        ("kfold", ["1", "0", "1", "1"], None, None),
    ],
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_column_like_a_split_is_refused_until_a_setting_decides(
    name: str, values: list[Any], test: int, validation: int, suffix: str, tmp_path: Path
) -> None:
    lists = {"labels": ["a|b", "b", "a", "b"], name: values}
    wide = {"a": ["1", "0", "1", "1"], "b": ["0", "1", "1", "1"], name: values}
    for columns in (lists, wide):
        path = write_table(tmp_path / f"t{suffix}", columns)
        refused(rf"column '{name}' looks like .*split_column={name} or --set ignore_columns", path)
        assert labels_of(path, ignore_columns=name).names == ("a", "b")
        if test is None:
            refused(f"{name} = .*; expected train, validation, test", path, split_column=name)
            continue
        labels = labels_of(path, split_column=name)
        assert labels.names == ("a", "b") and labels.test.sum() == test
        assert (0 if labels.validation is None else labels.validation.sum()) == validation


def test_a_label_may_have_a_name_like_a_split(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", {"test": ["1", "0"], "other": ["0", "1"]})
    refused("column 'test' looks like", path)
    assert labels_of(path, label_columns="test,other").names == ("test", "other")


def test_a_split_must_not_contradict_the_name_of_the_file(tmp_path: Path) -> None:
    columns: Columns = {"labels": ["a", "b"], "split": ["train", "val"]}
    path = write_table(tmp_path / "train.csv", columns)
    labels = labels_of((path, "train"))
    assert labels.validation is not None and labels.validation.tolist() == [False, True]
    refused("split = 'train' in a file of the test part", (path, "train"), (path, "test"))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_index_of_pandas_is_no_label(suffix: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 0, 1, 1], "b": [0, 1, 1, 0]})
    frame = frame[[True, False, True, True]]
    path = tmp_path / f"t{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path)
    assert sets_of(labels_of(path)) == [{"a"}, {"a", "b"}, {"a"}]
    assert "the row index of pandas" in notes_of(path)
    again = pd.read_csv(path) if suffix == ".csv" else frame.reset_index().set_index("index")
    again.to_csv(path, index=False) if suffix == ".csv" else again.to_parquet(path)
    assert labels_of(path).names == ("a", "b")


def test_a_named_index_stays_usable(tmp_path: Path) -> None:
    frame = pd.DataFrame({"labels": [["a"], ["b"]]}, index=pd.Index(["x", "y"], name="file_name"))
    frame.to_parquet(tmp_path / "t.parquet")
    assert labels_of(tmp_path / "t.parquet").names == ("a", "b")


def test_columns_in_two_unicode_forms_are_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", {"caf\u00e9": ["0", "1"], "cafe\u0301": ["1", "0"]})
    refused("two columns have the name 'caf\u00e9' in different Unicode forms", path)
    one = write_table(
        tmp_path / "u.csv", {"cafe\u0301": ["0", "1"], "Tea": ["1", "1"], "tea": ["0", "1"]}
    )
    assert labels_of(one).names[0] == "caf\u00e9"
    assert "'Tea', 'tea'" in notes_of(one)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_missing_values_in_columns_are_blank(suffix: str, tmp_path: Path) -> None:
    columns: Columns = {"a": [1, None, 0], "b": [0.0, None, 1.0]}
    path = write_table(tmp_path / f"t{suffix}", columns)
    refused("all labels are blank", path)
    assert sets_of(labels_of(path, blank="unlabeled")) == [{"a"}, None, {"b"}]
    assert sets_of(labels_of(path, blank="negative")) == [{"a"}, set(), {"b"}]
    if suffix == ".jsonl":
        path = write_table(tmp_path / "u.jsonl", {"a": [1, float("nan")], "b": [1, float("nan")]})
        assert sets_of(labels_of(path, blank="unlabeled")) == [{"a", "b"}, None]


@pytest.mark.parametrize(
    "value", ["2", "-1", "0.5", "1,0", "x", "0x1", "1_0", "nan", "inf", "\u0661"]
)
def test_other_values_are_refused_with_line_and_label(value: str, tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", {"a": ["0", "1", value], "b": ["1", "0", "0"]})
    refused(rf"t\.csv line 4: label 'a' is '{value}', neither 0 nor 1", path)


def test_values_of_other_types_are_refused(tmp_path: Path) -> None:
    for kind, value in ((pa.list_(pa.int8()), [1]), (pa.binary(), b"1"), (pa.date32(), 3)):
        column = pa.array([value, value], kind)
        pq.write_table(pa.table({"a": column, "b": [0, 1]}), tmp_path / "t.parquet")
        refused("label 'a' is .*neither 0 nor 1", tmp_path / "t.parquet")
    path = write_table(tmp_path / "t.jsonl", {"a": [{"x": 1}], "b": [1]})
    refused("line 1: label 'a' is .*neither 0 nor 1", path)


def test_labels_of_the_unlabelled_part_are_not_used_and_this_is_said(tmp_path: Path) -> None:
    train = write_table(tmp_path / "train.csv", {"a": ["0", "1"]})
    more = write_table(tmp_path / "unlabeled.csv", {"a": ["1", "wrong"]})
    labels = labels_of((train, "train"), (more, "unlabeled"))
    assert labels.is_labeled.tolist() == [True, True, False, False] and not labels.labels[2:].any()
    assert "unlabelled part: column 'a' is not used" in notes_of(
        (train, "train"), (more, "unlabeled")
    )


def test_a_label_of_the_names_file_without_a_column_is_said(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", {"a": ["0", "1"], "b": ["1", "1"]})
    (tmp_path / "labels.txt").write_text("b\nc\na\n")
    labels = labels_of(path)
    assert labels.names == ("b", "c", "a") and np.array_equal(labels.labels, [[1, 0, 0], [1, 0, 1]])
    assert "column 'c' of labels.txt is in no table" in notes_of(path)
    (tmp_path / "labels.txt").write_text("a\n")
    refused("unknown label 'b'", path)
