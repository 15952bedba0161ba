"""A random matrix of labels in every form and file format is read back as it was; damage is noticed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_inputs import Columns, labels_of, write_table

from bbam_ray.errors import UsageError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
NAMES = ["cat", "dog", "big bird", "caf\u00e9", "x-ray", "Label 6", "\u732b", "it's"]
Form = Callable[[np.ndarray, list[str]], Columns]


def names_of(row: np.ndarray, names: list[str]) -> list[str]:
    return [name for name, mark in zip(names, row, strict=True) if mark]


def wide(words: tuple[Any, Any]) -> Form:
    return lambda labels, names: {
        name: [words[mark] for mark in labels[:, k].tolist()] for k, name in enumerate(names)
    }


def cells(of_row: Callable[[np.ndarray, list[str]], Any]) -> Form:
    return lambda labels, names: {"labels": [of_row(row, names) for row in labels]}


TEXT_FORMS: dict[str, Form] = {
    "columns": wide(("0", "1")),
    "columns of floats": wide(("0.0", "1.0")),
    "columns of words": wide(("False", "True")),
    "bars": cells(lambda row, names: "|".join(names_of(row, names))),
    "semicolons": cells(lambda row, names: "; ".join(names_of(row, names))),
    "commas": cells(lambda row, names: ",".join(names_of(row, names))),
    "JSON": cells(lambda row, names: json.dumps(names_of(row, names))),
    "Python": cells(lambda row, names: str(names_of(row, names))),
    "tuple": cells(lambda row, names: str(tuple(names_of(row, names)))),
    "set": cells(lambda row, names: str(set(names_of(row, names)))),
    "array": cells(lambda row, names: repr(np.array(names_of(row, names), dtype=object))),
    "printed array": cells(lambda row, names: str(np.array(names_of(row, names), dtype=object))),
    "object as text": cells(
        lambda row, names: json.dumps(dict(zip(names, row.tolist(), strict=True)))
    ),
    "vector as text": cells(lambda row, names: str(row.tolist())),
    "printed vector": cells(lambda row, names: str(row)),
    "vector with commas": cells(lambda row, names: ",".join(map(str, row.tolist()))),
    "numbers with blanks": cells(lambda row, names: " ".join(map(str, np.flatnonzero(row)))),
}
VALUE_FORMS: dict[str, Form] = {
    "integers": wide((0, 1)),
    "floats": wide((0.0, 1.0)),
    "bools": wide((False, True)),
    "lists": cells(names_of),
    "vectors": cells(lambda row, names: row.tolist()),
    "vectors of floats": cells(lambda row, names: row.astype(float).tolist()),
    "vectors of bools": cells(lambda row, names: row.astype(bool).tolist()),
    "numbers": cells(lambda row, names: np.flatnonzero(row).tolist()),
    "objects": cells(lambda row, names: dict(zip(names, row.tolist(), strict=True))),
}
CASES = [(name, form, suffix) for name, form in TEXT_FORMS.items() for suffix in SUFFIXES]
CASES += [(n, form, suffix) for n, form in VALUE_FORMS.items() for suffix in (".jsonl", ".parquet")]
NEED_NAMES = ("vector", "numbers")


def matrix(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Labels with at least one positive in each row, and enough rows for their form to be clear."""
    labels: np.ndarray = (rng.random((rows, columns)) < 0.4).astype(np.uint8)
    labels[np.arange(rows), rng.integers(columns, size=rows)] = 1
    labels[:columns] = np.eye(columns, dtype=np.uint8)
    labels[columns] = 1
    return labels


def aligned(read: Any, names: list[str]) -> np.ndarray:
    columns = [read.names.index(name) for name in names]
    assert sorted(read.names) == sorted(names)
    result: np.ndarray = read.labels[:, columns]
    return result


