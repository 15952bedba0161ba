"""``compare``: several methods under one protocol, and a table that shows which differences are noise."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from bbam_ray.commands.compare_setup import Entry, PreparedComparison
from bbam_ray.commands.gpus import devices_text, unused_gpu
from bbam_ray.commands.run_notes import concurrency_note, run_notes
from bbam_ray.commands.study_progress import SILENT, StudyListener
from bbam_ray.commands.study_record import open_study
from bbam_ray.documents import standard_values
from bbam_ray.files import write_text
from bbam_ray.report.method_comparison import (
    LEGEND,
    column_names,
    comparison_html,
    comparison_markdown,
    row_bold,
    row_texts,
)
from bbam_ray.results.comparison import compared
from bbam_ray.results.repair import repair_study, repair_table
from bbam_ray.results.schemas import COMPARE
from bbam_ray.results.store import Row, Table, read_table
from bbam_ray.results.study import command_line, is_empty_study, locked
from bbam_ray.results.summary import duration
from bbam_ray.scale.cluster.connection import connected
from bbam_ray.scale.study.events import Event, NotStarted
from bbam_ray.scale.study.plan import StudyResult
from bbam_ray.scale.study.run import run_study

TABLE, MARKDOWN, PAGE = "compare.parquet", "compare.md", "compare.html"


@dataclass(frozen=True)
class CompareResult:
    """How a comparison ended.

    Args:
        folder: of the comparison.
        rows: of its table.
        failed: whether any run failed.
        interrupted: whether Ctrl-C ended it.
    """

    folder: Path
    rows: list[Row]
    failed: bool = False
    interrupted: bool = False

    @property
    def heads(self) -> list[str]:
        """Column heads of the table."""
        return column_names()

    @property
    def cells(self) -> list[list[tuple[str, bool]]]:
        """Lines of the table: each cell's text, and whether it is the best of its column."""
        lines = compared(self.rows)
        return [list(zip(row_texts(x), row_bold(x), strict=True)) for x in lines]

    @property
    def legend(self) -> str:
        return LEGEND

    @property
    def files(self) -> list[Path]:
        """The table as Parquet, as Markdown and as a page."""
        return [self.folder / name for name in (TABLE, MARKDOWN, PAGE)]


def run(prepared: PreparedComparison, listener: StudyListener = SILENT) -> CompareResult:
    """Run or resume a comparison: same splits, backbone and budget of trials, epochs and seeds for all.

    Ctrl-C ends it and keeps its results.
    """
    options, folder = prepared.options, prepared.folder
    studies = _count(len(prepared.studies), "study", "studies")
    trials = _count(options.tune_samples, "trial", "trials")
    runs = _count(options.seeds, "run", "runs")
    shape = prepared.studies[0].plan.shape
    devices = devices_text(shape.cpus, shape.gpus, options.address)
    listener.message(
        f"comparison {folder}: {studies}, each of {trials} and {runs} on the test part, {devices}"
    )
    at_once = max(study.plan.concurrency for study in prepared.studies)
    for note in (
        unused_gpu(shape.gpus, options.address),
        concurrency_note(at_once, options.max_concurrent, options.address),
    ):
        if note:
            listener.warning(note)
    failed = interrupted = False
    with connected(options.address, dashboard=False):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            for finding in repair_table(folder / TABLE):
                listener.warning(f"repaired: {finding}")
            table = Table(folder / TABLE, COMPARE, ("entry", "labeled_fraction", "seed"))
            try:
                failed = _run_all(prepared, table, listener)
            except KeyboardInterrupt:
                interrupted = True
                listener.warning(
                    f"\ninterrupted: completed runs are kept in {folder}; resume with --resume"
                )
            finally:
                rows = sorted(table.rows(), key=lambda row: row["place"])
                _write(folder, f"{options.settings['dataset']}: {options.name}", rows)
    return CompareResult(folder, rows, failed, interrupted)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _run_all(prepared: PreparedComparison, table: Table, listener: StudyListener) -> bool:
    """Run or resume one study after the other; returns whether any run failed."""
    started, failed = time.monotonic(), False
    positions = {row["entry"]: row["place"] for row in table.rows()}
    total = len(prepared.studies)
    causes: set[str] = set()

    def listen(event: Event) -> None:
        if isinstance(event, NotStarted) and event.error.cause not in causes:
            causes.add(event.error.cause)
            listener.error(
                f"{entry.text}, {event.what}: {event.error}; remove the cause and use --resume"
            )

    for number, study in enumerate(prepared.studies, start=1):
        entry = study.entry
        for note in run_notes(study.plan.published_config, study.plan.settings):
            listener.warning(f"{entry.text}: {note}")
        with locked(entry.folder, make=True):
            resume = not is_empty_study(entry.folder)
            for finding in repair_study(entry.folder) if resume else ():
                listener.warning(f"repaired: {finding}")
            record, plan = open_study(
                entry.folder,
                study.plan,
                entry.space,
                study.split,
                resume=resume,
                note=listener.warning,
            )
            result = run_study(plan, record, listen)
        table.put(_rows(entry, positions.setdefault(entry.text, len(positions)), result))
        table.flush()
        if result.cannot_start:  # nor could those of the other studies
            return True
        failed |= result.best is None or any(row["error"] for row in result.confirm)
        values = [row["test_map"] for row in result.confirm if not row["error"]]
        outcome = (
            f"test mAP {fmean(values):.4f} over {_count(len(values), 'seed', 'seeds')}"
            if values
            else "failed"
        )
        left = duration((time.monotonic() - started) / number * (total - number))
        listener.message(
            f"{number:>3}/{total}  {entry.fraction:.0%} {entry.text}: {outcome}  [about {left} left]"
        )
    return failed


def _rows(entry: Entry, position: int, result: StudyResult) -> list[Row]:
    """A row for each run on the test part, with values of the chosen trial.

    Args:
        entry: of the comparison.
        position: of the entry in the table.
        result: of its study.
    """
    if result.best is None:
        return []
    number = result.best["number"]
    history = read_table(entry.folder / "history.parquet").to_pylist()
    epochs = [row for row in history if row["number"] == number]
    main = [row for row in epochs if row["phase"] == "main"] or epochs
    seconds = [row["seconds_refresh"] + row["seconds_train"] for row in main]
    settings = {k.removeprefix("param_"): v for k, v in result.best.items() if k[:6] == "param_"}
    common = {
        "place": position,
        "entry": entry.text,
        "method": entry.method,
        "study": entry.folder.name,
        "labeled_fraction": entry.fraction,
        "trial": number,
        "val_map": result.best["val_map"],
        "seconds_per_epoch": median(seconds),
        "vdfd_mean": epochs[-1]["vdfd_mean"],
        "settings": json.dumps(standard_values({**settings, **entry.settings})),
    }
    return [
        {name: value for name, value in row.items() if name in COMPARE.names} | common
        for row in result.confirm
        if row["number"] == number
    ]


def _write(folder: Path, title: str, rows: list[Row]) -> None:
    """The table as Markdown and as a page."""
    lines = compared(rows)
    write_text(folder / MARKDOWN, comparison_markdown(lines) + "\n")
    write_text(folder / PAGE, comparison_html(title, lines, command_line()))
