"""Where a study ran, and the commands that reproduce it."""

from __future__ import annotations

from dataclasses import dataclass

from bbam_ray.report.report_data import ReportData
from bbam_ray.report.study_command import StudyCommand
from bbam_ray.results.redaction import MARK, redacted_command


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
    recorded = str(data.record["command"])
    command = StudyCommand.parse(recorded)
    if command is None:
        return [redacted_command(recorded)]  # old records may hold secrets
    # Without --no-reuse, results would be copied from the old study.
    reuse = ["--no-reuse"] * (command.subcommand == "tune")
    name = ("--name", f"{data.folder.name}-again")
    study = command.line(*name, *reuse, without=["--name"], switches=["--resume", "--no-reuse"])
    best = data.folder / "best.yaml"
    if command.subcommand != "tune" or not best.is_file():
        return [study]
    return [study, command.other("train", "--config", str(best), "--test")]
