"""Explicit Parquet schemas of a study's tables. Missing is null; times are UTC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from bbam_ray.core.metric_names import METRIC_NAMES

SCHEMA_VERSION = 1
COMPLETE, PRUNED, FAILED = "COMPLETE", "PRUNED", "FAILED"

_TIME = pa.timestamp("us", tz="UTC")
_KINDS = {"float": pa.float64(), "int": pa.int64(), "bool": pa.bool_(), "str": pa.string()}


def _schema(*groups: Iterable[tuple[str, pa.DataType]]) -> pa.Schema:
    fields = [pa.field(name, kind) for group in groups for name, kind in group]
    return pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION)})


def _measures(prefix: str) -> list[tuple[str, pa.DataType]]:
    return [(f"{prefix}_{name}", pa.float64()) for name in METRIC_NAMES]


def _parameters(kinds: Mapping[str, str]) -> list[tuple[str, pa.DataType]]:
    return [(f"param_{name}", _KINDS[kind]) for name, kind in kinds.items()]


_TRIAL = [("study", pa.string()), ("trial_id", pa.string()), ("number", pa.int32())]
_COST = [
    ("started_at", _TIME),
    ("duration_s", pa.float64()),
    ("gpu_hours", pa.float64()),
    ("cost", pa.float64()),
]


def trials_schema(parameter_kinds: Mapping[str, str]) -> pa.Schema:
    """One row per finished trial. Kinds are "float", "int", "bool" or "str" by parameter name.

    ``cost`` is null where no price per GPU-hour is known, ``pareto`` where there is one objective.
    ``fingerprint`` names configuration, code, data and seed; ``answered_by`` is the trial, of this
    study or another, whose rows were taken over instead of training the same again.
    """
    return _schema(
        [*_TRIAL, ("state", pa.string()), ("seed", pa.int64())],
        _parameters(parameter_kinds),
        _measures("val"),
        [("best_epoch", pa.int32()), ("epochs", pa.int32()), ("seconds_per_epoch", pa.float64())],
        _COST,
        [("pareto", pa.bool_()), ("fingerprint", pa.string()), ("answered_by", pa.string())],
        [("error", pa.string())],
    )


def confirm_schema(parameter_kinds: Mapping[str, str]) -> pa.Schema:
    """One row per configuration and seed; the only table with figures of the test part.

    ``rank`` is the configuration's place among the best ones of the study as it stands, null for one that
    was confirmed before a better one was found.
    """
    return _schema(
        [*_TRIAL, ("rank", pa.int32()), ("seed", pa.int64())],
        _parameters(parameter_kinds),
        [("epochs", pa.int32()), ("n_labeled", pa.int64()), ("n_test", pa.int64())],
        _measures("test"),
        _COST,
        [("error", pa.string())],
    )


#: one row per compared method, label fraction and seed; ``place`` is the method's place in the order that
#: was asked for, ``settings`` are JSON
COMPARE = _schema(
    [
        ("place", pa.int32()),
        ("entry", pa.string()),
        ("method", pa.string()),
        ("study", pa.string()),
    ],
    [("labeled_fraction", pa.float64()), ("seed", pa.int64()), ("trial", pa.int32())],
    [("n_labeled", pa.int64()), ("n_test", pa.int64())],
    _measures("test"),
    [("val_map", pa.float64()), ("seconds_per_epoch", pa.float64()), ("vdfd_mean", pa.float64())],
    [("settings", pa.string()), ("error", pa.string())],
)

#: one row per training sample: labeled, validation or unlabeled
SPLIT = _schema([("index", pa.int64()), ("name", pa.string()), ("part", pa.string())])

#: one row per trial and epoch; of seconds_refresh and seconds_train, seconds_input went to reading samples
#: and views, and seconds_communicate to other workers; gpu_memory is the peak in bytes
HISTORY = _schema(
    [*_TRIAL, ("epoch", pa.int32()), ("phase", pa.string())],
    [(name, pa.float64()) for name in ("loss", "loss_labeled", "loss_unlabeled")],
    _measures("val"),
    [
        (name, pa.float64())
        for name in (
            "lr",
            "seconds_refresh",
            "seconds_train",
            "seconds_evaluate",
            "seconds_input",
            "seconds_communicate",
            "images_per_second",
            "gpu_memory",
            "pseudo_positives",
            "pseudo_confident",
            "pseudo_precision",
            "pseudo_recall",
            "vdfd_mean",
        )
    ],
)

_COUNTS = pa.list_(pa.float64())
#: one row per trial, epoch and label; ``angles_*`` are counts in equal bins over [0, pi]
LABELS = _schema(
    [*_TRIAL, ("epoch", pa.int32()), ("label", pa.string())],
    [
        (name, pa.float64())
        for name in (
            "prior",
            "n_positive",
            "n_negative",
            "n_negative_kept",
            "mean_positive",
            "mean_negative",
            "variance_positive",
            "variance_negative",
            "vdfd",
            "pseudo_precision",
            "pseudo_recall",
            "val_ap",
            "threshold",
        )
    ],
    [("angles_positive", _COUNTS), ("angles_negative", _COUNTS)],
)
