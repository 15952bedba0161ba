"""The page of a study that runs: what it does now, and its report as far as it has come."""

from __future__ import annotations

import hashlib
import os
import platform
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from bbam_ray.errors import UsageError
from bbam_ray.report.answer import answer_html
from bbam_ray.report.drawing import group_html, number_text, table_html
from bbam_ray.report.html import groups
from bbam_ray.report.page import page
from bbam_ray.report.report_data import ReportData
from bbam_ray.report.reproduce import reproduce_html
from bbam_ray.report.trials_table import trials_html
from bbam_ray.results.loading import Study
from bbam_ray.results.study import StudyStatus
from bbam_ray.results.summary import duration

#: columns of the history that are shown of a running trial, with what to call them
_NOW = {
    "epoch": "epoch",
    "phase": "phase",
    "val_map": "val_map",
    "loss": "loss",
    "images_per_second": "samples / s",
    "pseudo_positives": "pseudo-positives a sample",
    "pseudo_precision": "their precision",
    "vdfd_mean": "VDFD",
}
# Where a reload would lose what the reader is doing, it waits for them to look elsewhere.
_SCRIPT = """<script>
let state = null, wait = null;
setInterval(async () => {
  const mark = document.getElementById("live");
  try {
    const now = await (await fetch("/state", {cache: "no-store"})).text();
    mark.textContent = "live";
    if (state !== null && now !== state && getSelection().isCollapsed) location.reload();
    state = state === null || getSelection().isCollapsed ? now : state;
  } catch { mark.textContent = "bbam-ray watch has ended; this is what it showed last"; }
}, 2000);
</script>"""


def state_of(folder: Path) -> str:
    """A text that changes when anything of the study does."""
    found = []
    for path in sorted(folder.glob("*")):
        if path.suffix in (".parquet", ".json") and not path.name.startswith("."):
            status = path.lstat()
            found.append(f"{path.name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256(os.fsencode("\n".join(found))).hexdigest()


def live_html(folder: Path) -> str:
    """The page, which asks ``/state`` for changes and loads ``/plotly.js``.

    Raises:
        UsageError: no study there, or one of a newer version.
    """
    study = Study(folder)
    title = f"{study.name}: {study.record['dataset']}, {study.record['method']}"
    parts = [f'<h1>{escape(title)} <small class="note" id="live">live</small></h1>', _now(study)]
    try:
        data = ReportData(folder)
    except UsageError as error:
        parts.append(f'<p class="note">{escape(str(error))}</p>')
    else:
        parts += [answer_html(data), trials_html(data)]
        parts += map(group_html, groups(data))
        parts.append(reproduce_html(data))
    return page(study.name, "".join(parts), '<script src="/plotly.js"></script>' + _SCRIPT)


def _now(study: Study) -> str:
    lines = [_progress(study), _resources(study.record)]
    said = "".join(f"<p>{line}</p>" for line in lines if line)
    return f"<h2>Now</h2>{said}{_running(study)}"


def _progress(study: Study) -> str:
    record, trials = study.record, study.trials
    ended, asked = len(trials), record.get("num_samples") or len(trials)
    text = f"{study.status.lower()}: {ended} of {asked} trials have ended"
    confirm = record.get("confirm") or {}
    wanted = int(confirm.get("top") or 0) * int(confirm.get("seeds") or 0)
    if wanted:
        text += f", {len(study.confirm)} of {wanted} confirming runs"
    since = pd.Timestamp(record["started_at"])
    end = pd.Timestamp(record["ended_at"]) if record.get("ended_at") else datetime.now(UTC)
    text += f"; {duration((end - since).total_seconds())} since it began"
    if ended and study.status == StudyStatus.RUNNING and asked > ended:
        at_once = max(1, int(record.get("lag") or 2) // 2)
        left = float(trials["duration_s"].median()) * (asked - ended) / at_once
        text += f", about {duration(left)} of searching left"
    if ended and (hours := float(trials["gpu_hours"].fillna(0).sum())):
        text += f"; {hours:.2f} GPU-hours"
        cost = trials["cost"].fillna(0).sum()
        text += f", {cost:.2f} of money" if cost else ""
    return f'<span class="answer">{escape(text)}</span>'


def _resources(record: dict[str, Any]) -> str:
    """Load and memory of this machine, where the study was started on it."""
    if (record.get("environment") or {}).get("host") != platform.node():
        return ""
    facts = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
    memory = Path("/proc/meminfo")
    if memory.exists():
        lines = (line.split() for line in memory.read_text().splitlines())
        size = {line[0].rstrip(":"): int(line[1]) / 2**20 for line in lines}
        used = size["MemTotal"] - size["MemAvailable"]
        facts += f", {used:.1f} of {size['MemTotal']:.1f} GiB of memory"
    return f'<span class="note">this machine: {facts}</span>'


def _running(study: Study) -> str:
    """The newest epoch of each trial that has not ended."""
    history, trials = study.history, study.trials
    if history.empty or study.status != StudyStatus.RUNNING:
        return ""
    ended = set(trials["number"]) if len(trials) else set()
    open_ones = history[~history["number"].isin(ended)].sort_values(["number", "epoch"])
    columns = [name for name in _NOW if name in open_ones]
    rows = [
        [f"trial {row.number}", *(_text(row[name]) for name in columns)]
        for _, row in open_ones.groupby("number").tail(1).iterrows()
    ]
    if not rows:
        return ""
    return table_html(["running", *(_NOW[name] for name in columns)], rows, "Running trials")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else number_text(value)
