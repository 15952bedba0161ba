"""Rows on disk: read like an array, checked when opened, damage found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbam_ray.data.cache.row_file import DamagedRowsError, StoredRows, write_rows


def made(folder: Path, rows: np.ndarray, **metadata: Any) -> Path:
    path = folder / "some.rows"
    write_rows(path, iter(rows), rows.shape[1:], rows.dtype, metadata)
    return path


@pytest.fixture(scope="module")
def numbers() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (900, 3, 70, 70), dtype=np.uint8)


@pytest.fixture(scope="module")
def large(numbers: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> StoredRows:
    """More than one block of checksums."""
    return StoredRows(made(tmp_path_factory.mktemp("rows"), numbers))


@given(rows=st.lists(st.integers(-900, 899), max_size=40))
def test_rows_by_number_are_those_of_the_array(
    rows: list[int], large: StoredRows, numbers: np.ndarray
) -> None:
    chosen = np.array(rows, dtype=np.int64)
    np.testing.assert_array_equal(large[chosen], numbers[chosen])


@pytest.mark.parametrize("rows", [0, -1, slice(3, 9), slice(None, None, -7), slice(9, 3)])
def test_numbers_and_slices_are_those_of_the_array(
    rows: Any, large: StoredRows, numbers: np.ndarray
) -> None:
    np.testing.assert_array_equal(large[rows], numbers[rows])


def test_masks_and_the_whole_are_those_of_the_array(large: StoredRows, numbers: np.ndarray) -> None:
    mask = np.arange(900) % 7 == 2
    np.testing.assert_array_equal(large[mask], numbers[mask])
    np.testing.assert_array_equal(np.asarray(large), numbers)
    assert (len(large), large.shape, large.ndim) == (900, (900, 3, 70, 70), 4)
    assert large.nbytes == numbers.nbytes


@pytest.mark.parametrize("rows", [[900], [-901]])
def test_rows_that_do_not_exist_are_refused(rows: list[int], large: StoredRows) -> None:
    with pytest.raises(IndexError, match="of 900"):
        large[np.array(rows)]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.int16])
def test_every_type_comes_back_with_its_remarks(dtype: type, tmp_path: Path) -> None:
    rows = np.arange(20, dtype=dtype).reshape(5, 4)
    stored = StoredRows(made(tmp_path, rows, note="é", list=[1, 2]))
    assert stored.dtype == dtype and stored.metadata == {"note": "é", "list": [1, 2]}
    np.testing.assert_array_equal(np.asarray(stored), rows)


def test_no_row_at_all_is_a_file_too(tmp_path: Path) -> None:
    stored = StoredRows(made(tmp_path, np.zeros((0, 3), np.float32)))
    assert stored.shape == (0, 3) and np.asarray(stored).shape == (0, 3)
    stored.verify()


def test_a_row_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"row 1 has the shape \(3,\)"):
        write_rows(tmp_path / "x", iter([np.zeros(2), np.zeros(3)]), (2,), np.float64, {})


@pytest.mark.parametrize("length", [0, 5, 100, -1, -17])
def test_a_file_that_was_cut_short_is_not_opened(length: int, tmp_path: Path) -> None:
    path = made(tmp_path, np.ones((50, 6), np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[:length])
    with pytest.raises(DamagedRowsError, match=r"some\.rows"):
        StoredRows(path)


@pytest.mark.parametrize("place", [0, -1])
def test_a_changed_first_or_last_row_is_noticed_when_opened(
    place: int, numbers: np.ndarray, tmp_path: Path
) -> None:
    path = made(tmp_path, numbers)
    flip(path, (numbers.nbytes - 1) if place else 0)
    with pytest.raises(DamagedRowsError, match="have changed"):
        StoredRows(path)


def test_a_changed_row_in_the_middle_is_found_by_verifying(
    numbers: np.ndarray, tmp_path: Path
) -> None:
    path = made(tmp_path, numbers)
    flip(path, numbers.nbytes // 2)
    stored = StoredRows(path)
    with pytest.raises(DamagedRowsError, match=r"rows \d+ to \d+ have changed"):
        stored.verify()


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 1]))


READER = """
import sys, numpy as np
from pathlib import Path
from bbam_ray.data.cache.row_file import StoredRows

def resident():
    text = Path("/proc/self/status").read_text()
    return int(next(l for l in text.splitlines() if l.startswith("VmRSS")).split()[1]) * 1024

rows = StoredRows(Path(sys.argv[1]))
rows[np.arange(64)].sum()
before = resident()
for start in range(0, len(rows), 64):
    rows[np.arange(start, min(start + 64, len(rows)))].sum()
print(resident() - before, rows.nbytes)
"""


def test_reading_all_rows_makes_a_process_no_larger(tmp_path: Path) -> None:
    """Two trials share what is in the page cache: neither keeps a copy of its own."""
    row = np.zeros((3, 224, 224), np.uint8)
    path = tmp_path / "large.rows"
    write_rows(path, (row for _ in range(1000)), row.shape, row.dtype, {})
    command = [sys.executable, "-c", READER, str(path)]
    readers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(2)
    ]
    for reader in readers:
        grown, size = map(int, reader.communicate(timeout=120)[0].split())
        assert reader.returncode == 0
        assert size == 1000 * 3 * 224 * 224 and grown < 0.1 * size
