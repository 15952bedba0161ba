"""Commands on labels as users have them: what was understood is said, a validation part is used, and a
resumed run says what differs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from label_inputs import write_table
from typer.testing import CliRunner

from bbam_ray.cli.main import app
from bbam_ray.commands import checks, compare_setup
from bbam_ray.commands.listener import Listener
from bbam_ray.results.store import read_table

ROOT = Path(__file__).parents[2]
ROWS = {"train": 40, "dev": 12, "test": 12}
SMALL = ["--epochs", "2", "--warmup-epochs", "1", "--labeled-fraction", "0.5"]
SMALL += ["--set", "warmup_passes=1", "--set", "hidden_dim=16", "--set", "feature_dim=8"]
SUMMARY = "labels: column `labels`, lists, 3 names; 64 of 64 rows labelled"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("BBAM_RAY_CACHE", str(tmp_path / "cache"))


def features(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, count in ROWS.items():
        labels = [["a", "b", "caf\u00e9"][: 1 + row % 3] for row in range(count)]
        columns = {"features": rng.normal(size=(count, 5)).tolist(), "labels": labels}
        write_table(folder / f"{name}.parquet", columns)
    return folder


def run(command: str, folder: Path, *arguments: str) -> tuple[int, str]:
    common = [command, "--dataset", "features", "--data-dir", str(folder), *SMALL]
    ended = CliRunner().invoke(app, [*common, *arguments])
    return ended.exit_code, ended.output


def train(folder: Path, *arguments: str) -> tuple[int, str]:
    return run("train", folder, "--results", "r", "--name", "n", *arguments)


def test_a_run_validates_on_the_validation_part(tmp_path: Path) -> None:
    code, output = train(features(tmp_path / "f"))
    assert code == 0, output
    assert SUMMARY in output
    assert "12 rows are the validation part of these data" in output
    assert "20 labelled, 12 validation, 20 unlabelled" in output
    parts = read_table(tmp_path / "r" / "features" / "n" / "split.parquet")
    assert parts.column("part").to_pylist()[40:] == ["validation"] * 12


def test_without_validation_its_samples_are_labelled_ones(tmp_path: Path) -> None:
    code, output = train(features(tmp_path / "f"), "--set", "validation_fraction=0")
    assert code == 0, output
    assert "32 labelled, 0 validation, 20 unlabelled" in output


def test_a_search_has_one_fold_and_more_are_refused(tmp_path: Path) -> None:
    folder = features(tmp_path / "f")
    code, output = run("tune", folder, "--dry-run")
    assert code == 0, output
    assert SUMMARY in output and "5 folds" not in output
    for arguments in (["--folds", "3"], ["--set", "reshuffle=true"]):
        code, output = run("tune", folder, "--dry-run", *arguments)
        assert code == 2 and "the data have a validation part" in output


@pytest.mark.parametrize("command", ["info", "check", "cache"])
def test_commands_about_data_say_what_was_understood(command: str, tmp_path: Path) -> None:
    arguments = [
        "data",
        command,
        "--dataset",
        "features",
        "--data-dir",
        str(features(tmp_path / "f")),
    ]
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 0, ended.output
    assert ended.output.count(SUMMARY) == 1
    assert ("train.parquet row 3: a, b, caf\u00e9" in ended.output) == (command == "check")


def test_a_comparison_says_it_once(tmp_path: Path) -> None:
    class Lines(Listener):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def message(self, text: str) -> None:
            self.lines.append(text)

    listener = Lines()
    options = compare_setup.CompareOptions(
        settings={"dataset": "features", "data_dir": str(features(tmp_path / "f")), "seed": 0},
        shape=checks.worker_shape(1, cpus=1, gpus=0, timeout="2m", max_failures=0),
        methods=("bbam", "supervised"),
        labeled_fractions=(0.5,),
        results=tmp_path / "r",
    )
    compare_setup.prepare(options, listener)
    assert listener.lines.count(SUMMARY) == 1


def test_moved_data_are_recognised_by_their_content(tmp_path: Path) -> None:
    folder = features(tmp_path / "f")
    assert train(folder)[0] == 0
    moved = folder.rename(tmp_path / "g")
    code, output = train(moved, "--resume")
    assert code == 0, output
    assert f"the data in {moved} are the same as before in {folder}" in output
    assert "are the same as before" not in train(moved, "--resume")[1]
    other = tmp_path / "h"
    features(other)
    table = {
        "features": [[0.0] * 5] * 40,
        "labels": [["a", "b", "caf\u00e9"][: 1 + r % 3] for r in range(40)],
    }
    write_table(other / "train.parquet", table)
    code, output = train(other, "--resume")
    assert code == 2 and f"data_dir: '{other}', before '{moved}'" in output


def test_changed_data_in_the_same_folder_are_said(tmp_path: Path) -> None:
    folder = features(tmp_path / "f")
    assert train(folder)[0] == 0
    table = {
        "features": [[0.0] * 5] * 40,
        "labels": [["a", "b", "caf\u00e9"][: 1 + r % 3] for r in range(40)],
    }
    write_table(folder / "train.parquet", table)
    assert "are not the same as when the study began" in train(folder, "--resume")[1]


def test_a_setting_that_differs_is_named_with_both_values(tmp_path: Path) -> None:
    folder = features(tmp_path / "f")
    assert train(folder)[0] == 0
    code, output = train(folder, "--resume", "--set", "margin=0.125")
    assert code == 2 and "margin: 0.125, before 0." in output


def test_a_terminal_without_unicode_shows_escapes(tmp_path: Path) -> None:
    folder = features(tmp_path / "f")
    program = "from bbam_ray.cli.main import main; main()"
    command = [sys.executable, "-c", program, "data", "check", "--dataset", "features"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [*command, "--data-dir", str(folder)], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "caf\\xe9" in ended.stdout
