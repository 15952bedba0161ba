"""How long a study takes, estimated from earlier studies on the same data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbam_ray.config import TrainingConfig
from bbam_ray.results.throughput import measured_throughput
from bbam_ray.scale.study.plan import StudyPlan

_SETTINGS = (
    *("backbone", "projector", "hidden_dim", "feature_dim", "labeled_fraction", "labeled_batch"),
    *("unlabeled_batch", "device", "warmup_passes", "amp", "amp_cpu"),
)
_SINCE = ("cache_features", "warmup_batch", "warmup_views", "amp_dtype")


@dataclass(frozen=True)
class TimeEstimate:
    """Expected time and cost of a study that prunes no trial.

    Args:
        seconds: of the whole study.
        seconds_per_epoch: measured in ``study``.
        study: name of the earlier study.
        runs: trials and confirmations.
        gpu_hours: of all runs.
        cost: of these GPU-hours; None without a price.
    """

    seconds: float
    seconds_per_epoch: float
    study: str
    runs: int
    gpu_hours: float
    cost: float | None


def _default(name: str) -> Any:
    return TrainingConfig.model_fields[name].default


def throughput_settings(plan: StudyPlan) -> dict[str, Any]:
    """The settings that determine how long an epoch takes, for ``study.json``."""
    config = plan.published_config
    common = config.training.model_dump(mode="json")
    return {
        **{name: common[name] for name in _SETTINGS},
        # only where they are not the default, so that records without them still count
        **{name: common[name] for name in _SINCE if common[name] != _default(name)},
        **config.data.model_dump(mode="json"),
        "workers": plan.shape.workers,
        "cpus": plan.shape.cpus,
        "gpus": plan.shape.gpus,
    }


def expected_time(plan: StudyPlan, folder: Path) -> TimeEstimate | None:
    """Estimate the time of a study; None if no comparable study was measured.

    Args:
        plan: of the study.
        folder: of its results, next to those of earlier studies.
    """
    throughput = measured_throughput(
        folder.parent, plan.settings["method"], throughput_settings(plan)
    )
    if throughput is None:
        return None
    per_run = plan.stopping.epochs * throughput.seconds_per_epoch + throughput.overhead
    runs = plan.runs
    hours = runs * per_run / 3600 * plan.gpus
    return TimeEstimate(
        seconds=runs * per_run / plan.concurrency,
        seconds_per_epoch=throughput.seconds_per_epoch,
        study=throughput.study,
        runs=runs,
        gpu_hours=hours,
        cost=plan.limits.cost_of(hours),
    )
