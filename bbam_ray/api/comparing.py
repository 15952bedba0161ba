"""``compare``: several methods under one protocol, from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bbam_ray.commands import checks
from bbam_ray.commands.choices import names_unknown_options
from bbam_ray.commands.study_progress import LineListener

if TYPE_CHECKING:
    from bbam_ray.commands.study_progress import StudyListener


@names_unknown_options
def compare(
    dataset: str = "digits",
    *,
    methods: Sequence[str] = (),
    labeled_fractions: Sequence[float] = (0.05,),
    seeds: int = 5,
    tune_samples: int = 1,
    folds: int = 1,
    settings: Mapping[str, Any] | None = None,
    name: str = "comparison",
    results: Path | str = "results",
    data_dir: Path | str | None = None,
    seed: int | None = None,
    epochs: int | None = None,
    warmup_epochs: int | None = None,
    gpus_per_worker: float | str = "auto",
    cpus_per_worker: int = 1,
    max_concurrent: int | None = None,
    address: str = "local",
    resume: bool = False,
    quiet: bool = False,
    listener: StudyListener | None = None,
) -> pd.DataFrame:
    """Compare methods with the same splits, backbone and budget; the same as ``bbam-ray compare``.

    Args:
        dataset: by name.
        methods: each as METHOD or METHOD:KEY=VALUE+KEY=VALUE; empty = all methods.
        labeled_fractions: shares of the training samples whose labels may be used, in (0, 1).
        seeds: runs of each method on the test part.
        tune_samples: trials of each search; 1 = the published settings.
        folds: of the labelled samples that each trial trains; 1 = one validation set, as in papers.
        settings: values that all methods share.
        name, results, quiet, listener: as in ``tune_study``.

    The other arguments are the options of the command; ``bbam-ray compare --help`` describes them.

    Returns:
        A row for each method, label fraction and seed: ``entry``, ``seed``, ``test_map`` and the other
        columns of ``compare.parquet``.

    Raises:
        UsageError: wrong usage; nothing was started.
        KeyboardInterrupt: passed on; completed runs are kept.
    """
    from bbam_ray.commands import compare_setup, remote_results

    shape = checks.worker_shape(
        1, cpus=cpus_per_worker, gpus=gpus_per_worker, timeout="2m", max_failures=3
    )
    chosen = checks.merged_settings(
        settings, seed=seed, data_dir=data_dir, epochs=epochs, warmup_epochs=warmup_epochs
    )
    listener = listener or LineListener(print, quiet=quiet)
    with remote_results.local_results(results, [name], listener) as folder:
        options = compare_setup.CompareOptions(
            settings={"seed": 0, **chosen, "dataset": dataset},
            shape=shape,
            methods=list(methods),
            labeled_fractions=list(labeled_fractions),
            seeds=seeds,
            tune_samples=tune_samples,
            folds=folds,
            max_concurrent=max_concurrent,
            name=name,
            results=folder,
            address=address,
            resume=resume,
        )
        prepared = compare_setup.prepare(options, listener)
        from bbam_ray.commands import compare as command  # loads Ray

        result = command.run(prepared, listener)
        if result.interrupted:
            raise KeyboardInterrupt
    return pd.DataFrame(result.rows)
