"""``train``: one configuration from Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbam_ray.commands import checks
from bbam_ray.commands.choices import names_unknown_options
from bbam_ray.commands.study_progress import LineListener
from bbam_ray.results.loading import Study, load_study
from bbam_ray.results.redaction import redacted

if TYPE_CHECKING:
    from bbam_ray.commands.study_progress import StudyListener


@names_unknown_options
def train(
    dataset: str | None = None,
    *,
    method: str | None = None,
    settings: Mapping[str, Any] | None = None,
    config: Path | str | None = None,
    name: str | None = None,
    results: Path | str = "results",
    data_dir: Path | str | None = None,
    seed: int | None = None,
    labeled_fraction: float | None = None,
    epochs: int | None = None,
    warmup_epochs: int | None = None,
    workers: int | str = 1,
    gpus_per_worker: float | str = "auto",
    cpus_per_worker: int = 1,
    address: str = "local",
    worker_timeout: float | str = "2m",
    start_timeout: float | str = "10m",
    max_failures: int = 8,
    checkpoint_every: int = 1,
    keep_checkpoints: int = 2,
    resume: bool = False,
    test: bool = False,
    quiet: bool = False,
    listener: StudyListener | None = None,
) -> Study:
    """Train one configuration and return its run; the same as ``bbam-ray train``.

    Args:
        dataset, method: by name; default: those of the settings, else digits and bbam.
        settings: such as ``study.best``; they override ``config``, and a named argument overrides them.
        config: YAML file of settings, such as a ``best.yaml``, or a search space: its published ones.
        name, results, quiet, listener: as in ``tune_study``.

    The other arguments are the options of the command; ``bbam-ray train --help`` describes them.

    Raises:
        UsageError: wrong usage; nothing was started.
        KeyboardInterrupt: passed on; completed epochs are kept.
    """
    from bbam_ray.commands import remote_results
    from bbam_ray.commands import train as command

    shape = checks.worker_shape(
        workers,
        cpus=cpus_per_worker,
        gpus=gpus_per_worker,
        timeout=worker_timeout,
        max_failures=max_failures,
    )
    chosen = checks.merged_settings(
        settings,
        dataset=dataset,
        method=method,
        seed=seed,
        data_dir=data_dir,
        labeled_fraction=labeled_fraction,
        epochs=epochs,
        warmup_epochs=warmup_epochs,
    )
    listener = listener or LineListener(print, quiet=quiet)
    with remote_results.local_results(results, [name], listener) as folder:
        options = command.TrainOptions(
            settings=chosen,
            shape=shape,
            config=None if config is None else Path(config),
            name=name,
            results=folder,
            address=address,
            start_timeout=checks.parse_duration("--start-timeout", str(start_timeout)),
            checkpoint_every=checkpoint_every,
            keep_checkpoints=keep_checkpoints,
            resume=resume,
            test=test,
        )
        result = command.run(command.prepare(options, listener), listener)
        if result.error:
            listener.warning(f"error: {redacted(result.error)}")
    return load_study(result.folder)
