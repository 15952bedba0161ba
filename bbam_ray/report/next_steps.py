"""What to do next with a study: commands to copy, valid for this study in its present state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbam_ray.report.comparison_options import comparison_options
from bbam_ray.report.report_data import ReportData
from bbam_ray.report.study_command import NOT_RECORDED, StudyCommand, study_address
from bbam_ray.report.verdict import UNFINISHED, gain_over_published
from bbam_ray.results.redaction import MARK, redacted_command
from bbam_ray.results.study import FAILED, INTERRUPTED, RUNNING
from bbam_ray.results.summary import confirmed_metrics

_MORE_SEEDS = 5  # at least


@dataclass(frozen=True)
class NextStep:
    """A command, and what it is for."""

    purpose: str
    command: str


@dataclass(frozen=True)
class NextSteps:
    """What the first screen of a report proposes.

    Args:
        steps: the most useful first.
        placeholder: replaces credentials in the commands; None if there are none.
        missing: options that the commands lack because they are not recorded.
    """

    steps: Sequence[NextStep]
    placeholder: str | None
    missing: Sequence[str]


def next_steps(data: ReportData) -> NextSteps:
    """The steps for the present state of a study or run."""
    steps = list(_Steps(data).steps())
    hidden = any(MARK in step.command for step in steps)
    made_from_record = not (StudyCommand.of_study(data).is_recorded or _of_compare(data.record))
    return NextSteps(steps, MARK if hidden else None, NOT_RECORDED if made_from_record else ())


class _Steps:
    """Makes the commands of one study."""

    def __init__(self, data: ReportData) -> None:
        self._data, self._record = data, data.record
        self._command = StudyCommand.of_study(data)
        self._folder = study_address(data, self._command)
        self._results = str(Path(self._folder).parents[1]) if "://" not in self._folder else None

    def steps(self) -> Iterator[NextStep]:
        data, status = self._data, self._record["status"]
        if _of_compare(self._record):
            yield from self._steps_in_comparison()
        elif status == RUNNING:
            yield NextStep("Watch it", self._command.other("watch", self._folder))
            yield self._report("Write this page again")
            yield self._resume("Resume it, if its process has ended")
        elif data.best is None:
            yield NextStep("Check this machine", self._command.other("doctor"))
            yield self._resume_or_repeat()
        elif status in UNFINISHED:
            yield self._resume("Resume it: what was done is kept")
            yield from self._use_model()
        elif data.is_run:
            yield from self._use_model()
            yield self._search()
        else:
            yield from self._after_search()

    def _steps_in_comparison(self) -> Iterator[NextStep]:
        if self._record["status"] in (FAILED, INTERRUPTED):
            recorded = redacted_command(str(self._record["command"])).removesuffix(" --resume")
            yield NextStep("Resume the comparison: what was done is kept", f"{recorded} --resume")
        yield from self._use_model()
        if self._record["status"] == RUNNING:
            yield NextStep("Watch it", self._command.other("watch", self._folder))
        yield self._report("Write this page again")

    def _after_search(self) -> Iterator[NextStep]:
        record, use, measure = self._record, list(self._use_model()), self._measure()
        gain = gain_over_published(self._data)
        significant = gain is not None and gain.low is not None and gain.low > 0
        yield from [*use, measure] if significant else [measure, *use]
        more = str(2 * int(record.get("num_samples") or len(self._data.trials)))
        yield self._resume(f"Search further, to {more} trials", samples=more)
        at_bound = [
            s.name for s in self._data.settings if s.bound(self._data.best[f"param_{s.name}"])
        ]
        space = record.get("space_file")
        if at_bound and space:
            names = ", ".join(at_bound)
            yield NextStep(
                f"Widen the range of {names}, where the setting allows it: copy "
                f"{Path(str(space)).name} to wider.yaml, change it, then",
                self._command.line(
                    *("--space", "wider.yaml", "--warm-start", self._folder),
                    *self._in_results(f"{self._data.folder.name}-wider"),
                    without=["--space", "--warm-start", "--name", "--results"],
                    switches=["--resume"],
                ),
            )
        name = f"{self._data.folder.name}-comparison"
        words = comparison_options(self._data)
        line = self._command.other("compare", *words, *self._in_results(name))
        yield NextStep("Compare with baselines", line)

    def _measure(self) -> NextStep:
        """Measure on test data, at first or with more seeds; without labels there, train."""
        if self._seeds:
            more = str(max(_MORE_SEEDS, 2 * self._seeds))
            why = "a narrower interval" if self._seeds > 1 else "an interval"
            return self._resume(f"Measure with {more} seeds, for {why}", seeds=more)
        if self._test_has_labels:
            return self._resume("Measure the best configuration on test data", top="1", seeds="3")
        best = str(Path(self._folder) / "best.yaml")
        name = f"{self._data.folder.name}-best"
        line = self._command.other("train", "--config", best, *self._in_results(name))
        return NextStep("Train a model with the best configuration", line)

    @property
    def _seeds(self) -> int:
        """Seeds of the final answer on test data; 0 if it was not measured."""
        confirmed = confirmed_metrics(self._data.confirm_rows)
        return next((each.seeds for each in confirmed if each.rank == 1), 0)

    @property
    def _test_has_labels(self) -> bool:
        """False if the study asked for a confirmation and planned none: the test part has no labels."""
        planned = (self._record.get("confirm") or {}).get("seeds")
        asked_for = "0" not in map(self._command.value, ("--confirm-seeds", "--confirm-top"))
        return not (planned == 0 and asked_for)

    def _in_results(self, name: str) -> list[str]:
        results = self._results or self._command.value("--results") or "results"
        return ["--name", name, *(["--results", results] if results != "results" else [])]

    def _use_model(self) -> Iterator[NextStep]:
        if not (self._seeds or (self._data.folder / "checkpoints" / "model").is_dir()):
            return
        name = self._data.folder.name
        files = ("--input", "INPUT", "--output", "predictions.parquet")
        yield NextStep(
            "Predict labels of new samples; INPUT is a folder of images or a table",
            self._command.other("predict", "--model", self._folder, *files),
        )
        yield NextStep(
            "Export the model with its card",
            self._command.other("export", "--model", self._folder, "--output", f"{name}-model"),
        )

    def _report(self, purpose: str) -> NextStep:
        return NextStep(purpose, self._command.other("report", self._folder))

    def _resume(
        self,
        purpose: str,
        *,
        samples: str | None = None,
        top: str | None = None,
        seeds: str | None = None,
    ) -> NextStep:
        """The same command with --resume and, where given, other numbers."""
        flags = {"--num-samples": samples, "--confirm-top": top, "--confirm-seeds": seeds}
        changed = {flag: value for flag, value in flags.items() if value is not None}
        if samples is not None:  # a budget that was used up would end the search at once
            for flag in ("--gpu-hours", "--max-cost"):
                if (value := self._command.value(flag)) is not None:
                    changed[flag] = f"{2 * float(value):g}"
        words = [word for flag, value in changed.items() for word in (flag, value)]
        line = self._command.line(
            *words,
            *self._in_results(self._data.folder.name),
            "--resume",
            without=[*changed, "--name", "--results"],
            switches=["--resume"],
        )
        return NextStep(purpose, line)

    def _resume_or_repeat(self) -> NextStep:
        """Resume, or where every planned trial has failed start again: failed trials are not repeated."""
        trials = self._data.trials
        started = int(trials["started_at"].notna().sum()) if "started_at" in trials else len(trials)
        if started < int(self._record.get("num_samples") or len(trials)) or self._data.is_run:
            return self._resume("Remove the cause of the error, then resume it")
        line = self._command.line(
            *self._in_results(f"{self._data.folder.name}-again"),
            without=["--name", "--results"],
            switches=["--resume"],
        )
        return NextStep("Remove the cause of the error, then search again", line)

    def _search(self) -> NextStep:
        settings = self._record.get("settings") or {}
        words = ["--dataset", str(self._record["dataset"]), "--method", str(self._record["method"])]
        if settings.get("data_dir"):
            words += ["--data-dir", str(settings["data_dir"])]
        if settings.get("labeled_fraction"):
            words += ["--labeled-fraction", str(settings["labeled_fraction"])]
        words += self._in_results(f"{self._data.folder.name}-search")
        return NextStep("Search for better settings", self._command.other("tune", *words))


def _of_compare(record: dict[str, Any]) -> bool:
    """Whether ``bbam-ray compare`` made this study, whose rules ``tune`` does not know."""
    words = str(record["command"]).split()[:3]
    return any(Path(word).name in ("compare.py", "compare") for word in words)
