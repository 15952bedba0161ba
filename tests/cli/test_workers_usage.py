"""Wrong options for workers end with one sentence, and nothing is started or written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import ray
import torch
from typer.testing import CliRunner

from bbam_ray.cli.main import app

TOO_MANY = (os.cpu_count() or 1) + 1
SMALL = ["--set", "scenes=60", "--set", "test_scenes=20", "--labeled-fraction", "0.4"]
# Enough samples for one worker more than this machine has CPUs.
LARGE = [
    *("--set", f"scenes={40 * TOO_MANY}", "--set", "test_scenes=20"),
    *("--labeled-fraction", "0.5", "--set", f"labeled_batch={8 * TOO_MANY}"),
]
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_refused(arguments: list[str], expected: list[str], folder: Path) -> None:
    """Exit code 2, one sentence with these words in it, no Ray and no file."""
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 2, ended.output
    assert ended.stderr.startswith("error: ")
    assert len(ended.stderr.strip().splitlines()) == 1
    for word in expected:
        assert word in ended.stderr
    assert ended.stdout == ""
    assert not ray.is_initialized()
    assert list(folder.iterdir()) == []


MISTAKES = {
    "no worker": (["--workers", "0", *SMALL], ["--workers 0", "2-8"]),
    "no worker in a range": (["--workers", "0-2", *SMALL], ["--workers 0-2", "2-8"]),
    "a negative number": (["--workers=-1", *SMALL], ["--workers -1", "2-8"]),
    "no number": (["--workers", "x", *SMALL], ["--workers x", "2-8"]),
    "a range upside down": (["--workers", "3-2", *SMALL], ["--workers 3-2", "2-8"]),
    "half a range": (["--workers", "2-", *SMALL], ["--workers 2-", "2-8"]),
    "more workers than CPUs": (
        ["--workers", str(TOO_MANY), *LARGE],
        [f"--workers {TOO_MANY}", f"{TOO_MANY} CPUs", f"has {TOO_MANY - 1}", "--address"],
    ),
    "more CPUs than there are": (
        ["--workers", "2", "--cpus-per-worker", str(TOO_MANY), *SMALL],
        ["--workers 2", f"--cpus-per-worker {TOO_MANY}", f"{2 * TOO_MANY} CPUs", "--address"],
    ),
    "a range that begins with too many": (
        ["--workers", f"{TOO_MANY}-{TOO_MANY + 1}", *LARGE],
        [f"--workers {TOO_MANY}", f"has {TOO_MANY - 1}"],
    ),
    "fewer labelled samples than workers": (
        ["--workers", "20", "--set", "scenes=60", "--labeled-fraction", "0.3"],
        ["--workers 20", "labelled samples", "--labeled-fraction"],
    ),
    "fewer labelled samples than the most workers": (
        ["--workers", "1-20", "--set", "scenes=60", "--labeled-fraction", "0.3"],
        ["--workers 20", "labelled samples", "--labeled-fraction"],
    ),
    "a step of fewer samples than workers": (
        ["--workers", "2", "--set", "labeled_batch=1", *SMALL],
        ["--workers 2", "step of 1 ", "labeled_batch=N"],
    ),
    "too few samples for a batch norm": (
        [
            *("--workers", "2", "--set", "synchronized_batch_norm=false"),
            *("--set", "labeled_batch=7", *SMALL),
        ],
        ["--workers 2", "7 labelled", "synchronized_batch_norm=true"],
    ),
    "an impossible time-out": (
        ["--workers", "2", "--worker-timeout", "soon", *SMALL],
        ["--worker-timeout soon", "30m"],
    ),
    "no time at all": (
        ["--workers", "2", "--worker-timeout", "0s", *SMALL],
        ["--worker-timeout 0s", "30m"],
    ),
    "an impossible wait": (
        ["--workers", "2", "--start-timeout", "1 week", *SMALL],
        ["--start-timeout 1 week", "30m"],
    ),
}


@pytest.mark.parametrize("command", ["train", "tune"])
@pytest.mark.parametrize(("arguments", "expected"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_about_workers_is_named(
    command: str, arguments: list[str], expected: list[str], folder: Path
) -> None:
    assert_refused([command, *arguments], expected, folder)


@NO_GPU
@pytest.mark.parametrize("command", ["train", "tune"])
@pytest.mark.parametrize("gpus", ["1", "0.5"])
def test_gpus_that_are_not_here_are_named(command: str, gpus: str, folder: Path) -> None:
    arguments = [command, "--workers", "2", "--gpus-per-worker", gpus, *SMALL]
    assert_refused(arguments, [f"--gpus-per-worker {gpus}", "no GPU"], folder)


@pytest.mark.parametrize("asked", ["1-2", "2-3"])
def test_a_gang_has_one_number_of_workers(asked: str, folder: Path) -> None:
    arguments = ["tune", "--trial-runner", "gang", "--workers", asked, *SMALL]
    assert_refused(arguments, ["--trial-runner gang", asked, "--trial-runner train"], folder)


@pytest.mark.parametrize("command", ["train", "tune"])
def test_numbers_out_of_range_are_wrong_usage(command: str, folder: Path) -> None:
    for mistake in ("--cpus-per-worker=0", "--gpus-per-worker=-1", "--max-failures=-2"):
        ended = CliRunner().invoke(app, [command, mistake, *SMALL])
        assert ended.exit_code == 2
        assert mistake.split("=")[0] in ended.stderr
    assert list(folder.iterdir()) == []


def test_a_plan_with_as_many_workers_as_fit_is_accepted(folder: Path) -> None:
    """The other side of the mistakes above: the same flags with possible numbers."""
    arguments = ["tune", "--dry-run", "--workers", str(TOO_MANY - 1), *LARGE]
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 0, ended.output
    if TOO_MANY > 2:
        assert f"{TOO_MANY - 1} workers" in ended.stdout
    assert list(folder.iterdir()) == []
