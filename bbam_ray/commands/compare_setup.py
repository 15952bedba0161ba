"""The options of a comparison of methods, and everything that happens before it starts; loads no Ray."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbam_ray.commands import checks
from bbam_ray.commands.choices import TrialRunner
from bbam_ray.commands.gpus import of_resumed, with_gpus
from bbam_ray.commands.label_reading import report_reading
from bbam_ray.commands.listener import SILENT, Listener, reports_decoding
from bbam_ray.commands.search_rules import SearchRules
from bbam_ray.commands.study_plan import find_space, make_plan
from bbam_ray.data import Samples
from bbam_ray.documents import parse_assignments
from bbam_ray.engine.split_file import NamedSplit
from bbam_ray.engine.task import check_labeled_test
from bbam_ray.errors import UsageError
from bbam_ray.methods import METHODS, known_settings, run_config, setting_hint
from bbam_ray.results.study import check_folder, is_empty_study
from bbam_ray.scale.study.plan import StudyPlan
from bbam_ray.scale.workers.shapes import WorkerRequest


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Options of a comparison."""

    settings: Mapping[str, Any]
    """Flat settings that all runs share: ``dataset``, ``seed`` and any others."""

    shape: WorkerRequest
    """Workers of a run."""

    methods: Sequence[str] = ()
    """Methods, each as METHOD or METHOD:KEY=VALUE+KEY=VALUE; empty = all methods."""

    labeled_fractions: Sequence[float] = (0.05,)
    """Shares of the training samples whose labels may be used."""

    seeds: int = 5
    """Number of runs of each method on the test part."""

    tune_samples: int = 1
    """Trials of each search; 1 = the published settings."""

    folds: int = 1
    """Folds of the labelled samples that each trial trains; 1 = one validation set, as in papers."""

    max_concurrent: int | None = None
    """Runs at the same time; None = as many as fit on the driver's machine."""

    name: str = "comparison"
    """Name of the comparison."""

    results: Path = Path("results")
    """Folder of all results."""

    address: str = "local"
    """Ray: local, auto, or ray://HOST:PORT."""

    resume: bool = False
    """Resume the comparison ``name``, or add methods to it."""

    def __post_init__(self) -> None:
        checks.check_minimum("seeds", self.seeds, 1)
        checks.check_minimum("tune_samples", self.tune_samples, 1)
        checks.check_minimum("folds", self.folds, 1)


@dataclass(frozen=True)
class Entry:
    """One line of the comparison at one label fraction.

    Args:
        text: as the user wrote it, for example "bbam" or "bbam:balance=false".
        method, settings: what the text means.
        fraction: of labels.
        folder: of its study.
        space: its search space file.
    """

    text: str
    method: str
    settings: dict[str, Any]
    fraction: float
    folder: Path
    space: Path


@dataclass(frozen=True)
class EntryPlan:
    """An entry with the plan of its study and the division of the samples."""

    entry: Entry
    plan: StudyPlan
    split: NamedSplit


@dataclass(frozen=True)
class PreparedComparison:
    """A checked comparison; nothing has been started or written."""

    options: CompareOptions
    folder: Path
    studies: list[EntryPlan]


def prepare(options: CompareOptions, listener: Listener = SILENT) -> PreparedComparison:
    """Check all options and read the training part; starts and writes nothing.

    Raises:
        UsageError: names what is wrong with any of the entries.
    """
    checks.check_address(options.address)
    dataset = options.settings["dataset"]
    folder = check_folder(
        options.results, dataset, options.name, resume=False, may_exist=options.resume
    )
    entries = _entries(dataset, options.methods, options.labeled_fractions, folder)
    with reports_decoding(listener):
        studies, samples = _plans(options, entries)
    for each in samples:
        report_reading(each, listener)
    return PreparedComparison(options, folder, studies)


def _entries(
    dataset: str, methods: Sequence[str], fractions: Sequence[float], folder: Path
) -> list[Entry]:
    """Every method at every label fraction."""
    texts = list(methods) or list(METHODS)
    if len(set(texts)) < len(texts):
        raise UsageError(f"--methods {','.join(methods)}: a method is given twice; give each once")
    if not fractions or any(not 0 < fraction < 1 for fraction in fractions):
        numbers = ",".join(f"{fraction:g}" for fraction in fractions)
        raise UsageError(f"--labeled-fractions {numbers}: expected shares such as 0.05,0.1,0.2")
    entries = []
    for fraction in sorted(set(fractions)):
        for text in texts:
            method, _, settings = text.partition(":")
            space = find_space(None, dataset, method)
            known = known_settings(dataset, method)
            assigned = parse_assignments(settings.split("+") if settings else [])
            for setting in assigned:
                if setting not in known:
                    raise UsageError(
                        f"--methods {text}: unknown setting '{setting}'; {setting_hint(setting, known)}"
                    )
            study = re.sub(r"[^A-Za-z0-9.]+", "-", f"{text}-{fraction:g}").strip("-")
            study_folder = folder.with_name(f"{folder.name}.{study}")
            entries.append(Entry(text, method, assigned, fraction, study_folder, space))
    return entries


def _plans(options: CompareOptions, entries: list[Entry]) -> tuple[list[EntryPlan], list[Samples]]:
    """The plans of all entries, and the training parts, which entries with the same data share."""
    rules = SearchRules(
        confirm_seeds=options.seeds,
        num_samples=options.tune_samples,
        max_concurrent=options.max_concurrent,
        folds=options.folds,
        # As in papers: a single model, other labelled samples for every seed.
        final="single",
        confirm_pools="new",
        baselines=False,
        published=False,
    )
    plans = []
    samples_by_data: dict[str, Samples] = {}
    new_shape = with_gpus(options.shape, options.address)
    for entry in entries:
        settings = {
            **options.settings,
            "method": entry.method,
            "labeled_fraction": entry.fraction,
            **entry.settings,
        }
        config = run_config(settings, "command line")
        data = repr((config.data, config.training.data_dir))
        shape = new_shape
        if options.resume and not is_empty_study(entry.folder):
            shape = with_gpus(of_resumed(options.shape, entry.folder), options.address)
        plan, task = make_plan(
            settings,
            entry.space,
            shape,
            rules,
            runner=TrialRunner.gang,
            local=options.address == "local",
            samples=samples_by_data.get(data),
        )
        check_labeled_test(task.samples)  # a comparison is one of test figures
        samples_by_data[data] = task.samples
        plans.append(EntryPlan(entry, plan, NamedSplit.of_study(task, plan.settings)))
    return plans, list(samples_by_data.values())
