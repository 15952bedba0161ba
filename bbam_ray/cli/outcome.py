"""What a search prints: its plan before it starts, and what it found."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from bbam_ray.cli.progress import short
from bbam_ray.results.schemas import FAILED
from bbam_ray.results.store import standard_values
from bbam_ray.results.summary import Confirmed, confirmed_figures

if TYPE_CHECKING:
    from bbam_ray.scale.plan import StudyPlan, StudyResult

_MEASURES = ("map", "micro_f1", "macro_f1", "hamming_loss", "one_error")


def show_plan(console: Console, plan: StudyPlan, folder: Path) -> None:
    """The search space, the first configurations and what would run."""
    from bbam_ray.scale.search import Sequence

    table = Table(title="search space", title_justify="left", box=None, header_style="bold")
    for column in ("setting", "range", "published"):
        table.add_column(column)
    for name, parameter in plan.space.parameters.items():
        if parameter.choices:
            span = ", ".join(short(choice) for choice in parameter.choices)
        else:
            span = f"{parameter.low:g} to {parameter.high:g}{', log' if parameter.log else ''}"
        when = ", ".join(f"{other} = {short(value)}" for other, value in parameter.when.items())
        published = short(plan.space.published[name]) if name in plan.space.published else "-"
        table.add_row(name, span + (f" (when {when})" if when else ""), published)
    console.print(table)
    sequence = Sequence(plan.space, plan.settings["seed"], plan.lag)
    console.print("first configurations:", style="bold")
    for number in range(min(3, plan.lag, plan.num_samples)):
        text = " ".join(f"{name}={short(value)}" for name, value in sequence.draw().items())
        console.print(f"  trial {number}: {text}", markup=False)
    shape = plan.shape
    per_trial = f"{shape.cpus} CPU" + (f", {shape.gpus:g} GPU" if shape.gpus else "")
    if shape.workers > 1:
        per_trial = f"{shape.workers} workers, {per_trial}"
    runs = min(plan.confirm_top, plan.num_samples) * plan.confirm_seeds
    console.print(
        f"{plan.num_samples} trials ({per_trial} each), {plan.concurrency} at once; then {runs} runs "
        f"confirm the best {plan.confirm_top}. Results would go to {folder}."
    )


def show_result(console: Console, folder: Path, plan: StudyPlan, result: StudyResult) -> None:
    """The best configuration, its confirmed test figures, what failed, and where the files are."""
    best, metric = result.best, plan.space.metric
    failed = [row for row in result.trials if row["state"] == FAILED]
    for row in failed:
        console.print(f"trial {row['number']} failed: {row['error']}", style="red", markup=False)
    if best is None:
        console.print("no trial was completed", style="bold red")
        return
    console.print(
        f"\nbest: trial {best['number']} of {len(result.trials)}, {metric} {best[metric]:.4f} "
        f"(validation, epoch {best['best_epoch']})",
        style="bold",
    )
    published = next((row for row in result.trials if row["number"] == 0), None)
    if published and published is not best and published[metric] is not None:
        console.print(f"published settings (trial 0): {metric} {published[metric]:.4f}")
    for name in plan.space.parameters:
        value = best.get(f"param_{name}")
        if value is not None:
            console.print(f"  {name} = {short(value)}", markup=False)
    table = Table(box=None, header_style="bold", title_justify="left")
    table.title = "confirmed on the test part, mean +- standard deviation over seeds"
    table.add_column("")
    by_measure = {m: confirmed_figures(result.confirm, f"test_{m}") for m in _MEASURES}
    for figure in by_measure["map"]:
        table.add_column(f"trial {figure.number} ({figure.seeds} seeds)", justify="right")
    for measure, figures in by_measure.items():
        table.add_row(f"test_{measure}", *(_with_spread(figure) for figure in figures))
    if by_measure["map"]:
        console.print(table)
    for row in result.confirm:
        if row["error"]:
            console.print(
                f"confirmation, seed {row['seed']}: {row['error']}", style="red", markup=False
            )
    console.print("\nfiles:")
    for file, what in (
        ("best.yaml", "the best configuration, for bbam-ray train --config"),
        ("report.html", "open it in a browser"),
        ("trials.parquet", "a row per trial"),
        ("confirm.parquet", "a row per confirmed run, test figures"),
        ("checkpoints", "the confirmed models"),
    ):
        if (folder / file).exists():
            console.print(f"  {folder / file}  ({what})", markup=False)


def _with_spread(figure: Confirmed) -> str:
    spread = "" if figure.deviation is None else f" +- {figure.deviation:.4f}"
    return f"{figure.mean:.4f}{spread}"


def as_json(folder: Path, plan: StudyPlan, result: StudyResult) -> dict[str, Any]:
    """The same as one object for programs."""
    best = result.best
    return {
        "study": folder.name,
        "folder": str(folder),
        "status": result.status,
        "metric": plan.space.metric,
        "best": standard_values(best) if best else None,
        "trials": len(result.trials),
        "failed": sum(row["state"] == FAILED for row in result.trials),
        "confirmed": [asdict(figure) for figure in confirmed_figures(result.confirm)],
    }
