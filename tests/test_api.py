"""Use from Python: options and settings as on the command line, a study as the result."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from bbam_ray import Study, load_model, train, tune_study
from bbam_ray.commands import study_setup
from bbam_ray.commands.study_setup import PreparedStudy, TuneOptions
from bbam_ray.core.ensembles import mean_average_precision
from bbam_ray.data import DATASETS
from bbam_ray.errors import UsageError

SETTINGS: dict[str, Any] = {
    "scenes": 100,
    "test_scenes": 40,
    "hidden_dim": 16,
    "feature_dim": 8,
    "warmup_passes": 1,
}
SHORT = {"labeled_fraction": 0.5, "epochs": 2, "warmup_epochs": 1, "quiet": True}


def test_a_run_is_trained_and_returned(tmp_path: Path) -> None:
    run = train("digits", settings=SETTINGS, results=tmp_path, name="run", test=True, **SHORT)
    assert isinstance(run, Study)
    assert run.status == "COMPLETE"
    assert run.history["epoch"].tolist() == [1, 2]
    assert run.confirm["test_map"].between(0, 1).all()
    assert run.folder == tmp_path / "digits" / "run"
    kept = tmp_path / "best.yaml"
    mine = {name: run.best[name] for name in (*SETTINGS, "labeled_fraction", "warmup_epochs")}
    kept.write_text(yaml.safe_dump({**mine, "method": "supervised", "epochs": 1}))
    other = train(config=kept, results=tmp_path, quiet=True)
    assert other.record["method"] == "supervised"
    again = train(settings={**run.best, "epochs": 1}, results=str(tmp_path), quiet=True)
    assert again.history["epoch"].tolist() == [1]


@pytest.mark.parametrize("keep", ["phase", "last", "best"])
def test_the_metrics_of_a_run_are_those_of_the_weights_that_are_kept(
    keep: str, tmp_path: Path
) -> None:
    """The main phase lowers val_map here, so the three rules keep different epochs or the last one."""
    settings = {**SETTINGS, "keep": keep, "unlabeled_weight": 30, "learning_rate": 0.02}
    options = {**SHORT, "epochs": 6, "warmup_epochs": 3}
    run = train("digits", settings=settings, results=tmp_path, name="run", **options)
    (trial,) = run.trials.to_dict("records")
    values = run.history.set_index("epoch")["val_map"]
    assert values[6] < values[3]
    epoch = {"phase": 3, "last": 6, "best": values.idxmax()}[keep]
    assert (trial["best_epoch"], trial["kept"].split(":")[0]) == (
        epoch,
        {"phase": "warmup"}.get(keep, keep),
    )
    digits = DATASETS["digits"]
    part = digits.load(digits.Options(scenes=100, test_scenes=40), None, "train")
    rows = run.split["index"][run.split["part"] == "validation"].to_numpy()
    scores = torch.from_numpy(load_model(run.folder).logits(np.asarray(part.inputs[rows])))
    value = mean_average_precision(scores, torch.from_numpy(part.labels[rows]))
    assert trial["val_map"] == values[epoch] == pytest.approx(value, abs=1e-6)


class PreparedError(Exception):
    """Ends a call when its options are complete."""


def options_of(monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> TuneOptions:
    """The options that ``tune_study`` makes of its arguments."""

    def stop(options: TuneOptions, listener: object) -> PreparedStudy:
        raise PreparedError(options)

    with monkeypatch.context() as patch, pytest.raises(PreparedError) as ended:
        patch.setattr(study_setup, "prepare", stop)
        tune_study(**arguments)
    return ended.value.args[0]


def test_arguments_become_typed_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"a": 1, "b": 0.5, "c": True, "d": math.inf, "f": "x: y", "g": None}
    options = options_of(
        monkeypatch,
        settings=settings | {"epochs": 3, "seed": 4, "weights": Path("w")},
        epochs=5,
        sampler="gp",
        workers="2-8",
        space="s.yaml",
        time_budget="30m",
        worker_timeout=90,
        start_timeout=7.5,
        price="2",
        tracker="mlflow",
        data_dir="data",
    )
    assert options.settings == settings | {
        "epochs": 5,
        "seed": 4,
        "weights": "w",
        "data_dir": str(Path("data").absolute()),
        "dataset": "digits",
        "method": "bbam",
    }
    assert options.space == Path("s.yaml") and options.results == Path("results")
    assert (options.shape.min_workers, options.shape.max_workers) == (2, 8)
    assert (options.shape.timeout_s, options.start_timeout) == (90.0, 7.5)
    rules = options.rules
    assert (rules.sampler, rules.time_budget, rules.price) == ("gp", 1800.0, 2.0)
    assert rules.trackers == ("mlflow",)
    assert options_of(monkeypatch, workers=2, price="p.yaml").rules.price == Path("p.yaml")


def test_every_flag_of_the_command_line_is_an_argument() -> None:
    from bbam_ray.cli.train import train as train_command
    from bbam_ray.cli.tune import tune as tune_command

    for command, function in ((tune_command, tune_study), (train_command, train)):
        flags = inspect.signature(command).parameters.keys() - {"set_", "json_", "dry_run"}
        assert flags <= inspect.signature(function).parameters.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_sample": 3}, "unknown option 'num_sample'; did you mean 'num_samples'?"),
        ({"dry_run": True}, "unknown option 'dry_run'"),
        ({"trial_runner": "gan"}, "trial_runner = 'gan' is invalid; did you mean 'gang'?"),
        ({"cpus_per_worker": 0}, "cpus_per_worker = 0 is invalid; use at least 1"),
        ({"max_failures": -2}, "max_failures = -2 is invalid; use at least -1"),
        ({"scheduler": "ash"}, "scheduler = 'ash' is invalid; did you mean 'asha'?"),
        ({"settings": {"scal": 3}}, "unknown setting 'scal'"),
        ({"num_samples": 0}, "num_samples = 0 is invalid; use at least 1"),
        ({"reduction_factor": 1, "scheduler": "asha"}, "reduction_factor = 1 is invalid"),
        ({"time_budget": -5}, "--time-budget -5"),
        ({"tracker": "mlfow"}, "tracker 'mlfow'"),
        ({"method": "bban"}, "unknown method 'bban'"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as error:
        tune_study(results=tmp_path, **options)
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())
