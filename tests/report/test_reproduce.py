"""The commands that reproduce a study: complete, quoted, and accepted by the programs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bbam_ray.report.report_data import ReportData
from bbam_ray.report.reproduce import reproducing_commands
from bbam_ray.results.study import StudyRecord


def commands_for(folder: Path, command: str) -> list[str]:
    StudyRecord.open(folder).update(command=command)
    return reproducing_commands(ReportData(folder))


@pytest.fixture()
def folder(write_study: Callable[..., Path], tmp_path: Path) -> Path:
    return write_study(tmp_path / "with space", trials=3, labels=1)


def test_a_search_is_repeated_under_another_name_and_its_best_is_trained(folder: Path) -> None:
    search, best = commands_for(
        folder, "python launch/tune.py --name 'with space' --resume --set 'labels=a b'"
    )
    assert shlex.split(search) == [
        *("python", "launch/tune.py", "--set", "labels=a b"),
        *("--name", "with space-again", "--no-reuse"),
    ]
    assert shlex.split(best) == [
        *("python", "launch/train.py", "--config", str(folder / "best.yaml"), "--test"),
    ]


def test_the_installed_program_is_called_by_its_name(folder: Path) -> None:
    search, best = commands_for(folder, "/opt/env/bin/bbam-ray tune --name=one")
    assert search.startswith("bbam-ray tune --name ")
    assert best.startswith("bbam-ray train --config ")


def test_a_run_is_repeated_as_it_was(folder: Path) -> None:
    (folder / "best.yaml").unlink()
    assert commands_for(folder, "python launch/train.py --epochs 5") == [
        "python launch/train.py --epochs 5 --name 'with space-again'"
    ]


@pytest.mark.parametrize(
    "command", ["python launch/compare.py --methods bbam", "jupyter kernel", "it's not closed", ""]
)
def test_an_unknown_command_is_given_as_it_was_recorded(command: str, folder: Path) -> None:
    assert commands_for(folder, command) == [command]


@pytest.mark.ray
def test_both_commands_of_a_real_study_are_accepted(
    real_study: Path, run_command: Callable[..., Any]
) -> None:
    """Plan the search and train the best configuration, in the folder where the study was started."""
    above = real_study.parents[2]
    search, best = reproducing_commands(ReportData(real_study))
    run_command(search, above, "--dry-run")
    assert "test_map" in run_command(best, above).stdout
