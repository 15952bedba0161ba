"""Experiment trackers: what they are given in a real study, and that they can do it no harm."""

from __future__ import annotations

import logging
import math
import os
import pickle
import re
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray
from ray import cloudpickle, tune

from bbam_ray.engine.trainer import EpochRecord
from bbam_ray.errors import UsageError
from bbam_ray.scale.cluster.connection import connected
from bbam_ray.scale.study import tracker_clients
from bbam_ray.scale.study import trackers as tracking
from bbam_ray.scale.study.trackers import (
    TRACKERS,
    check_trackers,
    finite_numbers,
    tracking_callbacks,
)

INSTALLED = [name for name, (_, package) in TRACKERS.items() if find_spec(package)]
SECRET = "of-the-whole-study"  # in every trial's config, and never in a tracker's files

# MLflow asks SQLAlchemy 2.1 for a loader that the latter has deprecated.
quiet = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(name not in INSTALLED, reason=f"{name} is not installed")


class Short(tune.Trainable):
    """Three epochs; trial 1 fails in its second, trial 2 loses its process once after its first."""

    def setup(self, config: dict[str, Any]) -> None:
        self.done = 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        number, lost = self.config["number"], Path(self.config["run"]["lost"])
        self.done += 1
        if number == 1 and self.done == 2:
            return {"error": "ValueError: bad", "traceback": "", "done": True}
        if number == 2 and self.done == 2 and not lost.exists():
            lost.touch()
            os._exit(1)
        scalars = {"epoch": self.done, "phase": "main", "loss": 1.0 / self.done, "val_map": None}
        scalars |= {"val_nan": math.nan, "lr": 0.1 * (number + 1)}
        return {
            "epoch": self.done,
            "fold": 0,
            "record": EpochRecord(scalars, {}),
            "labels": {"vdfd": [1.0]},
            "finished": self.done == 3,
            "done": self.done == 3,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "done").write_text(str(self.done))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self.done = int((Path(checkpoint_dir) / "done").read_text())


class Observer(threading.Thread):
    """Records while a study runs how many processors are taken and which processes trackers have."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.seen, self.over = 0.0, set[psutil.Process](), threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.1):
            taken = ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0)
            self.most = max(self.most, taken)
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if re.search(r"^ray::(Actor|_QueueActor)|wandb-core", title(process)):
                        self.seen.add(process)

    def left(self) -> list[str]:
        """Those that have not ended a while after the study."""
        _, alive = psutil.wait_procs(self.seen, timeout=15)
        return [title(process) for process in alive]


def title(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


def run_study(folder: Path, names: list[str]) -> SimpleNamespace:
    """Three trials, two at once, on two processors."""
    # Workers need not find the tests.
    cloudpickle.register_pickle_by_value(sys.modules[Short.__module__])
    observer, trackers = Observer(), tracking_callbacks(names, folder, "mine")
    run = {"lost": str(folder / "lost"), "settings": {"secret": SECRET}}
    tuner = tune.Tuner(
        tune.with_resources(Short, {"cpu": 1}),
        param_space={
            "number": tune.grid_search([0, 1, 2]),
            "parameters": {"margin": 0.3, "negative_ratio": math.inf, "clamp": False},
            "run": run,
        },
        tune_config=tune.TuneConfig(max_concurrent_trials=2, reuse_actors=True),
        run_config=tune.RunConfig(
            name="mine",
            storage_path=str(folder / "scratch"),
            callbacks=trackers,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=1),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=1),
        ),
    )
    observer.start()
    grid = tuner.fit()
    if "wandb" in names:  # else its process ends with ours
        import wandb

        wandb.teardown()
    left = observer.left()
    observer.over.set()
    observer.join()
    return SimpleNamespace(
        grid=grid, observer=observer, left=left, lost=folder / "lost", folder=folder / "trackers"
    )


@pytest.fixture(scope="module")
def clean() -> Iterator[pytest.MonkeyPatch]:
    """An environment in which the user has asked for nothing; what trackers set is taken back."""
    with pytest.MonkeyPatch.context() as patch:
        before = dict(os.environ)
        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
            patch.delenv(name)
        yield patch
        for name in set(os.environ) - set(before):
            del os.environ[name]


@pytest.fixture(scope="module")
def study(
    tmp_path_factory: pytest.TempPathFactory, clean: pytest.MonkeyPatch
) -> Iterator[SimpleNamespace]:
    folder, place = tmp_path_factory.mktemp("study"), tmp_path_factory.mktemp("elsewhere")
    clean.chdir(place)
    with connected("local", dashboard=False):
        done = run_study(folder, INSTALLED)
        done.place, done.warnings = place, []
        if "wandb" in INSTALLED:  # W&B accepts no such name
            handler = logging.Handler()
            handler.emit = lambda record: done.warnings.append(record.getMessage())
            logging.getLogger(tracking.__name__).addHandler(handler)
            drive(*tracking_callbacks(["wandb"], tmp_path_factory.mktemp("bad"), "no/name"))
            logging.getLogger(tracking.__name__).removeHandler(handler)
    yield done


def events(folder: Path) -> Iterator[Any]:
    """What tensorboardX has written, record by record."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob("events.out.tfevents.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            yield Event.FromString(content[at + 12 : at + 12 + length])
            at += 16 + length


