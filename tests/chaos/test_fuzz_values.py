"""Former defects, found by fuzzing, in code that readers share: stored rows, JSON, values in messages."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bbam_ray.data.cache.folder import opened
from bbam_ray.data.cache.row_file import write_rows
from bbam_ray.documents import parse_json
from bbam_ray.errors import UsageError, brief, quoted


def test_stored_rows_with_changed_metadata_are_rebuilt(tmp_path: Path) -> None:
    path = tmp_path / "a.rows"
    write_rows(path, [np.zeros(3, np.uint8)] * 2, (3,), np.uint8, {"labels": "80"})
    path.write_bytes(path.read_bytes().replace(b'"80"', b'"40"'))
    assert opened(path) is None
    assert not path.exists()


@pytest.mark.parametrize(
    "header",
    [
        b"null",
        b"[" * 5000,
        b'{"shape": [-1, 2], "dtype": "u1", "metadata": {}, "checksums": []}',
        b'{"shape": [true], "dtype": [1], "metadata": {}, "checksums": []}',
        b'{"shape": [0, 9e99], "dtype": "u1", "metadata": {}, "checksums": []}',
        b'{"shape": [0, 2], "dtype": "u1", "metadata": {}, "checksums": [7]}',
    ],
)
def test_stored_rows_with_an_invalid_header_are_rebuilt(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.rows"
    tail = zlib.crc32(header).to_bytes(4, "little") + len(header).to_bytes(8, "little")
    path.write_bytes(header + tail + b"BBAMROW3")
    assert opened(path) is None


def test_a_folder_instead_of_stored_rows_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="remove it"):
        opened(tmp_path)


def test_values_in_messages_are_short_and_on_one_line() -> None:
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep, deep]
    for value in ("a\nb" * 999, "\ud800\x1b[0m", 10**9999, deep, {"x": deep}, ValueError("a\nb")):
        for text in (brief(value), quoted(value)):
            assert len(text) < 120 and text.isprintable()
    assert (brief("plain text"), quoted("it's"), brief(2.5), quoted([1, "a"])) == (
        *("plain text", '"it\'s"', "2.5", "[1, 'a']"),
    )


@pytest.mark.parametrize("text", ["[" * 5000, '"\\ud800"', "{", "9" * 5000, ""])
def test_invalid_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        parse_json(text)
    assert parse_json('"\\ud83d\\ude00"') == "\U0001f600"
