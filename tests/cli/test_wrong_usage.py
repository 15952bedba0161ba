"""Wrong input ends with exit code 2 and one sentence, and starts and writes nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bbam_ray.cli.main import app

SMALL = ["--set", "scenes=60", "--set", "test_scenes=20"]


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file, not a folder")
    return tmp_path


def assert_refused(arguments: list[str], expected: list[str], folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 2, ended.output
    assert ended.stderr.startswith("error: ")
    assert len(ended.stderr.strip().splitlines()) == 1
    for word in expected:
        assert word in ended.stderr
    assert sorted(folder.rglob("*")) == before


TUNE_MISTAKES = {
    "unknown data set": (["--dataset", "digit"], ["'digit'", "did you mean 'digits'?"]),
    "unknown method": (["--method", "bban"], ["'bban'", "did you mean 'bbam'?"]),
    "unknown key": (["--set", "scal=3"], ["'scal'", "did you mean 'scale'?"]),
    "value out of range": (["--set", "scale=-3"], ["scale", "-3"]),
    "value of another kind": (["--set", "margin=high"], ["margin", "high"]),
    "no key=value": (["--set", "margin"], ["margin", "key=value"]),
    "fraction of 1": (["--labeled-fraction", "1"], ["labeled_fraction", "1"]),
    "fraction of 0": (["--labeled-fraction", "0"], ["labeled_fraction", "0"]),
    "no labelled positives": (["--labeled-fraction", "0.001"], ["--labeled-fraction"]),
    "no validation samples": (["--set", "validation_fraction=0"], ["validation_fraction"]),
    "missing data": (["--dataset", "awa"], ["classes.txt", "--data-dir", "digits", "13 GB"]),
    "missing space file": (["--space", "nowhere.yaml"], ["nowhere.yaml"]),
    "no such study": (["--name", "nobody", "--resume"], ["nobody", "--name"]),
    "resume without a name": (["--resume"], ["--name"]),
    "impossible name": (["--name", "a/b"], ["a/b"]),
    "impossible time": (["--time-budget", "soon"], ["soon", "30m"]),
    "impossible address": (["--address", "127.0.0.1"], ["127.0.0.1", "ray://"]),
    "more workers than there can be": (["--workers", "500"], ["--workers 500"]),
    "no GPU here": (["--gpus-per-worker", "1"], ["no GPU"]),
    "warm-up longer than the run": (["--epochs", "2", "--warmup-epochs", "3"], ["warmup_epochs"]),
    "unwritable results": (["--results", "taken"], ["taken", "--results"]),
    "population-based training": (["--scheduler", "pbt"], ["--scheduler pbt", "asha"]),
    "grace within the warm-up": (
        ["--scheduler", "asha", "--grace-epochs", "2"],
        ["--grace-epochs 2", "warm-up", "at least 6"],
    ),
    "grace longer than a trial": (
        ["--scheduler", "median", "--grace-epochs", "13"],
        ["--grace-epochs 13", "--scheduler none"],
    ),
    "GPU-hours without a GPU": (["--gpu-hours", "5"], ["--gpu-hours 5", "--time-budget"]),
    "money without a price": (["--max-cost", "9"], ["--max-cost 9", "--price"]),
    "money without a GPU": (["--max-cost", "9", "--price", "2"], ["--max-cost 9", "no GPU"]),
    "price of nothing": (["--price", "-1"], ["--price -1", "above 0"]),
    "no file of prices": (["--price", "prices.yaml"], ["prices.yaml"]),
    "unknown tracker": (["--tracker", "mlfow"], ["'mlfow'", "did you mean 'mlflow'?"]),
    "warm start from nowhere": (["--warm-start", "nobody"], ["--warm-start nobody", "folder"]),
    "given twice": (["--set", "epochs=4", "--epochs", "5"], ["--epochs"]),
}


@pytest.mark.parametrize(("arguments", "expected"), TUNE_MISTAKES.values(), ids=list(TUNE_MISTAKES))
def test_tune_names_the_mistake_and_writes_nothing(
    arguments: list[str], expected: list[str], folder: Path
) -> None:
    if arguments[0] == "--gpus-per-worker" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    digits = [] if "--dataset" in arguments else SMALL
    assert_refused(["tune", *arguments, *digits], expected, folder)


def test_an_existing_study_is_neither_overwritten_nor_touched(folder: Path) -> None:
    study = folder / "results" / "digits" / "mine"
    study.mkdir(parents=True)
    (study / "study.json").write_text("{}")
    assert_refused(["tune", "--name", "mine", *SMALL], ["mine", "--resume"], folder)
    assert_refused(["train", "--name", "mine", *SMALL], ["mine", "--resume"], folder)
    assert (study / "study.json").read_text() == "{}"


def test_a_defect_in_a_space_file_is_named(folder: Path) -> None:
    space = "parameters: {margin: {type: float, low: 0.5, high: 0.1}}\npublished: {margin: 0.2}\n"
    (folder / "mine.yaml").write_text(space)
    arguments = ["tune", "--space", "mine.yaml", *SMALL]
    assert_refused(arguments, ["mine.yaml", "margin", "0.5", "0.1"], folder)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--config", "none.yaml"], "none.yaml"),
        (["--config", "taken"], "taken"),
        (["--set", "loss=bce"], "loss"),
        (["--name", "x", "--resume"], "x"),
    ],
)
def test_train_names_the_mistake(arguments: list[str], word: str, folder: Path) -> None:
    assert_refused(["train", *arguments, *SMALL], [word], folder)


def test_report_of_no_study_is_wrong_usage(folder: Path) -> None:
    assert_refused(["report", "nothing"], ["nothing"], folder)


def test_an_unknown_option_is_wrong_usage(folder: Path) -> None:
    assert CliRunner().invoke(app, ["tune", "--epoch", "3"]).exit_code == 2


def test_the_launch_file_is_the_same_program(folder: Path) -> None:
    script = Path(__file__).parents[2] / "launch" / "tune.py"
    ended = subprocess.run(
        [sys.executable, str(script), "--dataset", "digit"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: unknown data set 'digit'")
