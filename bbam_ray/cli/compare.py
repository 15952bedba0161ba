"""``bbam-ray compare``: several methods under one protocol, and a table that says what is noise."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bbam_ray.cli import options as shared
from bbam_ray.cli.bars import decoding_shown
from bbam_ray.cli.mending import print_repairs
from bbam_ray.cli.search_rules import SearchRules
from bbam_ray.cli.storage import with_storage
from bbam_ray.commands import checks
from bbam_ray.documents import parse_assignments, standard_values
from bbam_ray.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_SOME_TRIALS_FAILED,
    UsageError,
    nearest,
)
from bbam_ray.files import write_text
from bbam_ray.results.comparison import compared
from bbam_ray.results.repair import repair_study, repair_table
from bbam_ray.results.schemas import COMPARE
from bbam_ray.results.store import Table as Rows
from bbam_ray.results.store import read_table
from bbam_ray.results.study import check_folder, command_line, is_empty_study, locked
from bbam_ray.results.summary import duration

if TYPE_CHECKING:
    from bbam_ray.results.store import Row
    from bbam_ray.scale.study.plan import StudyPlan, StudyResult

_WIDTH = 130
TABLE, MARKDOWN, PAGE = "compare.parquet", "compare.md", "compare.html"


@dataclass(frozen=True)
class Entry:
    """One line of the comparison at one label fraction.

    Args:
        text: as the user wrote it, for example "bbam" or "bbam:balance=false".
        method, settings: what it means.
        fraction: of labels.
        folder: of its study.
        space: its search space.
    """

    text: str
    method: str
    settings: dict[str, Any]
    fraction: float
    folder: Path
    space: Path


@with_storage
def compare(
    dataset: shared.Dataset = "digits",
    data_dir: shared.DataDir = None,
    methods: Annotated[
        str,
        typer.Option(
            help="Comma-separated; METHOD:KEY=VALUE+KEY=VALUE for one with fixed settings. "
            "Default: all."
        ),
    ] = "",
    labeled_fractions: Annotated[str, typer.Option(help="Comma-separated shares.")] = "0.05",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each on the test part.")] = 5,
    tune_samples: Annotated[
        int, typer.Option(min=1, help="Trials of each search; 1 = the published settings.")
    ] = 1,
    name: Annotated[str, typer.Option("--name", help="Of the comparison.")] = "comparison",
    results: shared.Results = Path("results"),
    seed: shared.Seed = 0,
    epochs: shared.Epochs = None,
    warmup_epochs: shared.WarmupEpochs = None,
    cpus_per_worker: shared.Cpus = 1,
    gpus_per_worker: shared.Gpus = 0,
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="Runs at once.")] = None,
    address: shared.Address = "local",
    set_: shared.Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with it, or add to it.")] = False,
    json_: shared.Json = False,
    quiet: shared.Quiet = False,
) -> int:
    """Compare methods: same splits, backbone and budget of trials, epochs and seeds for each."""
    from bbam_ray.scale.cluster.connection import connected

    checks.check_address(address)
    console = Console(stderr=json_, soft_wrap=True, highlight=False)
    shown = Console(quiet=True) if quiet or json_ else console
    named = {
        "data_dir": str(data_dir.absolute()) if data_dir else None,
        "epochs": epochs,
        "warmup_epochs": warmup_epochs,
    }
    given = {"dataset": dataset, "seed": seed, **checks.given_settings(set_, named)}
    folder = check_folder(results, dataset, name, resume=False, may_exist=resume)
    entries = _entries(dataset, methods, labeled_fractions, folder)
    rules = SearchRules(confirm_seeds=seeds, num_samples=tune_samples, concurrency=max_concurrent)
    shape = {"min_workers": 1, "max_workers": 1, "cpus": cpus_per_worker, "gpus": gpus_per_worker}
    shape |= {"timeout_s": 120.0, "max_failures": 3}
    with decoding_shown(Console(stderr=True, quiet=quiet)):
        # Whatever is wrong with any of them is said before the first begins.
        plans = [(e, _plan(e, given, shape, rules, local=address == "local")) for e in entries]
    shown.print(
        f"comparison {folder}: {len(plans)} studies, each of {tune_samples} trials and {seeds} runs "
        "on the test part"
    )
    with connected(address, dashboard=False):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            print_repairs(console, repair_table(folder / TABLE))
            table = Rows(folder / TABLE, COMPARE, ("entry", "labeled_fraction", "seed"))
            try:
                failed = _run(plans, table, shown)
            except KeyboardInterrupt:
                console.print(f"\ninterrupted: {folder} keeps what is done; go on with --resume")
                return EXIT_INTERRUPTED
            finally:
                rows = sorted(table.rows(), key=lambda row: row["place"])
                _write(folder, f"{dataset}: {name}", rows)
    if json_:
        typer.echo(json.dumps({"folder": str(folder), "rows": rows}, default=str))
    else:
        _show(console, folder, rows)
    return EXIT_SOME_TRIALS_FAILED if failed else EXIT_DONE


def _entries(dataset: str, methods: str, fractions: str, folder: Path) -> list[Entry]:
    """What is compared: every method at every label fraction."""
    from bbam_ray.methods import METHODS, known_settings

    texts = [text.strip() for text in methods.split(",") if text.strip()] or list(METHODS)
    if len(set(texts)) < len(texts):
        raise UsageError(f"--methods {methods}: the same one twice; name each once")
    found = []
    for fraction in _fractions(fractions):
        for text in texts:
            method, _, settings = text.partition(":")
            known = known_settings(dataset, method)
            assigned = parse_assignments(settings.split("+") if settings else [])
            for setting in assigned:
                if setting not in known:
                    raise UsageError(
                        f"--methods {text}: unknown setting '{setting}'; {nearest(setting, known)}"
                    )
            study = re.sub(r"[^A-Za-z0-9.]+", "-", f"{text}-{fraction:g}").strip("-")
            place = folder.with_name(f"{folder.name}.{study}")
            space = checks.space_file(None, dataset, method)
            found.append(Entry(text, method, assigned, fraction, place, space))
    return found


def _fractions(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = []
    if not found or any(not 0 < fraction < 1 for fraction in found):
        raise UsageError(f"--labeled-fractions {text}: expected shares such as 0.05,0.1,0.2")
    return sorted(set(found))


def _plan(
    entry: Entry,
    given: dict[str, Any],
    shape: dict[str, Any],
    rules: SearchRules,
    *,
    local: bool,
) -> StudyPlan:
    from bbam_ray.cli.study_setup import TrialRunner, make_plan

    base = {**given, "method": entry.method, "labeled_fraction": entry.fraction, **entry.settings}
    return make_plan(base, entry.space, shape, rules, runner=TrialRunner.gang, local=local)


def _run(plans: list[tuple[Entry, StudyPlan]], table: Rows, shown: Console) -> bool:
    """Run, or go on with, one study after the other; returns whether any run failed."""
    from bbam_ray.cli.study_setup import open_record
    from bbam_ray.scale.study.run import run_study

    began, failed = time.monotonic(), False
    places = {row["entry"]: row["place"] for row in table.rows()}
    for done, (entry, plan) in enumerate(plans, start=1):
        with locked(entry.folder, make=True):
            going_on = not is_empty_study(entry.folder)
            print_repairs(shown, repair_study(entry.folder) if going_on else ())
            record, plan = open_record(entry.folder, plan, entry.space, resume=going_on)
            result = run_study(plan, record, lambda event: None)
        place = places.setdefault(entry.text, len(places))
        table.put(_rows(entry, place, result))
        table.flush()
        failed |= result.best is None or any(row["error"] for row in result.confirm)
        values = [row["test_map"] for row in result.confirm if not row["error"]]
        said = f"test mAP {fmean(values):.4f} over {len(values)} seeds" if values else "failed"
        left = duration((time.monotonic() - began) / done * (len(plans) - done))
        text = f"{done:>3}/{len(plans)}  {entry.fraction:.0%} {entry.text}: {said}"
        shown.print(f"{text}  [about {left} left]", markup=False)
    return failed


def _rows(entry: Entry, place: int, result: StudyResult) -> list[Row]:
    """A row for each run on the test part, with what the chosen trial has told."""
    if result.best is None:
        return []
    number = result.best["number"]
    history = read_table(entry.folder / "history.parquet").to_pylist()
    epochs = [row for row in history if row["number"] == number]
    main = [row for row in epochs if row["phase"] == "main"] or epochs
    seconds = [row["seconds_refresh"] + row["seconds_train"] for row in main]
    settings = {k.removeprefix("param_"): v for k, v in result.best.items() if k[:6] == "param_"}
    common = {
        "place": place,
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
    names = set(COMPARE.names)
    return [
        {name: value for name, value in row.items() if name in names} | common
        for row in result.confirm
        if row["number"] == number
    ]


def _write(folder: Path, title: str, rows: list[Row]) -> None:
    """The table as Markdown and as a page, made of the store."""
    from bbam_ray.report import comparison

    lines = compared(rows)
    write_text(folder / MARKDOWN, comparison.markdown(lines) + "\n")
    write_text(folder / PAGE, comparison.html(title, lines, command_line()))


def _show(console: Console, folder: Path, rows: list[Row]) -> None:
    from bbam_ray.report import comparison

    table = Table(box=None, header_style="bold")
    for head in comparison.heads():
        table.add_column(head, justify="left" if head == "method" else "right", no_wrap=True)
    for line in compared(rows):
        marks = zip(comparison.texts(line), comparison.bold(line), strict=True)
        table.add_row(*(Text(text, style="bold" if best else "") for text, best in marks))
    wide = max(console.width, _WIDTH)  # a narrow terminal breaks lines, but loses nothing
    Console(file=console.file, width=wide, soft_wrap=True, highlight=False).print(table)
    console.print(comparison.LEGEND, style="dim")
    for file in (TABLE, MARKDOWN, PAGE):
        console.print(f"  {folder / file}", markup=False)
