"""Where a study ran, and the commands that repeat it."""

from __future__ import annotations

import shlex
from html import escape
from pathlib import PurePath

from bbam_ray.report.report_data import ReportData
from bbam_ray.results.redaction import MARK, redacted_command


def commands(data: ReportData) -> list[str]:
    """Commands for a shell: the study again under another name, and its best configuration alone.

    A command that this project does not know (a notebook, say) is given as it was recorded.
    """
    recorded = redacted_command(str(data.record["command"]))  # an older one may hold secrets
    try:
        words = shlex.split(recorded)
    except ValueError:
        words = []
    programs = [PurePath(word).name for word in words[:3]]
    script = next((word for word in words[:3] if PurePath(word).name in _SCRIPTS), None)
    kind = PurePath(script).stem if script else None
    if "bbam-ray" in programs and len(words) > 1:
        place = programs.index("bbam-ray")
        kind = words[place + 1] if len(words) > place + 1 else None
        words[place] = "bbam-ray"
    if kind not in ("tune", "train"):
        return [recorded]
    again = [word for word in words if word != "--resume"]
    # The last of two options counts. What was trained before would be taken over, not repeated.
    again += ["--name", f"{data.folder.name}-again", *["--no-reuse"] * (kind == "tune")]
    lines = [shlex.join(again)]
    best = data.folder / "best.yaml"
    if kind == "tune" and best.is_file():
        train = ["bbam-ray", "train"]
        if script is not None:
            train = [words[0], str(PurePath(script).with_name("train.py"))]
        lines.append(shlex.join([*train, "--config", str(best), "--test"]))
    return lines


_SCRIPTS = ("tune.py", "train.py")


def reproduce_html(data: ReportData) -> str:
    """A section with the commands and the environment."""
    environment = data.record["environment"]
    packages = ", ".join(
        f"{name} {value}" for name, value in environment["packages"].items() if value
    )
    facts = f"{packages}; Python {environment['python']}; {environment['cpu_count']} CPUs"
    facts += f"; {environment['gpu'] or 'no GPU'}; commit {environment['git_commit'] or 'unknown'}"
    facts += f"; seed {data.record.get('seed', 'unknown')}"
    lines = commands(data)
    told = (
        "The whole study under another name, then its best configuration alone, as in its trial."
        if len(lines) > 1
        else "The command."
    )
    if any(MARK in line for line in lines):
        told += f" Put your own credentials where it says {MARK}."
    blocks = "".join(f"<pre>{escape(line)}</pre>" for line in lines)
    when = f"started {data.record['started_at']}, ended {data.record['ended_at'] or 'not yet'}"
    return (
        f"<section><h2>How to repeat it</h2><p>{told} Run from the folder where the study was "
        f'started.</p>{blocks}<p class="note">{escape(facts)}; {escape(when)}</p></section>'
    )
