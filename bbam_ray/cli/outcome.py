"""The result of a search: printed, as JSON, and as an exit code."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from bbam_ray.commands.progress_lines import short
from bbam_ray.core.metric_names import HEADLINE_METRICS
from bbam_ray.documents import standard_values
from bbam_ray.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_SOME_TRIALS_FAILED
from bbam_ray.results.summary import Confirmed, confirmed_metrics, gain_sentences, gains

if TYPE_CHECKING:
    from bbam_ray.scale.study.plan import StudyPlan, StudyResult


def show_result(console: Console, folder: Path, plan: StudyPlan, result: StudyResult) -> None:
    """Print the best configuration, its test metrics, what failed, and where the files are."""
    best, metric = result.best, plan.space.metric
    is_published = best is not None and best["number"] == 0
    for row in result.failed:
        if row not in result.not_started:  # their reason was shown when they failed
            console.print(
                f"trial {row['number']} failed: {row['error']}", style="red", markup=False
            )
    if result.cannot_start and len(result.trials) < plan.num_samples:
        console.print(
            f"the search ended after {len(result.trials)} of {plan.num_samples} trials, since no worker "
            "could start"
        )
    if result.out_of_budget:
        console.print(
            f"the budget is used up after {len(result.trials)} of {plan.num_samples} trials; resume with "
            f"--name {folder.name} --resume and a larger budget"
        )
    if best is None:
        console.print("no trial was completed", style="bold red")
        return
    for sentence in gain_sentences({"gain": gains(result.confirm)}):
        console.print(sentence[0].upper() + sentence[1:], style="bold", markup=False)
    console.print(
        f"\nbest: trial {best['number']} of {len(result.trials)}"
        f"{', the published settings' if is_published else ''}, {metric} {best[metric]:.4f} "
        f"(validation, epoch {best['best_epoch']})",
        style="bold",
    )
    if result.pruned:
        console.print(f"{len(result.pruned)} trials were pruned")
    published = next((row for row in result.trials if row["number"] == 0), None)
    if published and not is_published and published[metric] is not None:
        console.print(f"published settings (trial 0): {metric} {published[metric]:.4f}")
    for name in plan.space.parameters:
        value = best.get(f"param_{name}")
        if value is not None:
            console.print(f"  {name} = {short(value)}", markup=False)
    if len(plan.space.objectives) > 1:
        console.print(_pareto_table(plan, result))
    if confirmed_metrics(result.confirm):
        console.print(_confirmed_table(result))
    for row in result.confirm:
        if row["error"]:
            reason = row["error"] if row["started_at"] else "its worker could not start"
            console.print(f"confirmation, seed {row['seed']}: {reason}", style="red", markup=False)
    console.print("\nfiles:")
    files = {
        "best.yaml": "the best configuration, for bbam-ray train --config",
        "report.html": "open it in a browser",
        "trials.parquet": "one row per trial",
    }
    if result.confirm:
        files["confirm.parquet"] = "one row per confirmed run, with test metrics"
        files["checkpoints"] = "the confirmed models"
    for file, what in files.items():
        if (folder / file).exists():
            console.print(f"  {folder / file}  ({what})", markup=False)


def _confirmed_table(result: StudyResult) -> Table:
    """A row of test metrics for each answer: means over seeds."""
    title = "test part: means over seeds, mAP +- standard deviation"
    # With headers of two lines it fits into 80 columns.
    table = Table(title=title, box=None, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    by_metric = {
        name: {row.rank: row for row in confirmed_metrics(result.confirm, f"test_{name}")}
        for name in HEADLINE_METRICS
    }
    for metric in HEADLINE_METRICS.values():
        header = metric.label.replace("-", "-\n").replace(" ", "\n")
        table.add_column(header, justify="right")
    for name in ("networks", "seeds"):
        table.add_column(name, justify="right")
    networks = {row["rank"]: row.get("networks") for row in result.confirm}
    for rank, measured in by_metric["map"].items():
        cells = [
            f"{rows[rank].mean:.4f}" if rank in rows else ""
            for name, rows in by_metric.items()
            if name != "map"
        ]
        counts = [str(networks.get(rank) or 1), str(measured.seeds)]
        table.add_row(measured.title, _with_spread(measured), *cells, *counts)
    return table


def _with_spread(row: Confirmed) -> str:
    text = f"{row.mean:.4f}"
    return text if row.deviation is None else f"{text} +-{row.deviation:.4f}"


def _pareto_table(plan: StudyPlan, result: StudyResult) -> Table:
    """The trials that no other trial beats in every objective, ranked by the first objective."""
    table = Table(box=None, header_style="bold", title_justify="left")
    table.title = "Pareto set: no other trial is better in every objective"
    table.add_column("trial", justify="right")
    for name, mode in plan.space.objectives:
        table.add_column(f"{name} ({mode})", justify="right")
    for row in result.pareto_set(plan.space):
        table.add_row(
            str(row["number"]), *(f"{row[name]:.4g}" for name, _ in plan.space.objectives)
        )
    return table


def exit_code(result: StudyResult) -> int:
    """The exit code of a search."""
    if result.interrupted:
        return EXIT_INTERRUPTED
    if result.best is None:
        return EXIT_FAILED
    failed = bool(result.failed) or any(row["error"] for row in result.confirm)
    return EXIT_SOME_TRIALS_FAILED if failed else EXIT_DONE


def as_json(folder: Path, plan: StudyPlan, result: StudyResult) -> dict[str, Any]:
    """The result of a search as one JSON object."""
    best = result.best
    return {
        "study": folder.name,
        "folder": str(folder),
        "status": result.status,
        "metric": plan.space.metric,
        "best": standard_values(best) if best else None,
        "trials": len(result.trials),
        "failed": len(result.failed),
        "not_started": len(result.not_started),
        "stopped_early": len(result.pruned),
        "out_of_budget": result.out_of_budget,
        "pareto": [row["number"] for row in result.trials if row["pareto"]],
        "gpu_hours": sum(row["gpu_hours"] or 0.0 for row in [*result.trials, *result.confirm]),
        "gain": gains(result.confirm),
        "confirmed": [
            asdict(row) | {"interval": row.interval} for row in confirmed_metrics(result.confirm)
        ],
    }
