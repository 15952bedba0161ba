"""Every form of labels in a column ``labels``: what is read, what is refused, and what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from label_inputs import labels_of, sets_of, write_table

from bbam_ray.errors import UsageError

WANTED = [{"Drama"}, {"Drama", "Comedy", "Action"}, {"Action"}, {"Drama", "Action"}]


def table(folder: Path, name: str, cells: list[Any]) -> Path:
    return write_table(folder / name, {"id": list(map(str, range(len(cells)))), "labels": cells})


def refused(match: str, *paths: Any, **options: Any) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        labels_of(*paths, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet"])
@pytest.mark.parametrize(
    ("cells", "form"),
    [
        (["Drama", "Drama|Comedy|Action", "Action", "Drama|Action"], "separated by '|'"),
        (["Drama", "Drama; Comedy; Action", "Action", "Drama;Action"], "separated by ';'"),
        (["Drama", "Drama,Comedy,Action", "Action", "Drama, Action"], "separated by ','"),
        (["Drama", "Drama Comedy Action", "Action", "Comedy", "Drama Action"], "blanks"),
        (["['Drama']", "['Drama', 'Comedy', 'Action']", "['Action']", "['Drama','Action']"], "text"),
        (['["Drama"]', '["Drama", "Comedy", "Action"]', '["Action"]', '["Drama","Action"]'], "text"),
        (["('Drama',)", "('Drama', 'Comedy', 'Action')", "('Action',)", "('Drama','Action')"], "text"),
        (["{'Drama'}", "{'Drama', 'Comedy', 'Action'}", "{'Action'}", "{'Drama','Action'}"], "text"),
        (["['Drama']", "['Drama' 'Comedy' 'Action']", "['Action']", "['Drama' 'Action']"], "text"),
        (["array(['Drama'], dtype=object)", "['Drama', 'Comedy', 'Action']", "['Action']",
          "array(['Drama', 'Action'], dtype='<U6')"], "text"),
        (["[np.str_('Drama')]", "['Drama', 'Comedy', 'Action']", "['Action']",
          "[np.str_('Drama'), np.str_('Action')]"], "text"),
        (["'Drama'", "'Drama', 'Comedy', 'Action'", "'Action'", "'Drama', 'Action'"], "text"),
    ],
)  # fmt: skip
def test_texts_are_read_in_their_form(
    name: str, cells: list[str], form: str, tmp_path: Path
) -> None:
    labels = labels_of(table(tmp_path, name, cells))
    wanted = WANTED if len(cells) == 4 else [*WANTED[:3], {"Comedy"}, WANTED[3]]
    assert sets_of(labels) == wanted and labels.names == ("Action", "Comedy", "Drama")
    assert labels.reading is not None and form in labels.reading.summary
    assert labels.reading.summary.endswith(f"3 names; {len(cells)} of {len(cells)} rows labelled")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["[Drama; Comedy]", "[Drama]"], r"line 2: labels = '\[Drama; Comedy\]' begins and ends"),
        (["['Drama', Comedy]", "['Drama']"], "neither JSON nor a Python list"),
        (["['Drama' 'Comedy', 'Action']", "['Drama']"], "a comma is missing"),
        (["{Drama,Comedy}", "{Drama}"], "begins and ends like a list"),
        (["[[1, 2]]", "[[3]]"], "which is a list, inside a list"),
        (["['Drama']", "Comedy"], r"line 2: .*label_format=lists or --set label_format=separated"),
        (["a|b;c", "d"], r"line 2: labels contain \| and ;; .*label_separator"),
        (["a||b", "c"], "line 2: one of its labels is blank"),
        (["['a', '']", "['b']"], "line 2: one of its labels is blank"),
        (["['a', None]", "['b']"], "line 2: one of its labels is blank"),
        (["new york", "york", "old town"], r"line 2: labels = 'new york' is either one label, or"),
        (["Paris, France", "Rome, Italy", "Bonn, Germany"], "either one label with a comma"),
        (["a\nb", "c"], "line 3: .*contains line breaks or tabs"),
        (["[0 0 ... 1]", "[1 1 ... 1]"], "begins and ends like a list"),
        (["[1, 'a']", "['b']"], "both texts and numbers"),
        (["[1.5, 2.0]", "[3.0]"], "neither a name, nor the number of a class"),
        (["['a']", "{'a': 1}"], "line 3: labels is an object, and a list in other rows"),
        (["0", "1"], "0 or 1 in all rows.*label_format=vectors or .*label_format=numbers"),
        (["1,0,1", "0,1", "1,1,0"], "line 3: a vector of 2 zeros and ones"),
    ],
)  # fmt: skip
def test_texts_with_two_forms_or_none_are_refused(
    cells: list[str], message: str, tmp_path: Path
) -> None:
    refused(message, table(tmp_path, "t.csv", cells))


@pytest.mark.parametrize(
    ("cells", "options", "wanted"),
    [
        (["[a]|[b]", "[b]"], {"label_format": "separated"}, [{"[a]", "[b]"}, {"[b]"}]),
        (["new york", "york"], {"label_format": "single"}, [{"new york"}, {"york"}]),
        (["new york", "york"], {"label_format": "separated"}, [{"new", "york"}, {"york"}]),
        (["a  b", "c"], {"label_separator": " "}, [{"a", "b"}, {"c"}]),
        (["a - b", "c"], {"label_separator": " - "}, [{"a", "b"}, {"c"}]),
        (["a\nb", "c"], {"label_separator": "\n"}, [{"a", "b"}, {"c"}]),
        (["a|b;c", "d"], {"label_separator": ";"}, [{"a|b", "c"}, {"d"}]),
        (["nan", "a|nan", "a"], {"blank_texts": "nan,None", "blank": "unlabeled"}, None),
        (["0", "1"], {"label_format": "numbers"}, [{"0"}, {"1"}]),
    ],
)
def test_a_setting_decides(
    cells: list[str], options: dict[str, str], wanted: Any, tmp_path: Path
) -> None:
    path = table(tmp_path, "t.csv", cells)
    if wanted is None:
        wanted = [None, {"a", "nan"}, {"a"}]
    assert sets_of(labels_of(path, **options)) == wanted


VECTORS = [[1, 0, 0], [1, 1, 1], [0, 0, 1], [1, 0, 1]]
VECTOR_SETS = [{"a"}, {"a", "b", "c"}, {"c"}, {"a", "c"}]


def vector_cells(kind: str) -> list[Any]:
    return {
        "int": VECTORS,
        "float": [list(map(float, row)) for row in VECTORS],
        "bool": [list(map(bool, row)) for row in VECTORS],
        "text": [",".join(map(str, row)) for row in VECTORS],
        "blanks": [" ".join(map(str, row)) for row in VECTORS],
        "json": [json.dumps(row) for row in VECTORS],
        "python": [str(list(map(bool, row))) for row in VECTORS],
        "numpy": [str(np.array(row)) for row in VECTORS],
        "numpy float": [str(np.array(row, float)) for row in VECTORS],
        "numpy bool": [str(np.array(row, bool)) for row in VECTORS],
    }[kind]


KINDS = ["int", "float", "bool", "text", "json", "python", "numpy", "numpy float", "numpy bool"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_get_the_names_of_the_file_and_are_refused_without(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    path = table(tmp_path, f"t{suffix}", vector_cells(kind))
    refused(
        r"vector of 3 zeros and ones, and the names of the labels are unknown; .*labels\.txt", path
    )
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    labels = labels_of(path)
    assert sets_of(labels) == VECTOR_SETS
    assert labels.reading is not None
    assert "vectors of 0 and 1, 3 names from labels.txt" in labels.reading.summary
    (tmp_path / "labels.txt").write_text("a\nb\n")
    refused("vector of 3 .*labels.txt has 2 names", path)


@pytest.mark.parametrize("kind", [pa.uint8(), pa.int64(), pa.float32(), pa.bool_()])
@pytest.mark.parametrize("fixed", [False, True])
def test_vectors_of_every_arrow_type_are_vectors(kind: Any, fixed: bool, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    column = pa.array(VECTORS, pa.list_(pa.uint8(), 3) if fixed else pa.list_(pa.uint8()))
    column = column.cast(pa.list_(kind, 3) if fixed else pa.large_list(kind))
    pq.write_table(pa.table({"labels": column}), tmp_path / "t.parquet")
    assert sets_of(labels_of(tmp_path / "t.parquet")) == VECTOR_SETS


def test_vectors_with_gaps(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    assert sets_of(labels_of(table(tmp_path, "t.jsonl", [None, *VECTORS]))) == [None, *VECTOR_SETS]
    for fixed in (True, False):
        kind = pa.list_(pa.int8(), 3) if fixed else pa.list_(pa.int8())
        pq.write_table(
            pa.table({"labels": pa.array([None, *VECTORS], kind)}), tmp_path / "t.parquet"
        )
        assert sets_of(labels_of(tmp_path / "t.parquet")) == [None, *VECTOR_SETS]
    refused(
        "line 2: a vector of 2 zeros", table(tmp_path, "u.jsonl", [[1, 1, 0], [1, 1], [0, 0, 1]])
    )
    refused(
        "line 1: .* 2, which is neither|line 1: .*0 or 1", table(tmp_path, "v.jsonl", [[0.5, 1.0]])
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_numbers_are_lines_of_the_names_file(suffix: str, tmp_path: Path) -> None:
    names = [f"feeling {k}" for k in range(28)]
    cells: list[Any] = [[0, 1, 2], [27], [0]]
    if suffix == ".csv":
        cells = [",".join(map(str, row)) for row in cells]
    path = table(tmp_path, f"t{suffix}", cells)
    assert labels_of(path).names == ("0", "1", "2", "27")  # numbers by value, not by text
    (tmp_path / "labels.txt").write_text("\n".join(names))
    labels = labels_of(path)
    assert labels.names == tuple(names)
    assert sets_of(labels) == [set(names[:3]), {names[27]}, {names[0]}]
    (tmp_path / "labels.txt").write_text("\n".join(names[:27]))
    refused(r"label number 27 is not in 0 to 26; .*labels\.txt", path)


def test_numbers_that_are_also_names_are_ambiguous(tmp_path: Path) -> None:
    path = table(tmp_path, "t.csv", ["2,1", "0", "2"])
    (tmp_path / "labels.txt").write_text("2\n1\n0\n")
    refused("label_format=names or --set label_format=numbers", path)
    assert sets_of(labels_of(path, label_format="names"))[1] == {"0"}
    assert sets_of(labels_of(path, label_format="numbers"))[1] == {"2"}
    (tmp_path / "labels.txt").write_text("0\n1\n2\n")
    assert sets_of(labels_of(path)) == [{"2", "1"}, {"0"}, {"2"}]


def test_one_number_per_row_is_a_class(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    path = table(tmp_path, "t.jsonl", [2, 0, None, 1.0])
    assert sets_of(labels_of(path)) == [{"c"}, {"a"}, None, {"b"}]
    refused("both texts and numbers|of another kind", table(tmp_path, "u.jsonl", [2, "a"]))
    refused(
        "labels is True; name the column like its label", table(tmp_path, "v.jsonl", [True, False])
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_objects_say_each_label(suffix: str, tmp_path: Path) -> None:
    cells: list[Any] = [{"a": 1, "b": 0}, {"a": 0, "b": 0}, {"a": True, "b": 1.0}]
    if suffix == ".csv":
        cells = [json.dumps(cell) for cell in cells]
    if suffix == ".parquet":
        cells[2] = {"a": 1, "b": 1}
    labels = labels_of(table(tmp_path, f"t{suffix}", cells))
    assert sets_of(labels) == [{"a"}, set(), {"a", "b"}]
    assert labels.reading is not None and "objects of names with 0 or 1" in labels.reading.summary


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([{"a": 1, "b": 0}, {"a": 1}], "line 2: 'b' is missing in the object"),
        ([{"a": 1}, {"a": 2}], "line 2: 'a' is 2 in the object"),
        ([[["Drama"]], [["Comedy"]]], r"line 1: labels has \['Drama'\], which is a list, inside a list"),
        ([[{"name": "a"}]], "which is an object, inside a list"),
        ([["a"], "b"], "line 2: labels = 'b' is of another kind"),
        ([["a", 1]], "line 1: labels has both texts and numbers"),
        ([["a", None]], "line 1: one of its labels is blank"),
        ([["a", " "]], "line 1: one of its labels is blank"),
    ],
)  # fmt: skip
def test_values_that_are_no_labels_are_refused(
    cells: list[Any], message: str, tmp_path: Path
) -> None:
    refused(message, table(tmp_path, "t.jsonl", cells))


def hugging_face(path: Path, columns: dict[str, Any], features: dict[str, Any]) -> Path:
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


CLASSES = {"names": ["cat", "dog", "bird"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    "feature",
    [
        {"feature": CLASSES, "_type": "Sequence"},
        {"feature": CLASSES, "_type": "List", "length": -1},
        [CLASSES],
        CLASSES,
    ],
)
def test_only_the_names_of_the_feature_labels_are_used(feature: Any, tmp_path: Path) -> None:
    source = {"names": ["web", "book"], "_type": "ClassLabel"}
    single = feature is CLASSES
    columns = {"source": [0, 1, 0], "labels": [2, 0, 1] if single else [[2, 0], [], [1]]}
    path = hugging_face(tmp_path / "t.parquet", columns, {"source": source, "labels": feature})
    labels = labels_of(path)
    assert labels.names == ("cat", "dog", "bird")
    wanted = [{"bird"}, {"cat"}, {"dog"}] if single else [{"bird", "cat"}, set(), {"dog"}]
    assert sets_of(labels) == wanted
    assert labels.reading is not None and "not used: column 'source'" in labels.reading.notes
    other = hugging_face(tmp_path / "u.parquet", columns, {"source": source})
    assert labels_of(other, label_columns="labels").names == ("0", "1", "2")


def test_missing_values_are_null_and_texts_like_them_are_said(tmp_path: Path) -> None:
    path = table(tmp_path, "t.jsonl", [float("nan"), ["a"], ["b"]])
    assert sets_of(labels_of(path)) == [None, {"a"}, {"b"}]
    labels = labels_of(table(tmp_path, "t.csv", ["a", "nan", "None|a"]))
    assert labels.reading is not None
    assert "'None' and 'nan' are labels" in labels.reading.notes[0]
    assert "--set blank_texts=None,nan" in labels.reading.notes[0]


def test_unicode_forms_are_one_label_and_case_is_said(tmp_path: Path) -> None:
    labels = labels_of(table(tmp_path, "t.csv", ["cafe\u0301", "caf\u00e9|tea", "\u200btea\u00a0"]))
    assert labels.names == ("caf\u00e9", "tea")
    assert sets_of(labels) == [{"caf\u00e9"}, {"caf\u00e9", "tea"}, {"tea"}]
    labels = labels_of(table(tmp_path, "u.csv", ["Drama", "drama |x", "DRAMA"]))
    assert labels.reading is not None and len(labels.names) == 4
    assert "'DRAMA', 'Drama', 'drama'" in labels.reading.notes[0]


def test_a_label_twice_in_a_row_is_said(tmp_path: Path) -> None:
    labels = labels_of(table(tmp_path, "t.jsonl", [["a", "a"], ["b"]]))
    assert sets_of(labels) == [{"a"}, {"b"}] and labels.reading is not None
    assert "more than once in a row, 1 times" in labels.reading.notes[0]


def test_files_of_two_kinds_are_read_each_in_its_own_form(tmp_path: Path) -> None:
    first = table(tmp_path, "a.jsonl", [["x", "y"], []])
    second = table(tmp_path, "b.csv", ["x|z", "z"])
    labels = labels_of(first, second)
    assert labels.names == ("x", "y", "z")
    assert sets_of(labels) == [{"x", "y"}, set(), {"x", "z"}, {"z"}]


def test_the_first_rows_are_shown_as_understood(tmp_path: Path) -> None:
    labels = labels_of(table(tmp_path, "t.jsonl", [["b", "a"], [], None, ["c"]]))
    assert labels.reading is not None
    assert labels.reading.rows == (
        "t.jsonl line 1: a, b",
        "t.jsonl line 2: no label applies",
        "t.jsonl line 3: not labelled",
    )


def test_a_name_twice_in_a_line_of_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"labels": ["a"], "labels": ["b"]}\n')
    refused("line 1: not JSON .duplicate name 'labels'", tmp_path / "t.jsonl")
