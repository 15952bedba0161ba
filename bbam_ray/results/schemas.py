"""Explicit Parquet schemas of a study's tables. Missing is null; times are UTC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import pyarrow as pa

from bbam_ray.core.metric_names import METRIC_NAMES

SCHEMA_VERSION = 1


class TrialState(StrEnum):
    """How a trial ended, as in the column ``state`` of ``trials.parquet``."""

    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"


COMPLETE, PRUNED, FAILED = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED

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
    """Schema of ``trials.parquet``: one row per finished trial.

    ``state`` is a ``TrialState``. ``cost`` is null without a price per GPU-hour, ``pareto`` with a single
    objective. ``fingerprint`` identifies configuration, code, data and seed. ``answered_by`` names the
    identical earlier trial, of this study or another, whose rows were reused; null for a trained trial.
    With folds, metrics are means over the ``folds`` that were trained. ``standard_error`` is that of the
    objective: over folds, or with one fold of val_map by a bootstrap over its validation samples. ``kept``
    says in words which weights the metrics belong to.

    Args:
        parameter_kinds: "float", "int", "bool" or "str" by parameter name.
    """
    return _schema(
        [*_TRIAL, ("state", pa.string()), ("seed", pa.int64())],
        _parameters(parameter_kinds),
        _measures("val"),
        [("best_epoch", pa.int32()), ("epochs", pa.int32()), ("seconds_per_epoch", pa.float64())],
        _COST,
        [("pareto", pa.bool_()), ("fingerprint", pa.string()), ("answered_by", pa.string())],
        [("error", pa.string())],
        [("standard_error", pa.float64()), ("folds", pa.int32()), ("kept", pa.string())],
    )


def confirm_schema(parameter_kinds: Mapping[str, str]) -> pa.Schema:
    """Schema of ``confirm.parquet``: one row per answer and seed, the only table of test metrics.

    ``rank`` 1 is the final answer of the study; further ones are other configurations among the best, the
    published settings and the baselines; null for one that was confirmed before better ones were found.
    ``answer`` says which: final, trial, published or the name of a baseline, whose ``number`` is negative.
    ``networks`` is the number of networks that score a sample. ``held_out``, of a single model, is that of
    HISTORY.

    Args:
        parameter_kinds: as in ``trials_schema``.
    """
    return _schema(
        [*_TRIAL, ("rank", pa.int32()), ("seed", pa.int64())],
        _parameters(parameter_kinds),
        [("epochs", pa.int32()), ("n_labeled", pa.int64()), ("n_test", pa.int64())],
        _measures("test"),
        _COST,
        [("error", pa.string())],
        [
            ("answer", pa.string()),
            ("networks", pa.int32()),
            ("test_calibration_error", pa.float64()),
            ("held_out", pa.int64()),
        ],
    )


#: One row per compared method, label fraction and seed. ``place`` is the position of the method in
#: ``--methods``, ``settings`` are JSON.
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

#: One row per training sample. ``part`` is labeled, validation or unlabeled.
SPLIT = _schema([("index", pa.int64()), ("name", pa.string()), ("part", pa.string())])

#: One row per trial and epoch. seconds_input (reading samples, computing views), seconds_communicate
#: (messages between workers) and seconds_compile are parts of seconds_refresh and seconds_train.
#: gpu_memory is the peak, in bytes. flipped is the share of decisions on validation samples that the main
#: phase has changed, compiled the share of steps whose network was compiled or captured as a CUDA graph.
#: gpu_memory_total is the memory of the GPU, gpu_use the percentage of time in which it was busy. held_out
#: is the number of samples behind thresholds or weights of pseudo-labels; 0 = none, so they were not used.
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
            "flipped",
            "seconds_compile",
            "compiled",
            "gpu_memory_total",
            "gpu_use",
            "held_out",
        )
    ],
)

#: One row per trial, fold and epoch, if trials have several folds. HISTORY then has means over folds.
FOLDS = HISTORY.append(pa.field("fold", pa.int32()))

_COUNTS = pa.list_(pa.float64())
#: Histograms of the angles to the label prototypes, as counts in equal bins over [0, pi]. They are null
#: except at the last epoch of a trial: they would be most of the table, and a report shows one epoch.
HISTOGRAMS = ("angles_positive", "angles_negative")

#: One row per trial, epoch and label.
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
    [(name, _COUNTS) for name in HISTOGRAMS],
    [("pseudo_threshold_positive", pa.float64()), ("pseudo_threshold_negative", pa.float64())],
)
