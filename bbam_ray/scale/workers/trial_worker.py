"""One process of a trial: it builds, trains, saves and restores, alone or as a rank of a gang."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bbam_ray import distributed
from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.confirm import train_and_test
from bbam_ray.engine.process import use_cpus
from bbam_ray.engine.pruning_rule import PruningRule
from bbam_ray.engine.pseudo_label_records import PseudoLabelAudit
from bbam_ray.engine.session import run_epochs
from bbam_ray.engine.task import TrainingData, prepare_training
from bbam_ray.engine.trainer import EpochRecord, Trainer
from bbam_ray.methods import run_config
from bbam_ray.scale.cluster.scratch import Scratch

Files = dict[str, bytes]


class TrialSession:
    """The session of a trial's training loop: Tune decides when epochs run and checkpoints are written.

    Args:
        folder: checkpoint to resume from, if any.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.records: list[EpochRecord] = []

    def resume_folder(self) -> Path | None:
        return self._folder

    def resumed(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        """Nothing: the recorder already has these epochs."""

    def report(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        self.records = records


class TrialWorker:
    """Trains one trial after another; loads the data once, unless settings of the data change."""

    _data: tuple[TrainingData, PseudoLabelAudit | None]
    _data_key: str | None = None
    _trainer: Trainer
    _session: TrialSession
    _loop: Iterator[EpochRecord]

    def __init__(self, name: str = "trial worker") -> None:
        self._name = name

    def __repr__(self) -> str:
        """The name of the actor in Ray's dashboard."""
        return self._name

    def join(self, address: str, rank: int, size: int, backend: str, timeout_s: float) -> None:
        """Join a gang as a rank; all its workers call this at the same time."""
        if backend == "nccl":
            import torch

            torch.cuda.set_device(0)  # Ray makes only the worker's own GPU visible
        distributed.join(address, rank, size, backend=backend, timeout_s=timeout_s)

    def leave(self) -> None:
        distributed.leave()

    def build(
        self,
        values: dict[str, Any],
        source: str,
        threads: int,
        pruning_rule: PruningRule | None = None,
    ) -> None:
        """Create the trainer of a configuration, before its first epoch."""
        use_cpus(threads)
        settings = run_config(values, source)
        training = settings.training
        key = repr((training.seed, training.labeled_fraction, training.validation_fraction))
        key += repr((training.split, training.dataset, training.data_dir, settings.data))
        if key != self._data_key:
            self._data, self._data_key = prepare_training(settings), key
        self._trainer = Trainer(settings, *self._data, pruning_rule)
        self._start(None)

    def _start(self, folder: Path | None) -> None:
        self._session = TrialSession(folder)
        self._loop = run_epochs(self._trainer, self._session)

    def run_epoch(self) -> dict[str, Any]:
        """Train an epoch; returns its record (the same on all ranks) and whether the trial is finished."""
        record = next(self._loop)
        # The record is one object: Tune keeps statistics of every number in a result.
        return {"epoch": self._trainer.epoch, "record": record, **self._trainer.progress}

    def save(self, folder: Path) -> None:
        """Write this rank's part of a checkpoint of the last epoch."""
        records = self._session.records
        checkpoint_folder.save_part(folder, self._trainer, records, model=False)

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
        self._start(folder)

    def confirm(
        self,
        values: dict[str, Any],
        thresholds: list[float],
        threads: int,
    ) -> tuple[dict[str, Any], Files]:
        """Train a configuration to its end and evaluate it on the test part.

        Returns:
            Its metrics, and the files of the trained model: the driver may be on another node.
        """
        use_cpus(threads)
        with Scratch() as scratch:
            folder = scratch / "model"
            metrics = train_and_test(run_config(values, "confirmation"), thresholds, folder)
            paths = folder.iterdir() if folder.is_dir() else ()
            return metrics, {path.name: path.read_bytes() for path in paths}