def written(folder: Path, name: str, form: Form, suffix: str, labels: np.ndarray) -> Path:
    names = NAMES[: labels.shape[1]]
    (folder / "labels.txt").unlink(missing_ok=True)
    if name.startswith(NEED_NAMES) or "vector" in name:
        (folder / "labels.txt").write_text("\n".join(names), encoding="utf-8")
    return write_table(folder / f"t{suffix}", numbered(form(labels, names)))


def numbered(columns: Columns) -> Columns:
    """Columns behind one that is never blank: a blank line is no row."""
    return {"id": list(range(len(next(iter(columns.values()))))), **columns}


@pytest.mark.parametrize(("name", "form", "suffix"), CASES)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), columns=st.integers(3, 8))
def test_every_form_is_read_back(
    name: str, form: Form, suffix: str, seed: int, columns: int, tmp_path: Path
) -> None:
    labels = matrix(np.random.default_rng(seed), columns + 6, columns)
    read = labels_of(written(tmp_path, name, form, suffix, labels))
    np.testing.assert_array_equal(aligned(read, NAMES[:columns]), labels)
    assert read.is_labeled.all() and read.reading is not None
    assert f"{len(labels)} of {len(labels)} rows labelled" in read.reading.summary


DAMAGE = [
    *("", " ", "x", "2", "-1", "nan", "[", "]", "|", ";", ",", "'", '"', "0", "1", "true", "{}"),
    *("[]", "[[]]", "0.5", "1,0", "null", "cat", "no such label", "\u0301", "a|b", "[1, 0]"),
]


def damaged(value: Any, rng: random.Random) -> Any:
    """Another value of a cell, by replacing, cutting or extending it."""
    if not isinstance(value, str):
        value = json.dumps(value)
    ways = [
        lambda: rng.choice(DAMAGE),
        lambda: value[: rng.randrange(len(value))] if value else "x",
        lambda: value + rng.choice(DAMAGE),
        lambda: rng.choice(DAMAGE) + value,
    ]
    return rng.choice(ways)()


@pytest.mark.parametrize(("name", "form", "suffix"), CASES)
def test_one_damaged_cell_is_refused_or_changes_its_own_row_alone(
    name: str, form: Form, suffix: str, tmp_path: Path
) -> None:
    rng = random.Random(f"{name} {suffix}")
    labels = matrix(np.random.default_rng(1), 12, 4)
    path = written(tmp_path, name, form, suffix, labels)
    columns = form(labels, NAMES[:4])
    for _ in range(40):
        column, row = rng.choice(list(columns)), rng.randrange(len(labels))
        value = damaged(columns[column][row], rng)
        if suffix == ".tsv" and ("\t" in value or "\n" in value):
            continue
        if suffix in (".jsonl", ".parquet") and not isinstance(columns[column][row], str):
            try:
                value = json.loads(value)
            except ValueError:
                continue
        changed = {n: list(cells) for n, cells in columns.items()}
        changed[column][row] = value
        try:
            write_table(path, numbered(changed))
        except (TypeError, ValueError, ArithmeticError):  # Arrow has no such column
            continue
        except Exception as error:
            assert type(error).__module__.startswith("pyarrow"), error
            continue
        try:
            read = labels_of(path)
        except UsageError as error:
            assert "\n" not in str(error)
            continue
        same = np.arange(len(labels)) != row
        positions = [read.names.index(n) if n in read.names else -1 for n in NAMES[:4]]
        for k, position in enumerate(positions):
            # A label may be lost with the only row that had it.
            expected = labels[same, k] if position >= 0 else np.zeros(same.sum(), np.uint8)
            values = read.labels[same, position] if position >= 0 else labels[same, k]
            np.testing.assert_array_equal(
                values, expected, err_msg=f"{column} row {row}: {value!r}"
            )
        new = [k for k, n in enumerate(read.names) if n not in NAMES[:4]]
        assert not read.labels[np.ix_(same, new)].any(), f"{column} row {row}: {value!r}"
        assert read.is_labeled[same].all()
