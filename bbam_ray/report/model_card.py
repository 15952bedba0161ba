"""The model card: how to use a model, what it was trained on, and its metrics on test data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from bbam_ray.core.metric_names import HEADLINE_METRICS
from bbam_ray.report.markdown import render_markdown
from bbam_ray.results.store import read_table
from bbam_ray.results.study import StudyRecord

_MOST_LABELS = 100


@dataclass(frozen=True)
class Origin:
    """The study or run that a model comes from.

    Args:
        record: its ``study.json``.
        model_row: the row of ``confirm.parquet`` for this model, if there is one.
        seed_rows: rows of the same configuration for all seeds, this model's included.
    """

    record: Mapping[str, Any]
    model_row: Mapping[str, Any] | None
    seed_rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class CardMetric:
    """A metric on test data.

    Args:
        value: of this model.
        mean, deviation: over the seeds of its configuration; ``deviation`` is None for a single seed.
    """

    label: str
    value: float
    mean: float
    deviation: float | None


def find_origin(model: Path) -> Origin | None:
    """The study that contains ``<study>/checkpoints/<model>``; None for a model outside of a study."""
    study = model.resolve().parents[1]
    if not (study / "study.json").is_file():
        return None
    record = StudyRecord.open(study).content
    table = study / "confirm.parquet"
    rows = read_table(table).to_pylist() if table.is_file() else []
    rows = [row for row in rows if not row["error"]]
    by_folder = {f"confirm-{row['trial_id']}-seed{row['seed']}": row for row in rows}
    only_row = rows[0] if len(rows) == 1 and model.name == "model" else None
    model_row = by_folder.get(model.name, only_row)
    seed_rows = [
        row for row in rows if model_row is not None and row["number"] == model_row["number"]
    ]
    return Origin(record, model_row, seed_rows)


def model_card(
    settings: Mapping[str, Any],
    label_names: Sequence[str],
    origin: Origin | None,
    files: Mapping[str, str],
    license_: str | None,
    *,
    networks: int = 1,
    calibrated: bool = False,
) -> str:
    """The card as Markdown.

    Args:
        settings: of the run, flat.
        label_names: K names.
        origin: the study of the model, if it is known.
        files: name and content of each exported file.
        license_: of model and data, as stated by the user.
        networks: number of networks that score a sample.
        calibrated: the scores are calibrated probabilities.
    """
    record = origin.record if origin else None
    row = origin.model_row if origin else None
    versions = record["environment"]["packages"] if record else {}
    return render_markdown(
        "model_card.md.j2",
        dataset=settings["dataset"],
        method=settings["method"],
        settings=settings,
        label_names=label_names,
        most_labels=_MOST_LABELS,
        input=_input(settings),
        files=files,
        license=license_,
        networks=networks,
        calibrated=calibrated,
        record=record,
        packages=", ".join(f"{name} {version}" for name, version in versions.items() if version),
        samples={"labelled": row["n_labeled"], "test": row["n_test"]} if row else None,
        seeds=len(origin.seed_rows) if origin else 0,
        metrics=list(_test_metrics(origin)) if origin else [],
    )


def _input(settings: Mapping[str, Any]) -> str:
    shape = settings["input_shape"]
    if "input_vocabulary" in settings:
        return f"texts of up to {shape[0]} tokens"
    return (
        f"images of {shape[1]} x {shape[2]} pixels" if len(shape) == 3 else f"{shape[0]} features"
    )


def _test_metrics(origin: Origin) -> Iterator[CardMetric]:
    if origin.model_row is None:
        return
    for name, metric in HEADLINE_METRICS.items():
        value = origin.model_row[f"test_{name}"]
        values = [row[f"test_{name}"] for row in origin.seed_rows]
        values = [v for v in values if not _missing(v)]
        if not _missing(value) and values:
            deviation = stdev(values) if len(values) > 1 else None
            yield CardMetric(metric.label, value, fmean(values), deviation)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
