"""Whole studies with real Ray, through the command line: files, repeatability, resume, failure, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from bbam_ray.results.store import read_table

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
TINY = {
    "scenes": 150,
    "test_scenes": 60,
    "labeled_fraction": 0.4,
    "warmup_passes": 1,
    "hidden_dim": 16,
    "feature_dim": 8,
}
CLOCK = ["started_at", "duration_s", "gpu_hours", "seconds_per_epoch"]


def command(results: Path, *arguments: str) -> list[str]:
    settings = [part for name, value in TINY.items() for part in ("--set", f"{name}={value}")]
    script = [sys.executable, str(ROOT / "launch" / "tune.py"), "--results", str(results)]
    return [
        *script,
        "--no-dashboard",
        "--epochs",
        "4",
        "--warmup-epochs",
        "2",
        *settings,
        *arguments,
    ]


# A test run that was started in the background ignores SIGINT, and so would its children.
_HEARING = (
    "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def start(results: Path, *arguments: str) -> subprocess.Popen[str]:
    """A study in the background that Ctrl-C reaches as it does in a terminal."""
    python, *rest = command(results, *arguments)
    return subprocess.Popen(
        [python, "-c", _HEARING, *rest],
        cwd=results.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def tune(results: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(results, *arguments),
        cwd=results.parent,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def study(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    results = tmp_path_factory.mktemp("studies") / "results"
    ended = tune(results, "--name", "one", "--num-samples", "4", "--confirm-seeds", "2")
    return results / "digits" / "one", ended


def frame(folder: Path, table: str) -> pd.DataFrame:
    return read_table(folder / f"{table}.parquet").to_pandas()


def test_the_study_ends_well_and_says_what_a_user_wants_to_know(study: tuple) -> None:
    folder, ended = study
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    for word in ("best: trial", "confirmed on the test part", "best.yaml", "report.html"):
        assert word in ended.stdout
    assert "ray::" not in ended.stdout
    assert str(folder) in ended.stdout


def test_every_file_of_the_contract_is_there(study: tuple) -> None:
    folder, _ = study
    names = {path.name for path in folder.iterdir()} - {".previous", ".lock"}
    tables = {f"{name}.parquet" for name in ("trials", "history", "labels", "confirm", "split")}
    assert names == tables | {"study.json", "best.yaml", "study.db", "report.html", "checkpoints"}
    record = json.loads((folder / "study.json").read_text())
    assert record["status"] == "COMPLETE"
    assert record["schema_version"] == 1
    assert record["environment"]["packages"]["ray"]
    assert record["started_at"] < record["ended_at"]


def test_trials_and_history_agree(study: tuple) -> None:
    folder, _ = study
    trials, history = frame(folder, "trials"), frame(folder, "history")
    assert trials["number"].tolist() == [0, 1, 2, 3]
    assert set(trials["state"]) == {"COMPLETE"}
    assert trials["started_at"].dt.tz is not None
    for row in trials.itertuples():
        mine = history[history["number"] == row.number].set_index("epoch")
        assert mine.index.tolist() == [1, 2, 3, 4]
        assert mine["phase"].tolist() == ["warmup", "warmup", "main", "main"]
        assert row.val_map == mine["val_map"].max() == mine.loc[row.best_epoch, "val_map"]
    labels = frame(folder, "labels")
    assert len(labels) == 4 * 4 * 10
    assert pq.read_schema(folder / "labels.parquet").metadata[b"schema_version"] == b"1"
    measured = labels[labels["epoch"] > 2].dropna(subset=["variance_positive"])
    gap = (measured["variance_positive"] - measured["variance_negative"]).abs()
    assert measured["vdfd"].to_numpy() == pytest.approx(gap.to_numpy(), rel=1e-5)


def test_trial_0_is_the_published_configuration(study: tuple) -> None:
    folder, _ = study
    space = yaml.safe_load((ROOT / "search_spaces" / "digits.yaml").read_text())
    first = frame(folder, "trials").iloc[0]
    for name, value in space["published"].items():
        assert first[f"param_{name}"] == pytest.approx(float(value) if value != "8e-3" else 8e-3)


def test_the_confirmation_uses_other_seeds_and_all_labelled_samples(study: tuple) -> None:
    folder, _ = study
    trials, confirm = frame(folder, "trials"), frame(folder, "confirm")
    best = trials.sort_values(["val_map", "number"], ascending=[False, True]).iloc[0]
    assert confirm["number"].tolist() == [best["number"]] * 2
    assert confirm["seed"].tolist() == [1, 2]
    assert confirm["n_labeled"].tolist() == [60, 60]
    assert confirm["n_test"].tolist() == [60, 60]
    assert confirm["test_map"].between(0, 1).all()
    assert not any(name.startswith("test_") for name in trials)


def test_optuna_opens_the_study(study: tuple) -> None:
    folder, _ = study
    loaded = optuna.load_study(study_name="one", storage=f"sqlite:///{folder / 'study.db'}")
    trials = frame(folder, "trials")
    assert [trial.value for trial in loaded.trials] == trials["val_map"].tolist()
    assert loaded.trials[0].intermediate_values.keys() == {1, 2, 3, 4}


def test_best_yaml_trains_the_best_configuration(study: tuple, tmp_path: Path) -> None:
    folder, _ = study
    ended = subprocess.run(
        [
            *(sys.executable, str(ROOT / "launch" / "train.py")),
            *("--config", str(folder / "best.yaml"), "--results", str(tmp_path), "--name", "again"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    best = frame(folder, "trials")["val_map"].max()
    assert frame(tmp_path / "digits" / "again", "trials")["val_map"].tolist() == [best]


@pytest.mark.slow
def test_the_same_seed_repeats_the_study_and_resume_extends_it(study: tuple) -> None:
    """Two trials, then --resume to four: row by row what one study of four gave."""
    folder, _ = study
    results = folder.parents[1]
    common = ("--name", "two", "--confirm-seeds", "0", "--max-concurrent", "2", "--no-reuse")
    assert tune(results, *common, "--num-samples", "2").returncode == 0
    before = frame(folder.parent / "two", "trials")
    ended = tune(results, *common, "--num-samples", "4", "--resume")
    assert ended.returncode == 0, ended.stderr
    again = frame(folder.parent / "two", "trials")
    pd.testing.assert_frame_equal(again[:2], before, check_dtype=False)
    ignored = [*CLOCK, "study"]
    reference = frame(folder, "trials")
    pd.testing.assert_frame_equal(again.drop(columns=ignored), reference.drop(columns=ignored))


def test_resume_with_other_settings_is_refused(study: tuple) -> None:
    folder, _ = study
    before = (folder / "study.json").read_text()
    ended = tune(folder.parents[1], "--name", "one", "--resume", "--seed", "5")
    assert ended.returncode == 2
    assert "settings" in ended.stderr
    assert (folder / "study.json").read_text() == before


def test_a_failing_trial_is_recorded_and_the_others_continue(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(
        "parameters:\n"
        "  backbone: {type: categorical, choices: [small-cnn, mlp]}\n"  # mlp takes no images
        "  margin: {type: float, low: 0.1, high: 0.4}\n"
        "published: {backbone: small-cnn, margin: 0.2}\n"
    )
    ended = tune(
        tmp_path / "results",
        *("--space", str(space), "--num-samples", "5", "--confirm-seeds", "0", "--name", "f"),
        *("--json", "--seed", "1"),
    )
    assert ended.returncode == 3, ended.stderr
    trials = frame(tmp_path / "results" / "digits" / "f", "trials")
    failed = trials[trials["param_backbone"] == "mlp"]
    assert set(failed["state"]) == {"FAILED"}
    assert failed["error"].str.len().gt(0).all()
    assert failed["val_map"].isna().all()
    complete = trials[trials["param_backbone"] == "small-cnn"]
    assert len(complete)
    assert set(complete["state"]) == {"COMPLETE"}
    printed = json.loads(ended.stdout)
    assert printed["failed"] == len(failed)
    assert printed["best"]["val_map"] == complete["val_map"].max()


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_resume_finishes_it(tmp_path: Path) -> None:
    results = tmp_path / "results"
    arguments = ("--name", "stopped", "--num-samples", "9", "--confirm-seeds", "0")
    folder = results / "digits" / "stopped"
    process = start(results, *arguments)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not _trials_done(folder):
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "--resume" in out
    kept = frame(folder, "trials")
    assert 1 <= len(kept) < 9
    assert json.loads((folder / "study.json").read_text())["status"] == "INTERRUPTED"
    ended = tune(results, *arguments, "--resume")
    assert ended.returncode == 0, ended.stderr
    trials = frame(folder, "trials")
    assert trials["number"].tolist() == list(range(9))
    again = trials[trials["number"].isin(kept["number"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, kept, check_dtype=False)
    assert not frame(folder, "history").duplicated(["number", "epoch"]).any()


def _trials_done(folder: Path) -> int:
    path = folder / "trials.parquet"
    return len(frame(folder, "trials")) if path.exists() else 0


def test_ctrl_c_while_ray_starts_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "digits" / "early"
    process = start(tmp_path / "results", "--name", "early", "--num-samples", "2")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("starting Ray")
    time.sleep(1)  # Ray takes several seconds
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert not folder.exists()