@pytest.mark.slow
@pytest.mark.ray
@quiet
class TestStudy:
    def test_trials_do_what_they_do_without_trackers(self, study: SimpleNamespace) -> None:
        assert len(study.grid) == 3 and study.grid.num_errors == 0 and study.lost.exists()
        assert sorted(result.metrics["training_iteration"] for result in study.grid) == [2, 3, 3]

    def test_trackers_hold_no_processor_and_leave_no_process(self, study: SimpleNamespace) -> None:
        assert 1 <= study.observer.most <= 2
        assert bool(study.observer.seen) == ("wandb" in INSTALLED)
        assert study.left == []

    def test_nothing_is_written_elsewhere(self, study: SimpleNamespace) -> None:
        assert list(study.place.iterdir()) == []
        assert sorted(path.name for path in study.folder.iterdir()) == sorted(INSTALLED)

    def test_nothing_but_parameters_and_numbers_reaches_a_tracker(
        self, study: SimpleNamespace
    ) -> None:
        files = [path for path in study.folder.rglob("*") if path.is_file()]
        assert len(files) >= len(INSTALLED)
        assert not [path for path in files if SECRET.encode() in path.read_bytes()]

    @pytest.mark.parametrize(("trial", "epochs"), [("t00000", 3), ("t00001", 1), ("t00002", 3)])
    def test_tensorboard_has_each_epoch_once(
        self, study: SimpleNamespace, trial: str, epochs: int
    ) -> None:
        found = [
            (value.tag, event.step, value.simple_value)
            for event in events(study.folder / "tensorboard" / trial)
            for value in event.summary.value
            if value.WhichOneof("value") == "simple_value"
        ]
        losses = [(step, value) for tag, step, value in found if tag == "loss"]
        assert [step for step, _ in losses] == list(range(1, epochs + 1))
        assert [value for _, value in losses] == pytest.approx(
            [1 / epoch for epoch in range(1, epochs + 1)]
        )
        tags = {tag for tag, _, _ in found}
        assert tags == {"epoch", "loss", "lr"}

    @needs("mlflow")
    def test_mlflow_has_parameters_metrics_by_epoch_and_how_each_ended(
        self, study: SimpleNamespace
    ) -> None:
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{study.folder / 'mlflow' / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("mine")
        runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
        assert {name: run.info.status for name, run in runs.items()} == {
            "t00000": "FINISHED",
            "t00001": "FAILED",
            "t00002": "FINISHED",
        }
        for name, epochs in (("t00000", 3), ("t00001", 1), ("t00002", 3)):
            data = runs[name].data
            assert data.params == {"margin": "0.3", "negative_ratio": "inf", "clamp": "False"}
            assert set(data.metrics) == {"epoch", "loss", "lr"}
            history = client.get_metric_history(runs[name].info.run_id, "loss")
            assert [(m.step, m.value) for m in history] == [
                (epoch, pytest.approx(1 / epoch)) for epoch in range(1, epochs + 1)
            ]

    @needs("wandb")
    @pytest.mark.parametrize("trial", ["t00000", "t00001", "t00002"])
    def test_wandb_has_one_offline_run_for_each_trial(
        self, study: SimpleNamespace, trial: str
    ) -> None:
        runs = [
            path
            for path in (study.folder / "wandb" / trial / "wandb").iterdir()
            if path.is_dir() and not path.is_symlink()
        ]
        assert len(runs) == 1 and runs[0].name.startswith("offline-run-")
        content = (runs[0] / f"run-{trial}.wandb").read_bytes()
        assert all(word in content for word in (b"negative_ratio", b"loss", b"mine"))

    @needs("wandb")
    def test_a_project_that_wandb_refuses_switches_it_off(self, study: SimpleNamespace) -> None:
        (warning,) = study.warnings
        assert "tracker wandb is off, the study continues" in warning and "project" in warning

    def test_a_later_study_does_not_take_our_settings_for_the_users(
        self, study: SimpleNamespace
    ) -> None:
        assert "MLFLOW_TRACKING_URI" not in os.environ


# ---------------------------------------------------------------------- without Ray


def trial(number: int) -> SimpleNamespace:
    """As much of a trial as callbacks look at."""
    parameters = {"margin": 0.1, "negative_ratio": math.inf, "ema_decay": None}
    config = {"number": number, "parameters": parameters, "run": {"secret": SECRET}}
    return SimpleNamespace(config=config)


def result(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "fold": 0, "record": EpochRecord({"epoch": epoch, "loss": 0.5}, {})}


def drive(tracker: Any, epochs: int = 2) -> None:
    """The calls of Tune for one trial that ends well."""
    tracker.setup(stop=None, num_samples=1, total_num_samples=1)
    tracker.on_trial_start(iteration=0, trials=[], trial=trial(7))
    for epoch in range(1, epochs + 1):
        tracker.on_trial_result(iteration=epoch, trials=[], trial=trial(7), result=result(epoch))
    tracker.on_trial_complete(iteration=epochs, trials=[], trial=trial(7))
    tracker.on_experiment_end(trials=[])


def statuses(database: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(database)
    rows = connection.execute("select name, status from runs order by name").fetchall()
    connection.close()
    return rows


def test_only_finite_numbers_are_results() -> None:
    scalars = {"a": 1, "b": 2.5, "c": None, "d": math.nan, "e": "main", "f": math.inf, "g": True}
    assert finite_numbers(scalars) == {"a": 1.0, "b": 2.5}


def test_a_trial_that_starts_again_is_the_same_run(tmp_path: Path) -> None:
    (tracker,) = tracking_callbacks(["tensorboard"], tmp_path, "mine")
    tracker.setup()
    for epoch in (1, 2):
        tracker.on_trial_start(iteration=0, trials=[], trial=trial(7))
        for seen in range(1, epoch + 1):  # those before the restart come from its checkpoint
            tracker.on_trial_result(iteration=1, trials=[], trial=trial(7), result=result(seen))
    tracker.on_experiment_end(trials=[])
    (folder,) = (tmp_path / "trackers" / "tensorboard").iterdir()
    steps = [e.step for e in events(folder) if any(v.tag == "loss" for v in e.summary.value)]
    assert steps == [1, 2] and len(list(folder.iterdir())) == 1


def test_a_tracker_can_be_pickled(tmp_path: Path) -> None:
    (tracker,) = tracking_callbacks(["tensorboard"], tmp_path, "mine")
    assert pickle.loads(pickle.dumps(tracker)).__dict__ == {}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["tensorbord"], r"'tensorbord' is not known; did you mean 'tensorboard'\?"),
        (["comet"], "'comet' is not known; known: mlflow, tensorboard, wandb"),
        (["tensorboard", "tensorboard"], "'tensorboard' is given twice"),
    ],
)
def test_wrong_trackers_are_named(names: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_trackers(names)


def test_a_missing_package_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", (TRACKERS["wandb"][0], "no_such_package"))
    with pytest.raises(UsageError, match=r"no_such_package.*pip install 'bbam-ray\[tracking\]'"):
        check_trackers(["tensorboard", "wandb"])
    check_trackers(["tensorboard"])


def only_warning(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = [r for r in caplog.records if r.name == tracking.__name__]
    assert record.levelno == logging.WARNING
    return record.getMessage()


def test_a_tracker_that_cannot_write_is_switched_off_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tracker,) = tracking_callbacks(["tensorboard"], tmp_path, "mine")
    (tmp_path / "trackers" / "tensorboard" / "t00007").write_text("in the way")
    drive(tracker, epochs=5)
    assert "tracker tensorboard is off, the study continues (FileExists" in only_warning(caplog)


def test_parameters_that_tensorboard_does_not_know_cause_no_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tracker,) = tracking_callbacks(["tensorboard"], tmp_path, "mine")
    drive(tracker, epochs=2)
    assert not caplog.records
    assert len(list(events(tmp_path / "trackers" / "tensorboard" / "t00007"))) > 2


