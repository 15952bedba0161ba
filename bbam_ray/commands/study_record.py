"""``study.json`` of a new search or run, and the checks before one is resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from bbam_ray.commands.time_estimate import throughput_settings
from bbam_ray.config import RunConfig
from bbam_ray.documents import standard_values
from bbam_ray.engine.split_file import NamedSplit, keep_split
from bbam_ray.errors import UsageError, brief, quoted
from bbam_ray.methods import METHODS
from bbam_ray.results.study import RUNNING, StudyRecord, describe_environment
from bbam_ray.scale.search.warm_start import restored_outcomes
from bbam_ray.scale.study.plan import StudyPlan


def open_study(
    folder: Path,
    plan: StudyPlan,
    space_path: Path,
    split: NamedSplit,
    *,
    resume: bool,
    check_only: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[StudyRecord, StudyPlan]:
    """Create the record of a search, or open it to resume the search.

    Args:
        folder: of the study.
        plan: of the study.
        space_path: the search space file.
        split: of its samples.
        resume: the study exists.
        check_only: check that it can be resumed and change nothing.
        note: receives a note about data that were moved.

    Returns:
        The record, and the plan with what a resumed study takes from its first run.

    Raises:
        UsageError: the study was started with other settings, space, rules or data.
    """
    content = _study_content(plan, space_path) | {"data": split.content}
    if not resume:
        record = StudyRecord.create(folder, content)
        keep_split(folder, split)
        return record, plan
    record = StudyRecord.open(folder)
    rules = record.content.get("rules", {})
    plan = replace(plan, prior=restored_outcomes(rules.get("prior", [])))
    content["rules"] = plan.rules()
    moved = _moved_data(content, record.content, note)
    for key, way_out in (
        ("settings", "give the same flags as before, or use another --name"),
        (
            "space",
            "give the same space file as before, or another --name with "
            f"--warm-start {folder.name} to continue in the changed space",
        ),
        (
            "rules",
            "give the same --sampler, --scheduler, --grace-epochs and --reduction-factor as before",
        ),
    ):
        if names := _changed(standard_values(content[key]), record.content.get(key), moved):
            raise UsageError(
                f"--resume: the {key} of study '{folder.name}' were different ({names}); {way_out}"
            )
    keep_split(folder, split)
    lag = int(record.content["lag"])
    if not check_only:
        entries = ("num_samples", "confirm", "limits", *(("settings",) if moved else ()))
        changed = {entry: content[entry] for entry in entries}
        record.update(status=RUNNING, ended_at=None, **changed)
    return record, replace(plan, lag=lag, concurrency=min(plan.concurrency, lag))


def open_run(
    folder: Path,
    config: RunConfig,
    split: NamedSplit,
    *,
    resume: bool,
    check_only: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> StudyRecord:
    """Create the record of a single run, or open it to resume the run; see ``open_study``."""
    content = _run_content(config) | {"data": split.content}
    if not resume:
        record = StudyRecord.create(folder, content)
        keep_split(folder, split)
        return record
    record = StudyRecord.open(folder)
    moved = _moved_data(content, record.content, note)
    if names := _changed(content["settings"], record.content.get("settings"), moved):
        raise UsageError(
            f"--resume: the settings of run '{folder.name}' were different ({names}); give the same flags "
            "and file as before, or use another --name"
        )
    keep_split(folder, split)
    if not check_only:
        changed = {"settings": content["settings"]} if moved else {}
        record.update(status=RUNNING, ended_at=None, **changed)
    return record


def _moved_data(
    content: Mapping[str, Any], recorded: Mapping[str, Any], note: Callable[[str], None]
) -> bool:
    """Whether another folder has the same data as before; a note says so, or that the data differ."""
    folder = content["settings"].get("data_dir")
    settings = recorded.get("settings")
    before = settings.get("data_dir") if isinstance(settings, dict) else None
    same = content["data"] == recorded.get("data")
    moved = folder != before and bool(content["data"]) and same
    if folder == before and content["data"] and recorded.get("data") and not same:
        note(f"note: inputs or labels in {folder} are not the same as when the study began")
    if moved:
        note(f"note: the data in {folder} are the same as before in {before}; the study continues")
    return moved


def _changed(values: dict[str, Any], recorded: Any, moved: bool) -> str:
    """Names whose values differ from the recorded ones, with both values; empty if none does.

    Args:
        values: of this call.
        recorded: of the first one.
        moved: whether another data folder has the same data.
    """
    before = recorded if isinstance(recorded, dict) else {}
    names = sorted({*values, *before} - ({"data_dir"} if moved else set()))
    return ", ".join(
        f"{brief(name)}: {_shortly(values, name)}, before {_shortly(before, name)}"
        for name in names
        if name not in values or name not in before or values[name] != before[name]
    )


def _shortly(values: dict[str, Any], name: str) -> str:
    return quoted(values[name]) if name in values else "none"


def _study_content(plan: StudyPlan, space_path: Path) -> dict[str, Any]:
    return {
        "dataset": plan.settings["dataset"],
        "method": plan.settings["method"],
        "seed": plan.settings["seed"],
        "settings": plan.settings,
        "method_settings": sorted(METHODS[plan.settings["method"]].Options.model_fields),
        "space_file": str(space_path),
        "space": plan.space.model_dump(mode="json"),
        "rules": plan.rules(),
        "num_samples": plan.num_samples,
        "lag": plan.lag,
        "confirm": {"top": plan.confirm_top, "seeds": plan.confirm_seeds},
        "limits": asdict(plan.limits),
        "pace": throughput_settings(plan),
        "environment": describe_environment(_gpu()),
    }


def _run_content(config: RunConfig) -> dict[str, Any]:
    space = {"metric": "val_map", "mode": "max", "parameters": {}, "published": {}, "fixed": {}}
    return {
        "dataset": config.training.dataset,
        "method": config.training.method,
        "seed": config.training.seed,
        "settings": config.flat(),
        "space": space,
        "num_samples": 1,
        "environment": describe_environment(_gpu()),
    }


def _gpu() -> str | None:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
