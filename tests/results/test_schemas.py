"""Columns of the tables: explicit, versioned, complete."""

from __future__ import annotations

import pyarrow as pa
import pytest

from bbam_ray.core.metric_names import METRIC_NAMES
from bbam_ray.results import schemas

KINDS = {"scale": "float", "epochs": "int", "balance": "bool", "loss": "str"}
ALL = {
    "trials": schemas.trials_schema(KINDS),
    "confirm": schemas.confirm_schema(KINDS),
    "history": schemas.HISTORY,
    "labels": schemas.LABELS,
}
PROMISED = {
    "trials": "study trial_id number state seed best_epoch epochs started_at duration_s gpu_hours "
    "cost error",
    "confirm": "study trial_id number rank seed n_labeled n_test error",
    "history": "study trial_id number epoch phase loss lr seconds_refresh seconds_train "
    "seconds_evaluate images_per_second pseudo_precision pseudo_recall vdfd_mean "
    "seconds_input seconds_communicate gpu_memory pseudo_positives pseudo_confident "
    "gpu_memory_total gpu_use",
    "labels": "study trial_id number epoch label prior n_positive n_negative mean_positive "
    "mean_negative variance_positive variance_negative vdfd pseudo_precision pseudo_recall val_ap "
    "n_negative_kept angles_positive angles_negative",
}


@pytest.mark.parametrize("table", ALL)
def test_every_schema_carries_its_version(table: str) -> None:
    assert ALL[table].metadata == {b"schema_version": str(schemas.SCHEMA_VERSION).encode()}


@pytest.mark.parametrize("table", ALL)
def test_the_promised_columns_are_there_and_named_once_in_snake_case(table: str) -> None:
    names = ALL[table].names
    assert set(PROMISED[table].split()) <= set(names)
    assert len(names) == len(set(names))
    assert all(name == name.lower() and name.isidentifier() for name in names)


@pytest.mark.parametrize("table", ["trials", "history"])
def test_search_tables_have_every_measure_on_validation_data_and_none_on_test_data(
    table: str,
) -> None:
    assert {f"val_{name}" for name in METRIC_NAMES} <= set(ALL[table].names)
    assert not [name for name in ALL[table].names if name.startswith("test_")]


def test_only_the_confirmation_has_figures_of_the_test_part() -> None:
    assert {f"test_{name}" for name in METRIC_NAMES} <= set(ALL["confirm"].names)


@pytest.mark.parametrize("table", ["trials", "confirm"])
def test_parameters_have_columns_of_their_kind(table: str) -> None:
    schema = ALL[table]
    kinds = {name: schema.field(f"param_{name}").type for name in KINDS}
    assert kinds == {
        "scale": pa.float64(),
        "epochs": pa.int64(),
        "balance": pa.bool_(),
        "loss": pa.string(),
    }


def test_times_are_utc() -> None:
    for table in ("trials", "confirm"):
        assert ALL[table].field("started_at").type == pa.timestamp("us", tz="UTC")
