"""The rules of a search as a user gives them: who draws, what ends early, what it may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbam_ray.documents import read_yaml_mapping
from bbam_ray.errors import UsageError, nearest

if TYPE_CHECKING:
    from bbam_ray.scale.search.pruning import Stopping
    from bbam_ray.scale.search.space import Space
    from bbam_ray.scale.study.plan import Limits, StudyPlan


class SamplerName(StrEnum):
    """Who draws configurations."""

    tpe = "tpe"
    gp = "gp"
    qmc = "qmc"
    random = "random"


class SchedulerName(StrEnum):
    """What ends trials early."""

    none = "none"
    asha = "asha"
    hyperband = "hyperband"
    median = "median"
    pbt = "pbt"


@dataclass(frozen=True)
class SearchRules:
    """What the options of ``tune`` say of the search itself.

    Args:
        scheduler, grace, reduction: see ``scale.early_stopping.Stopping``; grace None = an eighth of the
            main phase after the warm-up.
        sampler: see ``scale.search.ConfigSequence``.
        seconds, gpu_hours, cost, price: see ``scale.plan.Limits``; price as it was given.
        reuse, trackers, confirm_top, confirm_seeds: see ``scale.plan.StudyPlan``.
        warm_start: folder of another study.
        num_samples: trials in all.
        concurrency: trials at once; None = as many as fit.
    """

    scheduler: SchedulerName = SchedulerName.none
    grace: int | None = None
    reduction: int = 3
    sampler: SamplerName = SamplerName.tpe
    seconds: float | None = None
    gpu_hours: float | None = None
    cost: float | None = None
    price: str | None = None
    reuse: bool = True
    trackers: tuple[str, ...] = ()
    confirm_top: int = 1
    confirm_seeds: int = 3
    warm_start: Path | None = None
    num_samples: int = 8
    concurrency: int | None = None


def stopping_of(rules: SearchRules, space: Space, settings: dict[str, Any]) -> Stopping:
    """The rule of early stopping, with the longest warm-up and training that the space allows."""
    from bbam_ray.methods import METHODS, run_config
    from bbam_ray.scale.search.pruning import Stopping
    from bbam_ray.scale.search.schedulers import find_scheduler

    find_scheduler(rules.scheduler)
    if rules.scheduler is not SchedulerName.none and len(space.objectives) > 1:
        names = ", ".join(name for name, _ in space.objectives)
        raise UsageError(
            f"--scheduler {rules.scheduler}: trials that differ in several objectives ({names}) cannot be "
            "stopped by one; use --scheduler none or one metric"
        )

    given = {**settings, **space.published}

    def longest(name: str) -> int:
        searched = space.parameters.get(name)
        configs = [given | {name: v} for v in searched.extremes()] if searched else [given]
        return max(int(run_config(c, "space").training.model_dump()[name]) for c in configs)

    warmup = longest("warmup_epochs") if METHODS[settings["method"]].semi_supervised else 0
    epochs = longest("epochs")
    return Stopping(
        scheduler=rules.scheduler.value,
        grace=rules.grace or warmup + max(1, round((epochs - warmup) / 8)),
        warmup=warmup,
        epochs=epochs,
        reduction=rules.reduction,
        metric=space.metric,
        mode=space.mode,
    )


def limits_of(rules: SearchRules, gpus: float) -> Limits:
    """The budget; one in GPU-hours or money is refused where it could never be used up."""
    from bbam_ray.scale.study.plan import Limits

    price = None if rules.price is None else _price(rules.price)
    if rules.cost is not None and price is None:
        raise UsageError(f"--max-cost {rules.cost:g} needs --price, the price of a GPU-hour")
    for flag, value in (("--gpu-hours", rules.gpu_hours), ("--max-cost", rules.cost)):
        if value is not None and not gpus:
            raise UsageError(
                f"{flag} {value:g}: these trials use no GPU, so it would never be reached; use "
                "--time-budget, or --gpus-per-worker"
            )
    return Limits(rules.seconds, rules.gpu_hours, rules.cost, price)


def _price(given: str) -> float:
    """A number, or the entry for this machine's GPU in a YAML file of prices by GPU name."""
    import torch

    try:
        price = float(given)
    except ValueError:
        prices = read_yaml_mapping(Path(given))
        if not torch.cuda.is_available():
            raise UsageError(
                f"--price {given}: no GPU was found here to look up; give the price as a number"
            ) from None
        gpu = torch.cuda.get_device_name()
        if gpu not in prices:
            raise UsageError(
                f"--price {given}: has no price for '{gpu}'; {nearest(gpu, prices)}"
            ) from None
        entry = prices[gpu]
        price = float(entry) if isinstance(entry, (int, float)) else math.nan
    if not (price > 0 and math.isfinite(price)):
        raise UsageError(f"--price {given}: expected a price above 0 for a GPU-hour")
    return price


def throughput_settings(plan: StudyPlan) -> dict[str, Any]:
    """What decides how long an epoch takes; studies that agree in it can be compared."""
    from bbam_ray.methods import run_config

    config = run_config({**plan.settings, **plan.space.published}, "plan")
    common = config.training.model_dump(mode="json")
    names = "backbone hidden_dim feature_dim labeled_fraction labeled_batch unlabeled_batch device"
    return {
        **{name: common[name] for name in [*names.split(), "warmup_passes", "amp", "amp_cpu"]},
        **config.data.model_dump(mode="json"),
        "workers": plan.shape.workers,
        "cpus": plan.shape.cpus,
        "gpus": plan.shape.gpus,
    }
