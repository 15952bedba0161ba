"""Values and events of training as short lines of text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bbam_ray.results.store import was_not_started
from bbam_ray.results.summary import duration


def short(value: Any) -> str:
    """A setting as ``--set`` and YAML files take it, with three significant digits."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if value == float("inf"):
        return ".inf"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def epoch_line(row: Mapping[str, Any], epochs: int) -> str:
    """One epoch of a run.

    Args:
        row: of the history table.
        epochs: of the whole run.
    """
    seconds = sum(row[f"seconds_{part}"] for part in ("refresh", "train", "evaluate"))
    metrics = ""
    if (loss := row.get("loss")) is not None:
        metrics += f"  loss {loss:.4f}"
    if (value := row.get("val_map")) is not None:
        metrics += f"  val_map {value:.4f}"
    if (precision := row.get("pseudo_precision")) is not None:
        metrics += f"  pseudo-label precision {precision:.3f}"
    return f"epoch {row['epoch']:>3}/{epochs}  {row['phase']:<6}{metrics}  {seconds:.1f}s"


def trial_line(row: Mapping[str, Any], metric: str, folds: int = 1) -> str:
    """A trial that has ended, without its study.

    Args:
        row: of the trial.
        metric: the objective.
        folds: of a complete trial; the value of a trial with fewer cannot be compared with others.
    """
    value, source = row.get(metric), row.get("answered_by")
    result = f"{metric} {value:.4f}" if value is not None else row["error"]
    if was_not_started(row):
        result = "its worker could not start"  # the reason is reported once for all trials
    took = f"from {source}" if source else duration(row["duration_s"])
    if value is not None and row.get("standard_error") is not None:
        result += f" +- {row['standard_error']:.4f}"
    epochs = f"{row['epochs']} epochs"
    if folds > 1:
        trained = row.get("folds") or 0
        of_all = "" if trained == folds else f"{trained} of "
        epochs = f"{of_all}{folds} folds, {epochs}"
    line = f"trial {row['number']:>3}  {row['state'].lower():<8}  {result}  {epochs}  {took}"
    reason = row.get("kept") or ""
    return f"{line}\n           {reason}" if reason.startswith("warmup:") else line


def confirmation_line(row: Mapping[str, Any]) -> str:
    """A run that confirms one of the best configurations."""
    result = row.get("error") or f"test_map {row['test_map']:.4f}"
    if row.get("error") and row.get("started_at", "known") is None:
        result = "its worker could not start"
    name, took = row.get("answer") or "trial", duration(row["duration_s"])
    return f"confirm  {name}  seed {row['seed']}  {result}  {took}"
