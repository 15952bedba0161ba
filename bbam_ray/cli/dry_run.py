"""What ``--dry-run`` shows: the search, its first configurations, and what it will take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from bbam_ray.cli.disk import disk_lines, expected_disk
from bbam_ray.cli.progress import short
from bbam_ray.cli.search_rules import throughput_settings
from bbam_ray.results.summary import duration
from bbam_ray.results.throughput import measured_throughput

if TYPE_CHECKING:
    from bbam_ray.scale.study.plan import StudyPlan


def show_plan(console: Console, plan: StudyPlan, folder: Path, *, local: bool) -> None:
    """The search space, the first configurations and what would run."""
    from bbam_ray.scale.search.sequence import ConfigSequence

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
    rules = f"sampler {plan.sampler}, scheduler {plan.stopping.scheduler}"
    if plan.stopping.scheduler in ("asha", "hyperband"):
        rungs = ", ".join(map(str, plan.stopping.rungs))
        rules += f" (decides after epochs {rungs}; one trial in {plan.stopping.reduction} goes on)"
    elif plan.stopping.scheduler == "median":
        rules += f" (from epoch {plan.stopping.grace} on)"
    objectives = ", ".join(f"{name} ({mode})" for name, mode in plan.space.objectives)
    console.print(f"objective {objectives}; {rules}", markup=False)
    if plan.prior:
        console.print(f"the search begins with {len(plan.prior)} trials of another study")
    sequence = ConfigSequence(
        plan.space, plan.settings["seed"], plan.lag, sampler=plan.sampler, prior=plan.prior
    )
    console.print("first configurations:", style="bold")
    for number in range(min(3, plan.lag, plan.num_samples)):
        text = " ".join(f"{name}={short(value)}" for name, value in sequence.draw().items())
        console.print(f"  trial {number}: {text}", markup=False)
    shape = plan.shape
    per_trial = f"{shape.cpus} CPU" + (f", {shape.gpus:g} GPU" if shape.gpus else "")
    if shape.workers > 1:
        per_trial = f"{shape.workers} workers, {per_trial}"
    console.print(
        f"{plan.num_samples} trials ({per_trial} each), {plan.concurrency} at once; then "
        f"{plan.confirmations} runs confirm the best {plan.confirm_top}."
    )
    console.print(_expected(plan, folder), markup=False)
    for line in disk_lines(expected_disk(plan), folder, local=local):
        console.print(line, markup=False)
    console.print(f"Results would go to {folder}.", markup=False)


def _expected(plan: StudyPlan, folder: Path) -> str:
    """Time, GPU-hours and money, as far as they can be known."""
    throughput = measured_throughput(
        folder.parent, plan.settings["method"], throughput_settings(plan)
    )
    if throughput is None:
        return "Time: unknown until a study like this has been measured."
    each = plan.stopping.epochs * throughput.seconds_per_epoch + throughput.overhead
    runs = plan.num_samples + plan.confirmations
    hours = runs * each / 3600 * plan.gpus
    text = f"At most {duration(runs * each / plan.concurrency)}"
    if plan.gpus:
        text += f", {hours:.2f} GPU-hours"
        if (cost := plan.limits.cost_of(hours)) is not None:
            text += f", cost {cost:.2f}"
    return (
        f"{text}: {throughput.seconds_per_epoch:.2f} s an epoch in study '{throughput.study}', "
        f"{plan.stopping.epochs} epochs in {runs} runs."
    )
