"""The benchmark of linear models of photographs, on a small table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.linear_start import BASELINE, HELD_OUT, VARIANTS, divided, measure, table

SAMPLES, FEATURES = 700, 6


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A divided table: two labels that depend on the features, and ten rows of a test part."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(3)
    values = rng.standard_normal((SAMPLES + 10, FEATURES)).astype(np.float32)
    names = [[n for n, v in zip("ab", row, strict=False) if v > 0.3] for row in values]
    source = pa.table(
        {
            "features": pa.FixedSizeListArray.from_arrays(values.ravel(), FEATURES),
            "labels": pa.array(names),
            "split": ["train"] * SAMPLES + ["test"] * 10,
        }
    )
    pq.write_table(source, folder / "source.parquet")
    divided(folder / "source.parquet", folder / "features.parquet")
    return folder / "features.parquet"


def test_the_test_part_is_left_out_and_training_samples_are_held_out(features: Path) -> None:
    rows = pd.read_parquet(features)
    assert rows["split"].value_counts().to_dict() == {"train": SAMPLES - HELD_OUT, "test": HELD_OUT}
    source = pd.read_parquet(features.with_name("source.parquet"))
    known = source[source["split"] == "train"]
    assert np.array_equal(np.stack(rows["features"]), np.stack(known["features"]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_trained(variant: str, features: Path) -> None:
    short = {} if VARIANTS[variant].get("method", "bbam").startswith("logistic") else {"epochs": 2}
    if short:
        short["warmup_epochs"] = 2 if variant.startswith("warm-up") else 1
    assert measure(variant, 10, features, **short)["map"] > 0.5  # chance is 0.38


def test_the_table_has_paired_differences() -> None:
    rows = [
        {"variant": variant, "seed": seed, "map": value + seed / 10}
        for variant, value in ((BASELINE, 0.3), ("main", 0.32))
        for seed in (0, 1)
    ]
    lines = table(pd.DataFrame(rows)).splitlines()
    assert lines[2:] == ["| logistic | 2 | 0.350 |  |", "| main | 2 | 0.370 | +2.0 [+2.0, +2.0] |"]
