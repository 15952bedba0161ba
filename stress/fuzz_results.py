"""Read folders of results, models and checkpoints as the commands do (see ``fuzz_readers``)."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np

from bbam_ray.engine.checkpoint import load_checkpoint
from bbam_ray.engine.checkpoint_folder import STATE, defect, load, save_part
from bbam_ray.engine.model import load_model
from bbam_ray.engine.model_folder import save_model
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import UsageError
from bbam_ray.methods import run_config
from bbam_ray.report.live_page import live_html, state_of
from bbam_ray.report.report_data import ReportData
from bbam_ray.report.study_comparison import comparison_sections, studies_html
from bbam_ray.report.study_report import write_report
from bbam_ray.results.loading import load_study
from bbam_ray.results.schemas import TrialState
from bbam_ray.results.storage import Storage
from bbam_ray.results.store import StudyStore
from bbam_ray.results.study import COMPLETE, StudyRecord
from bbam_ray.results.sync_state import read_state, write_state

_PARAMETERS = {
    "scale": {"type": "float", "low": 10.0, "high": 30.0, "log": True},
    "balance": {"type": "categorical", "choices": [True, False]},
}


def make_study(folder: Path) -> None:
    ended = {"state": TrialState.COMPLETE, "seed": 0, "val_map": 0.5, "best_epoch": 2, "epochs": 2}
    costs = {"duration_s": 5.0, "gpu_hours": 0.1}
    environment = {"packages": {"torch": "2"}, "python": "3", "cpu_count": 2, "gpu": None}
    content = {
        "dataset": "digits",
        "method": "bbam",
        "seed": 0,
        "settings": {"labeled_fraction": 0.05},
        "num_samples": 3,
        "space": {"metric": "val_map", "mode": "max", "parameters": _PARAMETERS, "fixed": {}},
        "environment": environment | {"git_commit": None},
    }
    record = StudyRecord.create(folder / "s", content)
    store = StudyStore(folder / "s", {"scale": "float", "balance": "bool"})
    for number in range(3):
        row = {"study": "s", "trial_id": f"t{number}", "number": number}
        searched = {"param_scale": 20.0 + number, "param_balance": number > 0}
        store.trials.put([row | ended | costs | searched])
        confirmed = {"rank": number + 1, "seed": 0, "test_map": 0.4, "gpu_hours": 0.1}
        store.confirm.put([row | confirmed])
        for epoch in (1, 2):
            times = {"seconds_refresh": 0.1, "seconds_train": 0.2, "seconds_evaluate": 0.1}
            epoch_values = {
                "epoch": epoch,
                "phase": "main",
                "val_map": 0.4 + epoch / 10,
                "loss": 1.0,
            }
            store.history.put([row | epoch_values | times])
            statistics = {"prior": 0.1, "vdfd": 0.2, "val_ap": 0.5, "angles_positive": [1.0, 2.0]}
            label = statistics | {
                "angles_negative": [5.0, 1.0],
                "mean_positive": 1.0,
                "n_positive": 3.0,
            }
            store.labels.put([row | label | {"epoch": epoch, "label": name} for name in ("a", "b")])
    store.flush()
    store.write_best({"scale": 20.0, "balance": True}, "best")
    record.end(COMPLETE)


def study(folder: Path) -> None:
    """Everything that a notebook can read from a study."""
    loaded = load_study(folder / "s")
    assert loaded.name is not None and loaded.status is not None
    for table in (loaded.trials, loaded.history, loaded.labels, loaded.confirm, loaded.split):
        assert len(table.to_dict("records")) == len(table)
    assert isinstance(loaded.best, dict)
    loaded._repr_html_()
    repr(loaded)


def report(folder: Path) -> None:
    """The report of a study, a comparison of it with itself, and the live page."""
    write_report(folder / "s")
    data = ReportData(folder / "s")
    studies_html([data, ReportData(folder / "s")], "report")
    comparison_sections("digits", [data], alone=True)
    state_of(folder / "s")
    live_html(folder / "s")


def make_storage(folder: Path) -> None:
    for name in ("remote", "local"):
        (folder / name / "d" / "s").mkdir(parents=True)
        (folder / name / "d" / "s" / "study.json").write_text("{}", encoding="utf-8")
        state = {"owner": "o", "after": "o", "files": {"study.json": [2, 3]}, "there": {}}
        write_state(folder / name / "d" / "s", state)


def storage(folder: Path) -> None:
    """A study in a remote results folder, and the state of its local copy."""
    copy = folder / "local" / "d" / "s"
    if copy.is_dir():
        state = read_state(copy)
        assert {"owner", "after", "files", "there"} <= set(state)
    with mock.patch("bbam_ray.results.storage.copies_dir", lambda: folder / "copies"):
        remote = Storage((folder / "remote").resolve().as_uri(), reads=True)
        remote.local = folder / "local"
        remote.fetch("s")


@cache
def _trainer() -> Trainer:
    """The trainer of a tiny model for feature vectors, made once."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, {"BBAM_RAY_CACHE": folder}))
        labels = np.array([[k % 2, k % 3 == 0] for k in range(40)], np.uint8)
        features = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
        np.savez(Path(folder) / "f.npz", features=features, labels=labels)
        settings = {"dataset": "features", "data_dir": f"{folder}/f.npz", "epochs": 2}
        sizes = {
            "labeled_fraction": 0.8,
            "warmup_epochs": 1,
            "hidden_dim": 4,
            "feature_dim": 3,
            "device": "cpu",
        }
        config = run_config({**settings, **sizes}, "test")
        return Trainer(config, *prepare_training(config))


def make_model(folder: Path) -> None:
    save_model(folder / "m", _trainer(), [0.0, 0.1])
    # Without a checksum: an attacker can remove or recompute it.
    config = folder / "m" / "config.json"
    content = json.loads(config.read_text())
    del content["weights_sha256"]
    config.write_text(json.dumps(content, indent=2))


def model(folder: Path) -> None:
    """Load a model and predict with it."""
    loaded = load_model(folder / "m", "cpu")
    count = int(np.prod(loaded.input_shape))
    assert count < 10**7, "the weights are for three features"
    scores = loaded.logits(np.ones((2, *loaded.input_shape), np.float32))
    assert scores.shape == (2, len(loaded.label_names)) and np.isfinite(scores).all()
    assert loaded.predict(np.ones((2, *loaded.input_shape), np.float32)).shape == scores.shape


def make_checkpoint(folder: Path) -> None:
    save_part(folder / "epoch-00001", _trainer(), [], model=False)


def checkpoint(folder: Path) -> None:
    """A damaged checkpoint counts as refused."""
    message = defect(folder / "epoch-00001")
    if message is not None:
        raise UsageError(message)
    load_checkpoint(folder / "epoch-00001" / STATE)


def resumed(folder: Path) -> None:
    """Resume from a checkpoint that may be of another run."""
    load(folder / "epoch-00001", _trainer())
