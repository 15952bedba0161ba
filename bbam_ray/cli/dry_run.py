"""What ``--dry-run`` shows: the search, its first configurations, and what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from bbam_ray.commands.gpus import devices_text, unused_gpu
from bbam_ray.commands.progress_lines import short
from bbam_ray.results.summary import duration

if TYPE_CHECKING:
    from bbam_ray.commands.study_setup import Preview
    from bbam_ray.scale.search.space import Space
    from bbam_ray.scale.study.plan import StudyPlan


def show_preview(console: Console, preview: Preview) -> None:
    """Print the search space, the first configurations and what would run."""
    study = preview.study
    plan = study.plan
    console.print(_space_table(plan.space))
    console.print(_rules(plan), markup=False)
    if plan.prior:
        console.print(f"the search starts with {len(plan.prior)} trials of another study")
    console.print("first configurations:", style="bold")
    for number, configuration in enumerate(preview.configurations):
        text = " ".join(f"{name}={short(value)}" for name, value in configuration.items())
        console.print(f"  trial {number}: {text}", markup=False)
    address = study.options.address
    lines = [_runs(plan, address), unused_gpu(plan.shape.gpus, address), _time(preview)]
    for line in filter(None, [*lines, *_disk(preview)]):
        console.print(line, markup=False)
    console.print(f"Results would be written to {study.folder}.", markup=False)


def _space_table(space: Space) -> Table:
    table = Table(title="search space", title_justify="left", box=None, header_style="bold")
    for column in ("setting", "range", "published"):
        table.add_column(column)
    for name, parameter in space.parameters.items():
        if parameter.choices:
            span = ", ".join(short(choice) for choice in parameter.choices)
        else:
            span = f"{parameter.low:g} to {parameter.high:g}{', log' if parameter.log else ''}"
        when = ", ".join(f"{other} = {short(value)}" for other, value in parameter.when.items())
        published = short(space.published[name]) if name in space.published else "-"
        table.add_row(name, span + (f" (when {when})" if when else ""), published)
    return table


def _rules(plan: StudyPlan) -> str:
    stopping = plan.stopping
    rules = f"sampler {plan.sampler}, scheduler {stopping.scheduler}"
    if stopping.when:
        rules += f" ({stopping.when})"
    objectives = ", ".join(f"{name} ({mode})" for name, mode in plan.space.objectives)
    return f"objective {objectives}; {rules}"


def _runs(plan: StudyPlan, address: str) -> str:
    shape = plan.shape
    per_trial = devices_text(shape.cpus, shape.gpus, address)
    if shape.workers > 1:
        per_trial = f"{shape.workers} workers, {per_trial}"
    folds = f" of {plan.folds} folds" if plan.folds > 1 else ""
    text = f"{plan.num_samples} trials{folds} ({per_trial}), {plan.concurrency} at once"
    if not plan.confirmations:
        return f"{text}; nothing is measured on the test part."
    compared = ["the published settings"] * plan.published + ["baselines"] * bool(plan.baselines)
    text += f"; then {_counted(plan.runs_after_search, 'run')} for the final answer ({plan.final})"
    if compared:
        text += f" and for {' and '.join(compared)}"
    return f"{text}, over {_counted(plan.confirm_seeds, 'seed')}."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _time(preview: Preview) -> str:
    """Time, GPU-hours and cost."""
    plan, time = preview.study.plan, preview.time
    if time is None:
        return "Expected time: unknown, because no earlier study of this kind is in the results folder."
    text = f"At most {duration(time.seconds)}"
    if plan.gpus:
        text += f", {time.gpu_hours:.2f} GPU-hours"
        if time.cost is not None:
            text += f", cost {time.cost:.2f}"
    return (
        f"{text}: {time.seconds_per_epoch:.2f} s per epoch in study '{time.study}', "
        f"{time.runs} runs of {plan.stopping.epochs} epochs."
    )


def _disk(preview: Preview) -> list[str]:
    """Space in the results folder, and in Ray's temporary folder on this machine."""
    disk, logs = preview.study.disk, preview.ray_logs
    lines = [
        f"Disk: about {disk.total / 1e6:.0f} MB of {preview.free_bytes / 1e9:.1f} GB free: "
        f"{disk.models / 1e6:.0f} MB of confirmed models, {disk.checkpoints / 1e6:.0f} MB of checkpoints "
        "that are deleted when their trials end, and the tables and the report."
    ]
    if logs is not None:
        lines.append(
            f"Ray's session folder: each log is rotated at {logs.bytes >> 20} MB with {logs.files} "
            f"backups. The folder is deleted when the study ends well; those of the last "
            f"{logs.sessions} failed studies are kept."
        )
    return lines
