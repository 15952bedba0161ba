"""``split.parquet``: the part and, with folds, the fold of every training sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bbam_ray.data.sampling.splits import Split, make_split
from bbam_ray.engine.split_file import SPLIT_FILE, NamedSplit, keep_split
from bbam_ray.errors import UsageError
from bbam_ray.results.schemas import SPLIT


def labels() -> np.ndarray:
    drawn = (np.random.default_rng(0).random((50, 3)) < 0.3).astype(np.uint8)
    drawn[:, 0] = 1
    return drawn


def split(folds: int, fold: int = 0, seed: int = 0) -> Split:
    return make_split(labels(), 0.4, 0.25, seed, folds=folds, fold=fold)


def parts(rows: list[dict[str, object]], part: str) -> list[object]:
    return [row["index"] for row in rows if row["part"] == part]


def test_without_folds_there_is_no_column_for_them() -> None:
    table = NamedSplit(split(1), None).table()
    assert table.schema.equals(SPLIT)


@pytest.mark.parametrize("folds", [2, 4])
def test_with_folds_every_labelled_sample_has_one(folds: int) -> None:
    expected = split(folds)
    table = NamedSplit(expected, [f"{n}.png" for n in range(50)]).table()
    assert table.column_names == [*SPLIT.names, "fold"]
    rows = table.to_pylist()
    assert [row["index"] for row in rows] == list(range(50))
    assert rows[7]["name"] == "7.png"
    for part in ("labeled", "validation", "unlabeled"):
        assert parts(rows, part) == getattr(expected, part).tolist()
    for row in rows:
        assert (row["fold"] is None) == (row["part"] == "unlabeled")
        assert row["fold"] != 0 or row["part"] == "validation"
    for fold in range(folds):
        held_out = [row["index"] for row in rows if row["fold"] == fold]
        assert held_out == split(folds, fold).validation.tolist()


def test_a_resumed_study_must_have_the_same_folds(tmp_path: Path) -> None:
    keep_split(tmp_path, NamedSplit(split(3), None))
    written = pq.read_table(tmp_path / SPLIT_FILE)
    keep_split(tmp_path, NamedSplit(split(3), None))
    assert pq.read_table(tmp_path / SPLIT_FILE).equals(written)
    for other in (split(1), split(4), split(3, seed=1)):
        with pytest.raises(UsageError, match="are not divided as the 50 were"):
            keep_split(tmp_path, NamedSplit(other, None))
