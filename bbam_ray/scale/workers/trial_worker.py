"""One process of a trial: it builds, trains, saves and restores, alone or as a rank of a gang."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bbam_ray import distributed
from bbam_ray.config import RunConfig
from bbam_ray.data import Samples
from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.checkpoint import load_checkpoint, save_checkpoint
from bbam_ray.engine.confirm import Decisions, OutOfFold, test_model, train, train_and_test
from bbam_ray.engine.fitted_trainer import make_trainer
from bbam_ray.engine.folds import (
    Files,
    FoldResult,
    files_of,
    fold_result,
    without_files,
    write_files,
)
from bbam_ray.engine.process import use_cpus
from bbam_ray.engine.pruning_rule import TrialRules
from bbam_ray.engine.pseudo_label_records import PseudoLabelAudit
from bbam_ray.engine.session import further_epochs, run_epochs
from bbam_ray.engine.stop_request import never
from bbam_ray.engine.task import Task, TrainingData, load_part, prepare_training, split_of
from bbam_ray.engine.trainer import EpochRecord, Trainer
from bbam_ray.errors import TrainingStoppedError
from bbam_ray.methods import run_config
from bbam_ray.scale.cluster.scratch import Scratch
from bbam_ray.scale.workers.stop_notices import StopNotices
from bbam_ray.scale.workers.versions import check_versions


class TrialSession:
    """The session of a trial's training loop: Tune decides when epochs run and checkpoints are written.

    Args:
        folder: checkpoint to resume from, if any.
        requested: whether there is a request to stop.
    """

    def __init__(self, folder: Path | None, requested: Callable[[], bool]) -> None:
        self._folder, self._requested = folder, requested
        self.records: list[EpochRecord] = []

    def resume_folder(self) -> Path | None:
        return self._folder

    def resumed(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        self.records = records  # ``Trial`` sends them to the driver

    def report(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        self.records = records

    def stop_requested(self) -> bool:
        return self._requested()

    def stopped(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        """Nothing: the process that owns the gang saves the checkpoint."""


class TrialWorker:
    """Trains one trial after another, the folds of each in their order.

    The data are loaded once, unless settings of the data change.
    """

    _samples: Samples
    _data_key: str | None = None
    _values: dict[str, Any]  # settings of the trial
    _rules: TrialRules
    _fold_values: list[float]  # the objective of each fold that is done
    _trainer: Trainer
    _session: TrialSession
    _loop: Iterator[EpochRecord]
    _watch: StopNotices | None = None
    _done_records: list[list[EpochRecord]]  # of each fold that is done
    restored_epochs: tuple[tuple[int, EpochRecord], ...] = ()  # with their folds, of a checkpoint

    def __init__(self, name: str = "trial worker") -> None:
        self._name = name

    def __repr__(self) -> str:
        """The name of the actor in Ray's dashboard."""
        return self._name

    def check(self, driver: dict[str, str]) -> None:
        """Whether this process can train for a driver with these versions, see ``check_versions``."""
        check_versions(driver)

    def join(self, address: str, rank: int, size: int, backend: str, timeout_s: float) -> None:
        """Join a gang as a rank; all its workers call this at the same time."""
        if backend == "nccl":
            torch.cuda.set_device(0)  # Ray makes only the worker's own GPU visible
        distributed.join(address, rank, size, backend=backend, timeout_s=timeout_s)

    def leave(self) -> None:
        distributed.leave()

    def watch(self, heartbeats: Any) -> None:
        """Stop epochs when the node is about to be taken away, or the study has to stop.

        Args:
            heartbeats: of the study.
        """
        self._watch = StopNotices(heartbeats)

    def end_watch(self) -> None:
        """Do not stop any more."""
        if self._watch is not None:
            self._watch.end()
            self._watch = None

    def build(self, values: dict[str, Any], source: str, threads: int, rules: TrialRules) -> None:
        """Create the trainer of the first fold of a configuration, before its first epoch."""
        use_cpus(threads)
        self._values, self._source, self._rules = values, source, rules
        self._fold_values, self._done_records, self.restored_epochs = [], [], ()
        self._build_fold()
        self._start(None)

    def _build_fold(self) -> None:
        """Create the trainer of the first fold that is not done."""
        fold = len(self._fold_values)
        config = run_config({**self._values, "fold": fold}, self._source)
        # Other trials are compared at the epochs of their first fold.
        rule = self._rules.pruning if fold == 0 else None
        self._trainer = make_trainer(config, *self._data_of(config), rule)

    def _data_of(self, config: RunConfig) -> tuple[TrainingData, PseudoLabelAudit | None]:
        """The data of a run; samples that are loaded already are used again."""
        training = config.training
        key = repr((training.dataset, training.data_dir, config.data))
        if key != self._data_key:
            self._samples, self._data_key = load_part(config, "train"), key
        return prepare_training(config, Task(self._samples, split_of(self._samples, config)))

    def _start(self, folder: Path | None) -> None:
        self._session = TrialSession(folder, self._watch or never)
        self._loop = run_epochs(self._trainer, self._session)

    def run_epoch(self) -> dict[str, Any]:
        """Train an epoch, of the next fold if the last one is done.

        Returns:
            Its record (the same on all ranks), the result of its fold if this was its last epoch, and
            whether the trial is finished. ``step`` counts the epochs of all folds.

        Raises:
            TrainingStoppedError: there was a notice to a rank. The next call continues.
        """
        if self._trainer.finished:
            self._build_fold()
            self._start(None)
        try:
            record = next(self._loop)
        except TrainingStoppedError:
            records = self._session.records
            self._loop = further_epochs(self._trainer, self._session, records)
            if self._watch is not None:
                self._watch.saved()
            raise
        trainer, fold = self._trainer, len(self._fold_values)
        step = fold * trainer.config.training.epochs + trainer.epoch
        finished, stopped = trainer.finished, trainer.stopped_early
        result: FoldResult | None = None
        if finished and not stopped:
            self._done_records.append(self._session.records)
            result = fold_result(trainer, with_models=self._rules.with_models)
            rule = self._rules.folds
            if rule is not None:
                best = self._session.records[trainer.best_epoch - 1]
                self._fold_values.append(best.scalars[rule.metric])
                stopped = rule.stops(self._fold_values)
            else:
                self._fold_values.append(float("nan"))
            finished = stopped or len(self._fold_values) == trainer.config.training.folds
        # The record is one object: Tune keeps statistics of every number in a result.
        return {
            "epoch": trainer.epoch,
            "fold": fold,
            "step": step,
            "record": record,
            "fold_result": result,
            "finished": finished,
            "stopped_early": stopped,
        }

    def position(self) -> tuple[int, int | None]:
        """Epochs of all folds that are complete, and steps of the running one; None = between two."""
        trainer = self._trainer
        done = len(self._fold_values) * trainer.config.training.epochs + trainer.epoch
        return done, None if trainer.running is None else trainer.running.step

    def save(self, folder: Path) -> None:
        """Write this rank's part of a checkpoint of the current state.

        ``folds.pt`` has its fold, the values of the folds that are done, and the records of all epochs.
        """
        records = self._session.records
        checkpoint_folder.save_part(folder, self._trainer, records, model=False)
        if distributed.rank() == 0:
            fold, by_fold = self._trainer.config.training.fold, list(self._done_records)
            if fold == len(by_fold):
                by_fold.append(records)
            progress = {
                "fold": fold,
                "values": self._fold_values,
                "records": [[asdict(record) for record in each] for each in by_fold],
            }
            save_checkpoint(folder / checkpoint_folder.FOLDS, progress)

    def saved_files(self) -> Files:
        """This rank's part of a checkpoint as bytes: the ranks of a gang may be on several machines."""
        with Scratch() as scratch:
            folder = scratch / "checkpoint"
            self.save(folder)
            return {path.name: path.read_bytes() for path in folder.iterdir()}

    def restore(self, files: Files) -> None:
        """Resume from a checkpoint, which is read when the next epoch starts."""
        self._restored = Scratch()
        folder = self._restored.folder / "checkpoint"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        progress = load_checkpoint(folder / checkpoint_folder.FOLDS)
        self._fold_values = progress["values"]
        by_fold = [[EpochRecord(**record) for record in fold] for fold in progress["records"]]
        self._done_records = by_fold[: len(self._fold_values)]
        self.restored_epochs = tuple(
            (fold, record) for fold, records in enumerate(by_fold) for record in records
        )
        self._build_fold()
        in_progress = progress["fold"] == len(self._fold_values)
        self._start(folder if in_progress else None)

    def train_fold(self, values: dict[str, Any], threads: int) -> FoldResult | None:
        """Train one fold of a configuration to its end; returns its result with models on rank 0."""
        use_cpus(threads)
        self._values, self._source = values, "fold"
        config = run_config(values, "fold")
        self._trainer = make_trainer(config, *self._data_of(config))
        while not self._trainer.finished:
            self._trainer.run_epoch()
        return fold_result(self._trainer, with_models=True)

    def train_full(
        self, values: dict[str, Any], out_of_fold: OutOfFold | None, threads: int
    ) -> Files:
        """Train a configuration on all labelled samples; returns the files of its model on rank 0."""
        use_cpus(threads)
        with Scratch() as scratch:
            train(run_config(values, "full model"), scratch / "model", None, out_of_fold)
            return files_of(scratch / "model") if distributed.rank() == 0 else {}

    def baseline(self, values: dict[str, Any], threads: int) -> tuple[list[FoldResult], Files]:
        """Fit a baseline on every fold and on all labelled samples.

        Args:
            values: settings of the baseline, with ``folds``.
            threads: of torch.

        Returns:
            The results of the folds, without models, and the files of the model of all labelled samples.
        """
        results = []
        for fold in range(values["folds"]):
            result = self.train_fold({**values, "fold": fold}, threads)
            assert result is not None
            results.append(without_files(result))
        whole = {**values, "folds": 1, "fold": 0, "validation_fraction": 0.0}
        logits = torch.from_numpy(np.concatenate([r.weights["last"].logits for r in results]))
        labels = torch.from_numpy(np.concatenate([result.labels for result in results]))
        with Scratch() as scratch:
            decisions = Decisions.of(logits, labels)
            train(run_config(whole, "baseline"), scratch / "model", decisions)
            return results, files_of(scratch / "model")

    def confirm(
        self,
        values: dict[str, Any],
        decisions: Decisions,
        out_of_fold: OutOfFold | None,
        threads: int,
    ) -> tuple[dict[str, Any], Files]:
        """Train a configuration to its end and evaluate it on the test part.

        Returns:
            Its metrics, and the files of the trained model: the driver may be on another node.
        """
        use_cpus(threads)
        with Scratch() as scratch:
            folder = scratch / "model"
            config = run_config(values, "confirmation")
            metrics = train_and_test(config, decisions, folder, out_of_fold)
            return metrics, files_of(folder) if folder.is_dir() else {}

    def test(
        self, files: Files, values: dict[str, Any], threads: int
    ) -> tuple[dict[str, Any], Files]:
        """Evaluate a model on the test part.

        Args:
            files: of the model folder.
            values: settings of a run with the data set.
            threads: of torch.

        Returns:
            Its metrics, and its files.
        """
        use_cpus(threads)
        with Scratch() as scratch:
            write_files(files, scratch / "model")
            return test_model(scratch / "model", run_config(values, "confirmation")), files
