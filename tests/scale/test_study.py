"""Whole studies with real Ray, through the command line: files, repeatability, resume, failure, Ctrl-C.

The study of the fixture has the default folds, baselines and final answer; others have what they test.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from bbam_ray import load_model
from bbam_ray.core.ensembles import mean_average_precision
from bbam_ray.data import DATASETS
from bbam_ray.documents import read_yaml_mapping
from bbam_ray.results.store import read_table
from bbam_ray.results.summary import gain_sentences
from bbam_ray.scale.study.final_kinds import FULL_MODELS

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
FOLDS, TRIALS, SEEDS = 5, 4, [0, 1]
BASELINES = ["logistic", "propagation", "logistic+propagation"]
ONE_FOLD = ("--folds", "1", "--final", "single", "--no-baselines")


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
    ended = tune(results, "--name", "one", "--num-samples", str(TRIALS), "--confirm-seeds", "2")
    return results / "digits" / "one", ended


def frame(folder: Path, table: str) -> pd.DataFrame:
    return read_table(folder / f"{table}.parquet").to_pandas()


def test_the_study_ends_well_and_says_what_a_user_wants_to_know(study: tuple) -> None:
    folder, ended = study
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    for word in ("best: trial", "test part: means over seeds", "best.yaml", "report.html"):
        assert word in ended.stdout
    sentences = gain_sentences(json.loads((folder / "study.json").read_text()))
    assert len(sentences) == 2
    for sentence in sentences:
        assert sentence[1:] in " ".join(ended.stdout.split())
    assert "ray::" not in ended.stdout
    assert str(folder) in ended.stdout


def test_every_file_of_the_contract_is_there(study: tuple) -> None:
    folder, _ = study
    names = {path.name for path in folder.iterdir()} - {".previous", ".lock"}
    tables = ("trials", "history", "folds", "labels", "confirm", "split")
    assert names == {f"{name}.parquet" for name in tables} | {
        *("study.json", "best.yaml", "study.db", "report.html", "checkpoints")
    }
    record = json.loads((folder / "study.json").read_text())
    assert record["status"] == "COMPLETE"
    assert record["schema_version"] == 1
    assert record["environment"]["packages"]["ray"]
    assert record["started_at"] < record["ended_at"]


def test_the_split_says_which_fold_each_labelled_sample_belongs_to(study: tuple) -> None:
    folder, _ = study
    split = frame(folder, "split")
    labelled = split[split["part"] != "unlabeled"]
    assert len(labelled) == TINY["scenes"] * TINY["labeled_fraction"]
    assert labelled["fold"].value_counts().to_dict() == dict.fromkeys(range(FOLDS), 12)
    assert split["fold"][split["part"] == "unlabeled"].isna().all()
    assert labelled["part"][labelled["fold"] == 0].eq("validation").all()
    assert labelled["part"][labelled["fold"] > 0].eq("labeled").all()


def test_the_history_has_the_means_of_the_folds(study: tuple) -> None:
    folder, _ = study
    trials, history, folds = (frame(folder, name) for name in ("trials", "history", "folds"))
    assert not folds.duplicated(["number", "fold", "epoch"]).any()
    for row in trials.itertuples():
        mine = folds[folds["number"] == row.number]
        assert mine["fold"].unique().tolist() == list(range(row.folds))
        for fold in range(row.folds):
            rows = mine[mine["fold"] == fold]
            assert rows["epoch"].tolist() == [1, 2, 3, 4]
            assert rows["phase"].tolist() == ["warmup", "warmup", "main", "main"]
    for column in ("val_map", "val_micro_f1", "loss", "pseudo_precision"):
        means = folds.groupby(["number", "epoch"])[column].mean()
        stored = history.set_index(["number", "epoch"])[column]
        pd.testing.assert_series_equal(stored.sort_index(), means)
    labels = frame(folder, "labels")
    assert len(labels) == len(history) * 10
    assert pq.read_schema(folder / "labels.parquet").metadata[b"schema_version"] == b"1"


def test_a_trial_has_the_mean_of_its_folds_and_its_standard_error(study: tuple) -> None:
    folder, _ = study
    trials, folds = frame(folder, "trials"), frame(folder, "folds")
    assert trials["number"].tolist() == list(range(TRIALS))
    assert trials["started_at"].dt.tz is not None
    assert set(trials["state"]) <= {"COMPLETE", "PRUNED"}  # pruned between two folds
    assert trials["state"][0] == "COMPLETE"
    for row in trials.itertuples():
        assert (row.folds == FOLDS) == (row.state == "COMPLETE")
        assert row.best_epoch == (2 if row.kept.startswith("warmup") else 4)
        kept = folds[(folds["number"] == row.number) & (folds["epoch"] == row.best_epoch)]
        assert row.val_map == pytest.approx(kept["val_map"].mean())
        if row.folds > 1:
            assert row.standard_error == pytest.approx(kept["val_map"].sem())
        ends = folds[folds["number"] == row.number].groupby("epoch")["val_map"].mean()
        assert row.kept.startswith("warmup" if ends[2] > ends[4] else "last")


def test_trial_0_is_the_published_configuration(study: tuple) -> None:
    folder, _ = study
    space = yaml.safe_load((ROOT / "search_spaces" / "digits.yaml").read_text())
    first = frame(folder, "trials").iloc[0]
    for name, value in space["published"].items():
        assert first[f"param_{name}"] == pytest.approx(float(value) if value != "8e-3" else 8e-3)


def test_the_final_answer_is_measured_beside_the_published_settings(study: tuple) -> None:
    """The same labelled samples and paired seeds, of which the first one is that of the search."""
    folder, _ = study
    record, confirm = json.loads((folder / "study.json").read_text()), frame(folder, "confirm")
    assert confirm["error"].isna().all()
    final, published = (confirm[confirm["answer"] == name] for name in ("final", "published"))
    assert len(final) + len(published) + len(BASELINES) == len(confirm)
    assert final["seed"].tolist() == published["seed"].tolist() == SEEDS
    assert set(final["rank"]) == {1} and set(confirm["rank"][confirm["rank"] != 1]) == {2, 3, 4, 5}
    assert set(published["rank"]) == {2}
    assert set(final["number"]) == {record["chosen"]} and set(published["number"]) == {0}
    for name in ("n_labeled", "n_test"):
        assert set(confirm[name]) == {60}
    for name in ("test_map", "test_calibration_error"):
        assert confirm[name].between(0, 1).all()
    assert not any(name.startswith("test_") for name in frame(folder, "trials"))


def test_each_baseline_is_measured_once(study: tuple) -> None:
    folder, _ = study
    confirm = frame(folder, "confirm")
    rows = confirm[confirm["number"] < 0].sort_values("rank")
    assert rows["answer"].tolist() == BASELINES
    assert rows["number"].tolist() == [-1, -2, -3]
    assert set(rows["seed"]) == {SEEDS[0]}


def test_the_record_says_what_the_final_answer_is_and_what_it_gained(study: tuple) -> None:
    folder, _ = study
    record, confirm = json.loads((folder / "study.json").read_text()), frame(folder, "confirm")
    final = record["final"]
    assert final["kind"] == "best"
    assert final["trial"] == f"t{record['chosen']:05d}"
    assert sum(final["members"].values()) == pytest.approx(1)
    assert final["trial"] in final["members"]
    assert 0 < final["val_map_out_of_fold"] < 1
    by_seed = confirm.pivot_table(index="seed", columns="answer", values="test_map")
    difference = (by_seed["final"] - by_seed["published"]).mean()
    assert record["gain"]["published"]["difference"] == pytest.approx(difference)
    assert record["gain"]["published"]["seeds"] == len(SEEDS)
    best = confirm[confirm["number"] < 0].sort_values("test_map").iloc[-1]
    assert record["gain"]["baseline"]["over"] == best["answer"]
    difference = by_seed["final"].mean() - best["test_map"]
    assert record["gain"]["baseline"]["difference"] == pytest.approx(difference)


def test_the_model_of_the_study_is_the_final_answer(study: tuple) -> None:
    """It scores the test part as the confirmation did with the seed of the search."""
    folder, _ = study
    record, confirm = json.loads((folder / "study.json").read_text()), frame(folder, "confirm")
    model = load_model(folder)
    row = confirm[(confirm["answer"] == "final") & (confirm["seed"] == SEEDS[0])].iloc[0]
    assert model.networks == row["networks"]
    trained = sum(name.startswith("t") for name in record["final"]["members"])
    assert len(model.member_folders) == (FOLDS + FULL_MODELS) * trained + (
        len(record["final"]["members"]) - trained
    )
    digits = DATASETS["digits"]
    test = digits.load(digits.Options(scenes=150, test_scenes=60), None, "test")
    scores = torch.from_numpy(model.logits(np.asarray(test.inputs)))
    value = mean_average_precision(scores, torch.from_numpy(test.labels))
    assert value == pytest.approx(row["test_map"], abs=1e-6)


def test_optuna_opens_the_study(study: tuple) -> None:
    folder, _ = study
    loaded = optuna.load_study(study_name="one", storage=f"sqlite:///{folder / 'study.db'}")
    trials = frame(folder, "trials")
    assert [trial.state.name for trial in loaded.trials] == trials["state"].tolist()
    for trial, row in zip(loaded.trials, trials.itertuples(), strict=True):
        assert trial.value == (row.val_map if row.state == "COMPLETE" else None)
    assert loaded.trials[0].intermediate_values.keys() == {1, 2, 3, 4}


def test_best_yaml_trains_the_chosen_configuration(study: tuple, tmp_path: Path) -> None:
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
    number = json.loads((folder / "study.json").read_text())["chosen"]
    chosen = frame(folder, "trials").set_index("number").loc[number]
    settings = read_yaml_mapping(folder / "best.yaml")
    for name in chosen.index[chosen.index.str.startswith("param_") & chosen.notna()]:
        assert settings[name.removeprefix("param_")] == chosen[name]
    (trained,) = frame(tmp_path / "digits" / "again", "trials").to_dict("records")
    assert trained["state"] == "COMPLETE"
    assert trained["epochs"] == chosen["best_epoch"]


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
        *ONE_FOLD,
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
    by_number = complete.set_index("number")["val_map"]
    assert printed["best"]["val_map"] == by_number[printed["best"]["number"]]


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_resume_finishes_it(tmp_path: Path) -> None:
    results = tmp_path / "results"
    arguments = ("--name", "stopped", "--num-samples", "9", "--confirm-seeds", "0", *ONE_FOLD)
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
