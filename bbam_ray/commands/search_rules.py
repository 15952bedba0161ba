"""The rules of a search as a user gives them: sampler, pruning, budget, confirmation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bbam_ray.commands.checks import check_minimum
from bbam_ray.commands.choices import SAMPLERS, SCHEDULERS, check_choice
from bbam_ray.data.sampling.splits import Split
from bbam_ray.documents import read_yaml_mapping
from bbam_ray.errors import UsageError, nearest
from bbam_ray.methods import METHODS, run_config
from bbam_ray.scale.search.pruning import Stopping
from bbam_ray.scale.search.schedulers import find_scheduler
from bbam_ray.scale.search.space import Space
from bbam_ray.scale.study.final_kinds import Final, Pools
from bbam_ray.scale.study.plan import Limits

#: A single validation set is enough if the standard error of its val_map is at most this.
TARGET_ERROR = 0.015
_FOLDS = 5  # otherwise
_MINIMUMS = {
    "num_samples": 1,
    "grace_epochs": 1,
    "reduction_factor": 2,
    "gpu_hours": 0,
    "max_cost": 0,
    "confirm_top": 0,
    "confirm_seeds": 0,
    "max_concurrent": 1,
    "folds": 1,
}


@dataclass(frozen=True, kw_only=True)
class SearchRules:
    """Options of a search that do not concern the training of a single trial.

    Raises:
        UsageError: an unknown name, or a number that is too small.
    """

    num_samples: int = 8
    """Number of trials."""

    sampler: str = "tpe"
    """Draws configurations; a name in ``SAMPLERS``."""

    scheduler: str = "none"
    """Prunes trials; a name in ``SCHEDULERS``."""

    grace_epochs: int | None = None
    """First epoch after which a trial can be pruned; None = an eighth into the main phase."""

    reduction_factor: int = 3
    """One trial in this many passes a rung of successive halving."""

    time_budget: float | None = None
    """Seconds after which the search ends; None = no limit."""

    gpu_hours: float | None = None
    """GPU-hours of the whole study; None = no limit."""

    max_cost: float | None = None
    """Cost of the whole study, which needs ``price``; None = no limit."""

    price: float | Path | None = None
    """Price of a GPU-hour, or a YAML file of prices by GPU name."""

    warm_start: Path | None = None
    """Name or folder of a study whose results the sampler knows from the start."""

    reuse: bool = True
    """Reuse the results of identical trials (same code and data)."""

    trackers: tuple[str, ...] = ()
    """Experiment trackers: tensorboard, mlflow, wandb."""

    max_concurrent: int | None = None
    """Trials at the same time; None = as many as fit on the driver's machine."""

    confirm_top: int = 1
    """Number of best configurations that are trained again and measured on the test part."""

    confirm_seeds: int = 3
    """Number of seeds for each of them."""

    folds: int | None = None
    """Folds of the labelled samples that each trial trains; None = as many as the number of labelled
    samples needs."""

    final: str | None = None
    """Kind of the final answer: single, ensemble, soup or best; None = best with folds, else single."""

    confirm_pools: str = "same"
    """Labelled samples of the confirming runs: "same" as in the search, or "new" for each seed."""

    baselines: bool = True
    """Compare the final answer with baselines on frozen features, and use them in it if they help."""

    published: bool = True
    """Measure the published settings as well."""

    def __post_init__(self) -> None:
        check_choice("final", self.final or Final.single, tuple(Final))
        check_choice("confirm_pools", self.confirm_pools, tuple(Pools))
        check_choice("sampler", self.sampler, SAMPLERS)
        check_choice("scheduler", self.scheduler, SCHEDULERS)
        for name, least in _MINIMUMS.items():
            check_minimum(name, getattr(self, name), least)


def stopping_of(rules: SearchRules, space: Space, settings: Mapping[str, Any]) -> Stopping:
    """The pruning of a study, for the longest warm-up and training that the space allows."""
    find_scheduler(rules.scheduler)
    if rules.scheduler != "none" and len(space.objectives) > 1:
        names = ", ".join(name for name, _ in space.objectives)
        raise UsageError(
            f"--scheduler {rules.scheduler}: trials that differ in several objectives ({names}) cannot be "
            "stopped by one; use --scheduler none or one metric"
        )

    published = {**settings, **space.published}

    def longest(name: str) -> int:
        searched = space.parameters.get(name)
        extremes = searched.extremes() if searched else []
        configs = [published | {name: value} for value in extremes] or [published]
        return max(int(getattr(run_config(v, "space").training, name)) for v in configs)

    warmup = longest("warmup_epochs") if METHODS[settings["method"]].semi_supervised else 0
    epochs = longest("epochs")
    return Stopping(
        scheduler=rules.scheduler,
        grace=rules.grace_epochs or warmup + max(1, round((epochs - warmup) / 8)),
        warmup=warmup,
        epochs=epochs,
        reduction=rules.reduction_factor,
        metric=space.metric,
        mode=space.mode,
        folds=run_config(published, "space").training.folds,
        between_folds=len(space.objectives) == 1,
    )


def default_folds(labels: np.ndarray, split: Split) -> int:
    """Folds that the objective needs: 1 if its standard error on a single validation set is small.

    The standard error of a mean average precision is taken as 0.6 / sqrt(positives of the validation
    samples), which is about what folds of the digits, scene and emotions data sets show.

    Args:
        labels: (N, K) of all training samples.
        split: with a single validation set.
    """
    positives = int(labels[split.validation].sum())
    if positives and 0.6 / positives**0.5 <= TARGET_ERROR:
        return 1
    # Every fold needs a few samples.
    return max(1, min(_FOLDS, len(split.pool) // 5))


def limits_of(rules: SearchRules, gpus: float) -> Limits:
    """The budget of a study.

    Args:
        rules: of the search.
        gpus: of each worker.

    Raises:
        UsageError: a limit on GPU-hours or cost for trials without a GPU, or a cost without a price.
    """
    price = None if rules.price is None else _price(rules.price)
    if rules.max_cost is not None and price is None:
        raise UsageError(f"--max-cost {rules.max_cost:g} needs --price, the price of a GPU-hour")
    for flag, value in (("--gpu-hours", rules.gpu_hours), ("--max-cost", rules.max_cost)):
        if value is not None and not gpus:
            raise UsageError(
                f"{flag} {value:g}: these trials use no GPU, so it would never be reached; use "
                "--time-budget, or --gpus-per-worker"
            )
    return Limits(rules.time_budget, rules.gpu_hours, rules.max_cost, price)


def _price(source: float | Path) -> float:
    """A number, or the entry for this machine's GPU in a YAML file of prices by GPU name."""
    if isinstance(source, Path):
        prices = read_yaml_mapping(source)
        if not torch.cuda.is_available():
            raise UsageError(
                f"--price {source}: this machine has no GPU to look up; give the price as a number"
            )
        gpu = torch.cuda.get_device_name()
        if gpu not in prices:
            raise UsageError(f"--price {source}: has no price for '{gpu}'; {nearest(gpu, prices)}")
        entry = prices[gpu]
        price = float(entry) if isinstance(entry, (int, float)) else math.nan
    else:
        price = float(source)
    if not (price > 0 and math.isfinite(price)):
        text = source if isinstance(source, Path) else f"{source:g}"
        raise UsageError(f"--price {text}: expected a price above 0 for a GPU-hour")
    return price