def test_a_folder_that_cannot_be_made_switches_off_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "trackers").write_text("in the way")
    (tracker,) = tracking_callbacks(["tensorboard"], tmp_path, "mine")
    drive(tracker)
    assert "tracker tensorboard is off" in only_warning(caplog)


def test_a_tracker_that_hangs_holds_nothing_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_clients, "PATIENCE_S", -4.5)
    monkeypatch.setattr(tracker_clients.TensorBoard, "start", lambda *_: time.sleep(3))
    (tracker,) = tracking_callbacks(["tensorboard"], tmp_path, "mine")
    started = time.monotonic()
    drive(tracker)
    assert time.monotonic() - started < 2
    assert "TimeoutError: it did not finish in time" in only_warning(caplog)
    tracker._thread.join(10)


@needs("mlflow")
@quiet
def test_a_users_mlflow_address_wins_and_an_interrupted_trial_is_no_finished_run(
    tmp_path: Path, clean: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'theirs.db'}")
    (tracker,) = tracking_callbacks(["mlflow"], tmp_path, "mine")
    tracker.setup()
    tracker.on_trial_start(iteration=0, trials=[], trial=trial(7))
    tracker.on_trial_result(iteration=1, trials=[], trial=trial(7), result=result(1))
    tracker.on_experiment_end(trials=[])
    tracker.on_experiment_end(trials=[])  # Tune's, then that of whoever runs the study
    assert statuses(tmp_path / "theirs.db") == [("t00007", "FAILED")]
    assert list((tmp_path / "trackers" / "mlflow").iterdir()) == []


@pytest.fixture()
def wandb_settings(
    clean: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    def settings(**theirs: str) -> str | None:
        for name in ("WANDB_MODE", "WANDB_API_KEY"):
            monkeypatch.delenv(name, raising=False)
        for name, value in theirs.items():
            monkeypatch.setenv(name, value)
        tracker_clients.WandB(Path("/nowhere"), "mine")
        return os.environ.get("WANDB_MODE")

    return settings


@needs("wandb")
def test_wandb_is_offline_unless_the_user_says_otherwise(
    wandb_settings: Callable[..., Any],
) -> None:
    assert wandb_settings() == "offline"
    assert wandb_settings(WANDB_MODE="disabled") == "disabled"
    assert wandb_settings(WANDB_API_KEY="theirs") is None
