"""``tune_study``: a search from Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbam_ray.commands import checks
from bbam_ray.commands.choices import TrialRunner, check_choice, names_unknown_options
from bbam_ray.commands.study_progress import LineListener
from bbam_ray.results.loading import Study, load_study

if TYPE_CHECKING:
    from bbam_ray.commands.study_progress import StudyListener


@names_unknown_options
def tune_study(
    dataset: str = "digits",
    *,
    method: str = "bbam",
    settings: Mapping[str, Any] | None = None,
    name: str | None = None,
    results: Path | str = "results",
    data_dir: Path | str | None = None,
    seed: int | None = None,
    labeled_fraction: float | None = None,
    epochs: int | None = None,
    warmup_epochs: int | None = None,
    space: Path | str | None = None,
    num_samples: int = 8,
    sampler: str = "tpe",
    scheduler: str = "none",
    grace_epochs: int | None = None,
    reduction_factor: int = 3,
    time_budget: float | str | None = None,
    gpu_hours: float | None = None,
    max_cost: float | None = None,
    price: float | Path | str | None = None,
    warm_start: Path | str | None = None,
    reuse: bool = True,
    tracker: str | Iterable[str] = (),
    workers: int | str = 1,
    gpus_per_worker: float | str = "auto",
    cpus_per_worker: int = 1,
    max_concurrent: int | None = None,
    trial_runner: str = "auto",
    address: str = "local",
    worker_timeout: float | str = "2m",
    start_timeout: float | str = "10m",
    max_failures: int = 3,
    resume: bool = False,
    confirm_top: int = 1,
    confirm_seeds: int = 3,
    folds: int | None = None,
    final: str | None = None,
    confirm_pools: str = "same",
    baselines: bool = True,
    dashboard: bool = True,
    quiet: bool = False,
    listener: StudyListener | None = None,
) -> Study:
    """Search settings, confirm the best, and return the study; the same as ``bbam-ray tune``.

    Args:
        dataset, method: by name.
        settings: values that are not searched; a named argument overrides them.
        name: of the study; default: method and time.
        results: folder or URI of all results.
        quiet: print warnings only.
        listener: receives progress and messages instead of printing them.

    The other arguments are the options of the command; ``bbam-ray tune --help`` describes them.

    Raises:
        UsageError: wrong usage; nothing was started.
        KeyboardInterrupt: passed on; completed trials are kept.
    """
    from bbam_ray.commands import remote_results, search_rules, study_setup

    shape = checks.worker_shape(
        workers,
        cpus=cpus_per_worker,
        gpus=gpus_per_worker,
        timeout=worker_timeout,
        max_failures=max_failures,
    )
    rules = search_rules.SearchRules(
        num_samples=num_samples,
        sampler=sampler,
        scheduler=scheduler,
        grace_epochs=grace_epochs,
        reduction_factor=reduction_factor,
        time_budget=None
        if time_budget is None
        else checks.parse_duration("--time-budget", str(time_budget)),
        gpu_hours=gpu_hours,
        max_cost=max_cost,
        price=None if price is None else checks.parse_price(str(price)),
        warm_start=None if warm_start is None else Path(warm_start),
        reuse=reuse,
        trackers=(tracker,) if isinstance(tracker, str) else tuple(tracker),
        max_concurrent=max_concurrent,
        confirm_top=confirm_top,
        confirm_seeds=confirm_seeds,
        folds=folds,
        final=final,
        confirm_pools=confirm_pools,
        baselines=baselines,
    )
    check_choice("trial_runner", trial_runner, tuple(TrialRunner))
    chosen = checks.merged_settings(
        settings,
        seed=seed,
        data_dir=data_dir,
        labeled_fraction=labeled_fraction,
        epochs=epochs,
        warmup_epochs=warmup_epochs,
    )
    listener = listener or LineListener(print, quiet=quiet)
    with remote_results.local_results(results, (name, warm_start), listener) as folder:
        options = study_setup.TuneOptions(
            settings={"seed": 0, **chosen, "dataset": dataset, "method": method},
            shape=shape,
            rules=rules,
            space=None if space is None else Path(space),
            runner=TrialRunner(trial_runner),
            name=name,
            results=folder,
            address=address,
            start_timeout=checks.parse_duration("--start-timeout", str(start_timeout)),
            dashboard=dashboard,
            resume=resume,
        )
        study = study_setup.prepare(options, listener)
        from bbam_ray.commands import tune as command  # loads Ray

        if command.run(study, listener).interrupted:
            raise KeyboardInterrupt
    return load_study(study.folder)
