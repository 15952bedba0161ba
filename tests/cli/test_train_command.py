"""``bbam-ray train``: files, metrics, resuming, and the test part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from bbam_ray.cli.main import app
from bbam_ray.engine import trainer
from bbam_ray.results.store import read_table

SETTINGS = {
    "scenes": 120,
    "test_scenes": 40,
    "labeled_fraction": 0.4,
    "warmup_passes": 1,
    "hidden_dim": 16,
    "feature_dim": 8,
}


def train(folder: Path, name: str, *arguments: str, epochs: int = 4) -> tuple[int, str]:
    settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    common = ["train", "--results", str(folder), "--name", name, "--epochs", str(epochs)]
    ended = CliRunner().invoke(app, [*common, "--warmup-epochs", "2", *settings, *arguments])
    return ended.exit_code, ended.output


def rows(folder: Path, name: str, table: str) -> list[dict]:
    return read_table(folder / "digits" / name / f"{table}.parquet").to_pylist()


def test_a_run_leaves_model_history_and_metrics(tmp_path: Path) -> None:
    code, output = train(tmp_path, "a", "--test")
    assert code == 0, output
    assert "kept epoch" in output
    history = rows(tmp_path, "a", "history")
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    (trial,) = rows(tmp_path, "a", "trials")
    assert trial["state"] == "COMPLETE"
    (kept_row,) = (row for row in history if row["epoch"] == trial["best_epoch"])
    assert trial["val_map"] == kept_row["val_map"]
    (test,) = rows(tmp_path, "a", "confirm")
    assert 0 < test["test_map"] <= 1
    assert test["n_test"] == 40
    model = tmp_path / "digits" / "a" / "checkpoints" / "model"
    assert "network.head.weight" in load_file(model / "model.safetensors")
    assert json.loads((model / "labels.json").read_text()) == [str(k) for k in range(10)]
    assert len(json.loads((model / "thresholds.json").read_text())) == 10


def test_a_run_that_never_uses_its_unlabelled_samples_says_so(tmp_path: Path) -> None:
    note = "all 2 epochs are warm-up, so unlabelled samples are not used"
    assert note in train(tmp_path, "a", epochs=2)[1]
    assert note not in train(tmp_path, "b", "--method", "supervised", epochs=2)[1]
    assert note not in train(tmp_path, "c", epochs=3)[1]


def test_the_published_protocol_of_digits_trains_and_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = "published/digits.yaml"
    code, output = train(tmp_path, "a", "--config", file, "--set", "labeled_fraction=0.2")
    assert code == 0, output
    text = " ".join(output.split())
    assert "published/digits.yaml is a search space: this run has its published settings" in text
    assert "into 32 labelled and 32 unlabelled samples at labeled_fraction = 0.2" in text
    assert "amp_dtype = float16 is for GPUs; on the CPU this run computes in float32" in text
    record = json.loads((tmp_path / "digits" / "a" / "study.json").read_text())
    settings = record["settings"]
    assert (settings["cycle_epochs"], settings["labeled_negatives"]) == (40, "first")
    assert (settings["labeled_batch"], settings["scenes"]) == (32, 120)
    history = rows(tmp_path, "a", "history")
    assert [row["phase"] for row in history] == ["warmup"] * 2 + ["main"] * 2
    assert history[-1]["lr"] > history[-2]["lr"]  # the cycle of 40 epochs has just begun
    code, output = train(
        tmp_path, "a", "--config", file, "--set", "labeled_fraction=0.2", "--resume"
    )
    assert code == 0, output


def test_a_setting_that_a_method_does_not_use_is_named(tmp_path: Path) -> None:
    arguments = (
        "--method",
        "supervised",
        "--set",
        "cycle_epochs=9",
        "--set",
        "ema_restart=trained",
    )
    note = "method 'supervised' does not use cycle_epochs, ema_restart; leave them out"
    assert note in " ".join(train(tmp_path, "a", *arguments, epochs=2)[1].split())
    assert "does not use" not in train(tmp_path, "b", "--set", "cycle_epochs=9")[1]


def test_the_test_part_is_not_read_unless_asked_for(tmp_path: Path) -> None:
    assert train(tmp_path, "a")[0] == 0
    assert not rows(tmp_path, "a", "confirm")


def test_an_interrupted_run_resumes_and_equals_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(tmp_path, "whole")[0] == 0
    run_epoch = trainer.Trainer.run_epoch

    def interrupted(self: trainer.Trainer, *requested: Any) -> trainer.EpochRecord:
        if self.epoch == 3:
            raise KeyboardInterrupt
        return run_epoch(self)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "run_epoch", interrupted)
        assert train(tmp_path, "parts")[0] == 130
    assert len(rows(tmp_path, "parts", "history")) == 3
    code, output = train(tmp_path, "parts", "--resume")
    assert code == 0, output
    assert "from epoch 3" in output
    weights = [
        load_file(tmp_path / "digits" / name / "checkpoints" / "model" / "model.safetensors")
        for name in ("whole", "parts")
    ]
    # Statistics that are not known yet are NaN, hence not torch.equal.
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0, equal_nan=True)
    losses = [[row["loss"] for row in rows(tmp_path, n, "history")] for n in ("whole", "parts")]
    assert losses[0] == losses[1]


def test_resume_with_other_settings_is_refused(tmp_path: Path) -> None:
    assert train(tmp_path, "a", epochs=3)[0] == 0
    code, output = train(tmp_path, "a", "--resume", epochs=5)
    assert code == 2
    assert "settings" in output


def test_json_prints_one_object(tmp_path: Path) -> None:
    code, output = train(tmp_path, "a", "--json", "--test")
    assert code == 0
    printed = json.loads(output)
    assert printed["val_map"] > 0 if "val_map" in printed else printed["test_map"] > 0
