"""What a search prints when it has ended."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from bbam_ray.cli.progress import short
from bbam_ray.core.metric_names import HEADLINE_METRICS
from bbam_ray.documents import standard_values
from bbam_ray.results.schemas import FAILED, PRUNED
from bbam_ray.results.summary import Confirmed, confirmed_metrics

if TYPE_CHECKING:
    from bbam_ray.scale.study.plan import StudyPlan, StudyResult


def show_result(console: Console, folder: Path, plan: StudyPlan, result: StudyResult) -> None:
    """The best configuration, its confirmed test figures, what failed, and where the files are."""
    best, metric = result.best, plan.space.metric
    failed = [row for row in result.trials if row["state"] == FAILED]
    for row in failed:
        console.print(f"trial {row['number']} failed: {row['error']}", style="red", markup=False)
    if result.out_of_budget:
        console.print(
            f"the budget is used up after {len(result.trials)} of {plan.num_samples} trials; go on with "
            f"--name {folder.name} --resume and a larger one"
        )
    if best is None:
        console.print("no trial was completed", style="bold red")
        return
    console.print(
        f"\nbest: trial {best['number']} of {len(result.trials)}, {metric} {best[metric]:.4f} "
        f"(validation, epoch {best['best_epoch']})",
        style="bold",
    )
    stopped = sum(row["state"] == PRUNED for row in result.trials)
    if stopped:
        console.print(f"{stopped} trials were stopped early")
    published = next((row for row in result.trials if row["number"] == 0), None)
    if published and published is not best and published[metric] is not None:
        console.print(f"published settings (trial 0): {metric} {published[metric]:.4f}")
    for name in plan.space.parameters:
        value = best.get(f"param_{name}")
        if value is not None:
            console.print(f"  {name} = {short(value)}", markup=False)
    if len(plan.space.objectives) > 1:
        console.print(_pareto_table(plan, result))
    table = Table(box=None, header_style="bold", title_justify="left")
    table.title = (
        "confirmed on the test part: mean +- deviation over seeds [95 % interval of the mean]"
    )
    table.add_column("")
    by_measure = {m: confirmed_metrics(result.confirm, f"test_{m}") for m in HEADLINE_METRICS}
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
    text = f"{figure.mean:.4f}"
    if figure.deviation is not None and figure.interval is not None:
        low, high = figure.interval
        text += f" +- {figure.deviation:.4f} [{low:.4f}, {high:.4f}]"
    return text


def _pareto_table(plan: StudyPlan, result: StudyResult) -> Table:
    """The trials that no other trial beats in every objective, by the first one."""
    from bbam_ray.scale.search.outcomes import ranked

    table = Table(box=None, header_style="bold", title_justify="left")
    table.title = "Pareto set: no other trial is better in every objective"
    table.add_column("trial", justify="right")
    for name, mode in plan.space.objectives:
        table.add_column(f"{name} ({mode})", justify="right")
    for row in ranked(result.trials, plan.space):
        if row["pareto"]:
            table.add_row(
                str(row["number"]), *(f"{row[name]:.4g}" for name, _ in plan.space.objectives)
            )
    return table


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
        "stopped_early": sum(row["state"] == PRUNED for row in result.trials),
        "out_of_budget": result.out_of_budget,
        "pareto": [row["number"] for row in result.trials if row["pareto"]],
        "gpu_hours": sum(row["gpu_hours"] or 0.0 for row in [*result.trials, *result.confirm]),
        "confirmed": [
            asdict(figure) | {"interval": figure.interval}
            for figure in confirmed_metrics(result.confirm)
        ],
    }
