"""The live page of a running study: its present state, then its report so far."""

from __future__ import annotations

import hashlib
import os
import platform
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from bbam_ray.errors import UsageError
from bbam_ray.report.page import render_page
from bbam_ray.report.report_data import ReportData
from bbam_ray.report.study_report import Report, study_heading, study_report
from bbam_ray.report.tables import Table, number_text
from bbam_ray.results.loading import Study
from bbam_ray.results.parts import FOLDER as PARTS
from bbam_ray.results.summary import duration

#: columns of the history shown for a running trial, with their headers
_COLUMNS = {
    "epoch": "epoch",
    "phase": "phase",
    "val_map": "val_map",
    "loss": "loss",
    "images_per_second": "samples / s",
    "pseudo_positives": "pseudo-positives per sample",
    "pseudo_precision": "their precision",
    "vdfd_mean": "VDFD",
}


def state_of(folder: Path) -> str:
    """A fingerprint of a study's files, which changes when any of them does."""
    states = []
    for path in sorted([*folder.glob("*"), *folder.glob(f"{PARTS}/*/*")]):
        if path.suffix in (".parquet", ".json") and not path.name.startswith("."):
            with suppress(FileNotFoundError):  # a part that was merged meanwhile
                status = path.lstat()
                states.append(f"{path} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256(os.fsencode("\n".join(states))).hexdigest()


def live_html(folder: Path) -> str:
    """The page. It polls ``/state`` for changes and loads ``/plotly.js``.

    Raises:
        UsageError: the folder holds no study, or one of a newer version of this program.
    """
    study = Study(folder)
    report: Report | None = None
    problem = ""
    try:
        report = study_report(ReportData(folder))
    except UsageError as error:  # no trial has ended yet
        problem = str(error)
    return render_page(
        "live_page.html.j2",
        title=study.name,
        heading=study_heading(study.record),
        progress=_progress(study),
        machine=_machine(study.record),
        running=_running_trials(study),
        report=report,
        problem=problem,
    )


def _progress(study: Study) -> str:
    record, trials = study.record, study.trials
    ended, planned = len(trials), record.get("num_samples") or len(trials)
    text = f"{study.status.lower()}: {ended} of {planned} trials have ended"
    confirm = record.get("confirm") or {}
    confirmations = int(confirm.get("top") or 0) * int(confirm.get("seeds") or 0)
    if confirmations:
        text += f", {len(study.confirm)} of {confirmations} confirmation runs"
    start = pd.Timestamp(record["started_at"])
    end = pd.Timestamp(record["ended_at"]) if record.get("ended_at") else datetime.now(UTC)
    text += f"; {duration((end - start).total_seconds())} since the start"
    if ended and study.status == "RUNNING" and planned > ended:
        parallel = max(1, int(record.get("lag") or 2) // 2)
        remaining = float(trials["duration_s"].median()) * (planned - ended) / parallel
        text += f", about {duration(remaining)} of searching left"
    if ended and (hours := float(trials["gpu_hours"].fillna(0).sum())):
        text += f"; {hours:.2f} GPU-hours"
        cost = trials["cost"].fillna(0).sum()
        text += f", cost {cost:.2f}" if cost else ""
    return text


def _machine(record: dict[str, Any]) -> str:
    """Load and memory of this machine; empty if the study was started on another one."""
    if (record.get("environment") or {}).get("host") != platform.node():
        return ""
    text = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
    memory = Path("/proc/meminfo")
    if memory.exists():
        lines = (line.split() for line in memory.read_text().splitlines())
        gib = {line[0].rstrip(":"): int(line[1]) / 2**20 for line in lines}
        used = gib["MemTotal"] - gib["MemAvailable"]
        text += f", {used:.1f} of {gib['MemTotal']:.1f} GiB of memory"
    return text


def _running_trials(study: Study) -> Table | None:
    """The newest epoch of each trial that has not ended."""
    history, trials = study.history, study.trials
    if history.empty or study.status != "RUNNING":
        return None
    ended = set(trials["number"]) if len(trials) else set()
    running = history[~history["number"].isin(ended)].sort_values(["number", "epoch"])
    columns = [name for name in _COLUMNS if name in running]
    rows = [
        [f"trial {row.number}", *(number_text(row[name]) for name in columns)]
        for _, row in running.groupby("number").tail(1).iterrows()
    ]
    if not rows:
        return None
    return Table("Running trials", ["running", *(_COLUMNS[name] for name in columns)], rows)
