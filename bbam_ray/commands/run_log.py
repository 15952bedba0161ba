"""The tables and the record of a single run while it trains, whether here or on workers of Ray."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bbam_ray.commands.study_progress import StudyListener
from bbam_ray.config import RunConfig
from bbam_ray.errors import StorageError
from bbam_ray.results import study as studies
from bbam_ray.results.epoch_rows import put_epoch
from bbam_ray.results.fold_rows import LAST, WARMUP, kept_phase, kept_reason, kept_rows
from bbam_ray.results.schemas import COMPLETE, FAILED
from bbam_ray.results.store import Row, StudyStore
from bbam_ray.results.summary import duration

CHECKPOINTS = "checkpoints"
MODEL = Path(CHECKPOINTS) / "model"
_NUMBER, _TRIAL = 0, "t00000"


class RunLog:
    """Writes the rows of one run and reports them.

    Args:
        record: of the run's folder.
        config: of the run.
        label_names: K names.
        gpus: of all workers together, for ``gpu_hours``.
        listener: receives every new epoch.

    Attributes:
        error: why the run failed; None if it has not.
        could_start: False if it failed since a worker could not start; without epochs, the table then has
            no time of its start.
    """

    def __init__(
        self,
        record: studies.StudyRecord,
        config: RunConfig,
        label_names: tuple[str, ...],
        gpus: float,
        listener: StudyListener,
    ) -> None:
        self.record, self.config, self.folder = record, config, record.folder
        self.error: str | None = None
        self.could_start = True
        self._label_names, self._gpus, self._listener = label_names, gpus, listener
        self._store = StudyStore(record.folder, {})
        # A run that has failed is running again.
        self._store.trials.drop(
            {r["number"] for r in self._store.trials.rows() if r["state"] == FAILED}
        )
        self._store.flush(wait=True, whole=True)
        self._identity: Row = {"study": self.folder.name, "trial_id": _TRIAL, "number": _NUMBER}
        self._started = time.time()

    @property
    def seconds(self) -> float:
        """Since the run started."""
        return time.time() - self._started

    def epoch(self, scalars: Mapping[str, Any], labels: Mapping[str, Any], *, again: bool) -> None:
        """Store an epoch.

        Args:
            scalars, labels: of an ``EpochRecord``.
            again: the epoch was trained before; a checkpoint had its record.
        """
        row = put_epoch(self._store, self._identity, scalars, labels, self._label_names)
        self._store.flush()
        if not again:
            self._listener.epoch(row, self.config.training.epochs)

    def started(self, workers: int, epoch: int, step: int | None, defects: list[str]) -> None:
        """Report where workers start, and which checkpoints were damaged.

        Args:
            workers: their number.
            epoch: the last complete one.
            step: steps of the next epoch that the checkpoint has; None = at the end of an epoch.
            defects: of later checkpoints.
        """
        for defect in defects:
            self._listener.message(f"damaged checkpoint left out: {defect}")
        if workers > 1 or epoch or step is not None:
            after = "" if step is None else f" and {step} step{'s' * (step != 1)} of the next"
            self._listener.message(
                f"{workers} worker{'s' * (workers > 1)}, from epoch {epoch}{after}"
            )

    def waits(self, folder: str, reason: str, limit_s: float) -> None:
        """Report that workers wait since a checkpoint cannot be written.

        Args:
            folder: of the checkpoints.
            reason: of the failure.
            limit_s: seconds after which the run ends.
        """
        self._listener.warning(
            f"{folder} cannot be written ({reason}); the run waits for up to {duration(limit_s)} and "
            "tries again"
        )

    def saved_on_request(self, where: str, seconds: float, is_saved: bool = True) -> None:
        """Report a checkpoint that was taken since training has to stop.

        Args:
            where: after which step or epoch.
            seconds: from the request to the complete checkpoint.
            is_saved: False if it could not be written.
        """
        after = f"{where}, {seconds:.1f} s after the request to stop"
        if is_saved:
            self._listener.message(f"checkpoint {after}")
        else:
            self._listener.warning(
                f"stopped {after}, without a checkpoint there, which could not be written; earlier ones "
                "are stored"
            )

    def stopped(self, reason: BaseException) -> None:
        """The run ends by Ctrl-C or an unexpected error; everything up to here is kept."""
        if isinstance(reason, StorageError):
            return  # nothing more can be written
        interrupted = isinstance(reason, KeyboardInterrupt)
        if interrupted:  # do not wait until a full disk has room
            self._store.patience.hurry()
            self.record.patience.hurry()
        self._store.flush(whole=True)
        self.record.end(studies.INTERRUPTED if interrupted else studies.FAILED)
        self._listener.message(
            f"\n{'interrupted' if interrupted else 'failed'}: resume with the same command and --name "
            f"{self.folder.name} --resume"
        )

    def finish(self) -> Row:
        """Write the trial's row and end the record.

        Returns:
            The history row of the epoch whose weights are kept; without validation the last one.
        """
        history = self._store.history.rows()
        measured = [row for row in history if row["val_map"] is not None]
        phase = kept_phase({0: measured}, self.config.training.keep_rule) if measured else LAST
        best = kept_rows({0: measured}, phase)[0] if measured else (history or [{}])[-1]
        reason = kept_reason({0: measured}, phase) if measured else None
        if phase == WARMUP:
            self._listener.message(f"kept {reason}")
        seconds = self.seconds
        started = datetime.fromtimestamp(self._started, UTC)
        self._store.trials.put(
            [
                self._identity
                | {name: value for name, value in best.items() if name.startswith("val_")}
                | {
                    "state": FAILED if self.error else COMPLETE,
                    "seed": self.config.training.seed,
                    "best_epoch": best.get("epoch"),
                    "epochs": len(history),
                    "started_at": started if self.could_start or history else None,
                    "duration_s": seconds,
                    "gpu_hours": seconds / 3600 * self._gpus,
                    "error": self.error,
                    "kept": reason,
                }
            ]
        )
        self._store.finish()
        self.record.end(studies.FAILED if self.error else studies.COMPLETE)
        return best

    def confirm(self, metrics: Mapping[str, Any], best: Row) -> None:
        """Store the metrics on the test part.

        Args:
            metrics: of ``measure_test_metrics``.
            best: history row of the epoch whose model was measured.
        """
        seed = self.config.training.seed
        self._store.confirm.put(
            [self._identity | dict(metrics) | {"rank": 1, "seed": seed, "epochs": best["epoch"]}]
        )
        self._store.finish()
