"""CSV and TSV: what Arrow parses is what Python's reader reads, and each error has its line."""

from __future__ import annotations

import csv
import io
import itertools
import random
from pathlib import Path
from typing import Any

import pytest

from bbam_ray.data.formats import separated
from bbam_ray.data.formats.tables import UserTable, read_user_table
from bbam_ray.errors import UsageError


def read(path: Path, content: str | bytes, **arguments: Any) -> UserTable:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_user_table(path, **arguments)


def refused(match: str, path: Path, content: str | bytes, **arguments: Any) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        read(path, content, **arguments)
    assert "\n" not in str(caught.value)


def test_a_field_may_span_lines_and_lines_are_counted(tmp_path: Path) -> None:
    content = 'id,text\r\n1,"a\r\nb ""c"" d"\r\n\r\n2,"x, y"\r\n'
    table = read(tmp_path / "t.csv", "\ufeff" + content)
    assert table.values("text") == ['a\r\nb "c" d', "x, y"]
    assert [table.where(row).rpartition(" ")[2] for row in (0, 1)] == ["3", "5"]
    refused("t.csv line 6: 3 values for 2 columns", tmp_path / "t.csv", content + "a,b,c")


@pytest.mark.parametrize(
    "line", ['"a"b,c', 'a,"b', 'a,"b"c"', '"a,b\n', "a", "a,b,c", 'a,b"c"', 'a,""b"']
)
def test_irregular_lines_are_read_or_refused_as_by_pythons_reader(
    line: str, tmp_path: Path
) -> None:
    content = f"id,text\n1,first\n{line}\n2,last\n"
    try:
        rows = [row for row in csv.reader(io.StringIO(content, newline=""), strict=True) if row]
    except csv.Error:
        rows = []
    if any(len(row) != 2 for row in rows) or not rows:
        refused(
            "line [345]: (not valid CSV|[13] values for 2 columns)", tmp_path / "t.csv", content
        )
        return
    table = read(tmp_path / "t.csv", content)
    assert [table.values("id"), table.values("text")] == [
        list(c) for c in zip(*rows[1:], strict=True)
    ]


def test_random_tables_are_the_same_by_both_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(0)
    pieces = ['"', ",", "\n", "\r\n", "a", "\u00e9", "\x00", "'", "\t", ";", "bc", "\u4e2d"]
    for number in range(150):
        rows = [
            ["".join(rng.choices(pieces, k=rng.randrange(4))) + "z" for _ in "ab"] for _ in range(5)
        ]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([["x", "y"], *rows])
        path = tmp_path / f"{number}.csv"
        table = read(path, text.getvalue())
        assert separated._well_quoted(path.read_bytes())
        wanted = [[cell.strip() for cell in column] for column in zip(*rows, strict=True)]
        assert [table.values("x"), table.values("y")] == wanted
        with monkeypatch.context() as patch:
            patch.setattr(separated, "_well_quoted", lambda content: False)
            slow = read_user_table(path)
        assert [slow.values("x"), slow.values("y")] == wanted


def test_tsv_has_no_quoting(tmp_path: Path) -> None:
    lines = ['"Yes, said', 'she"', '"whole"', 'a"b', '""']
    content = "text\tlabels\n" + "".join(f"{line}\tx\n" for line in lines)
    table = read(tmp_path / "t.tsv", content)
    assert table.values("text") == lines and len(table) == 5
    assert table.where(4).endswith("line 6")
    refused(
        "line 7: 1 values for 2 columns; a TSV file has no quoting",
        tmp_path / "t.tsv",
        content + "a\n",
    )


@pytest.mark.parametrize("length", [150_000, 3_000_000])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_long_cells_are_read(length: int, suffix: str, tmp_path: Path) -> None:
    mark = "\t" if suffix == ".tsv" else ","
    table = read(
        tmp_path / f"t{suffix}", f"text{mark}a\n{'w ' * (length // 2)}z{mark}1\nb{mark}0\n"
    )
    assert len(table.values("text")[0]) == length + 1


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("text,a\nx,1\n".encode("utf-16"), "not UTF-8 text but UTF-16"),
        ("text,a\nx,1\n".encode("utf-16-le"), "not UTF-8 text but UTF-16"),
        ("text,a\nx,1\n".encode("utf-32"), "not UTF-8 text but UTF-32"),
        ("text,a\nx,1\ncaf\u00e9,0\n".encode("cp1252"), r"line 3: not UTF-8 .*byte 0xe9.*Windows-1252"),
        ("text;a\nx;1\n", "line 1: columns are separated by semicolons"),
        ("text\ta\nx\t1\n", "separated by tabs .* instead of commas; rename it to .tsv"),
        ("text|a\nx|1\n", "separated by the character |"),
        ("sep=;\ntext;a\nx;1\n", "separated by semicolons"),
        ("text,a,a\nx,1,1\n", "column 3 has the duplicate name 'a'"),
        ("text,a,\nx,1,1\n", "column 3 has no name"),
        (",text\nx,1\n", "column 1 has no name"),
        ("", "has no rows"),
        ("text,a\n", "has no rows"),
    ],
)  # fmt: skip
def test_what_a_file_is_instead_is_said(content: str | bytes, match: str, tmp_path: Path) -> None:
    refused(match, tmp_path / "t.csv", content)


def test_a_tsv_with_commas_is_a_csv(tmp_path: Path) -> None:
    refused("separated by commas .* rename it to .csv", tmp_path / "t.tsv", "text,a\nx,1\n")


def test_a_file_without_a_header_gets_names(tmp_path: Path) -> None:
    table = read(tmp_path / "t.tsv", "one\t0,1\tx\ntwo\t27\ty\n", names=["text", "labels", "id"])
    assert table.values("labels") == ["0,1", "27"] and table.where(1).endswith("line 2")
    refused(
        "3 values, but --set column_names names 2",
        tmp_path / "t.tsv",
        "a\tb\tc\n",
        names=["x", "y"],
    )


def test_surrogates_and_other_endings(tmp_path: Path) -> None:
    refused("not UTF-8", tmp_path / "t.csv", b"text,a\n\xed\xa0\x80,1\n")
    for end, blank in itertools.product(("\n", "\r\n", "\r"), ("", "\n")):
        table = read(tmp_path / "t.csv", f"a,b{end}1,2{end}{blank}3,4")
        assert table.values("b") == ["2", "4"]
