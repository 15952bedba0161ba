"""Where a study ran, and the commands that reproduce it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from bbam_ray.report.report_data import ReportData
from bbam_ray.results.redaction import MARK, redacted_command

_SCRIPTS = ("tune.py", "train.py")


@dataclass(frozen=True)
class Reproduction:
    """What ``_reproduce.html.j2`` shows.

    Args:
        commands: for a shell, in the folder where the study was started.
        placeholder: replaces credentials in the commands; None if there are none.
        environment: packages, machine, commit and seed.
        started, ended: times in ISO 8601; ``ended`` is None while the study runs.
    """

    commands: list[str]
    placeholder: str | None
    environment: str
    started: str
    ended: str | None


def reproduction(data: ReportData) -> Reproduction:
    """Collect the commands and the environment of a study."""
    environment = data.record["environment"]
    facts = [
        ", ".join(
            f"{name} {version}" for name, version in environment["packages"].items() if version
        ),
        f"Python {environment['python']}",
        f"{environment['cpu_count']} CPUs",
        environment["gpu"] or "no GPU",
        f"commit {environment['git_commit'] or 'unknown'}",
        f"seed {data.record.get('seed', 'unknown')}",
    ]
    commands = reproducing_commands(data)
    return Reproduction(
        commands=commands,
        placeholder=MARK if any(MARK in command for command in commands) else None,
        environment="; ".join(facts),
        started=data.record["started_at"],
        ended=data.record["ended_at"],
    )


def reproducing_commands(data: ReportData) -> list[str]:
    """Shell commands: the whole study under another name, then a training run with its best configuration.

    The command of an unknown program (a notebook, for example) is given as it was recorded.
    """
    recorded = redacted_command(str(data.record["command"]))  # old records may hold secrets
    try:
        words = shlex.split(recorded)
    except ValueError:
        words = []
    programs = [PurePath(word).name for word in words[:3]]
    script = next((word for word in words[:3] if PurePath(word).name in _SCRIPTS), None)
    subcommand = PurePath(script).stem if script else None
    if "bbam-ray" in programs and len(words) > 1:
        index = programs.index("bbam-ray")
        subcommand = words[index + 1] if len(words) > index + 1 else None
        words[index] = "bbam-ray"
    if subcommand not in ("tune", "train"):
        return [recorded]
    study = _without_name(word for word in words if word not in ("--resume", "--no-reuse"))
    # Without --no-reuse, results would be copied from the old study.
    study += ["--name", f"{data.folder.name}-again", *["--no-reuse"] * (subcommand == "tune")]
    commands = [shlex.join(study)]
    best = data.folder / "best.yaml"
    if subcommand == "tune" and best.is_file():
        train = ["bbam-ray", "train"]
        if script is not None:
            train = [words[0], str(PurePath(script).with_name("train.py"))]
        commands.append(shlex.join([*train, "--config", str(best), "--test"]))
    return commands


def _without_name(words: Iterable[str]) -> list[str]:
    """A command without ``--name NAME`` and ``--name=NAME``."""
    remaining: list[str] = []
    skip = False
    for word in words:
        if not skip and word != "--name" and not word.startswith("--name="):
            remaining.append(word)
        skip = not skip and word == "--name"
    return remaining
