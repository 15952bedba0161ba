"""What the driver knows of a trial while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from bbam_ray.engine.folds import FoldResult
from bbam_ray.engine.trainer import EpochRecord
from bbam_ray.errors import StartError
from bbam_ray.results import schemas
from bbam_ray.results.fold_rows import mean_labels, mean_scalars
from bbam_ray.results.store import Row


@dataclass
class RunningTrial:
    """A trial between its start and its end.

    Args:
        started: seconds since 1970; the first start counts.
        records: by fold and epoch.
        folds: results of the folds that are done, without the files of their models.
        finished: whether its last epoch has ended.
        pruned: whether its pruning rule has ended it.
        error: why it failed.
        start_error: if a worker of it could not start.
    """

    started: float
    records: dict[int, dict[int, EpochRecord]] = field(default_factory=dict)
    folds: dict[int, FoldResult] = field(default_factory=dict)
    finished: bool = False
    pruned: bool = False
    error: str | None = None
    start_error: StartError | None = None

    def rows(self) -> list[Row]:
        """The scalars of every fold and epoch."""
        return [
            record.scalars | {"fold": fold}
            for fold, by_epoch in self.records.items()
            for record in by_epoch.values()
        ]

    def epoch(self, epoch: int) -> EpochRecord:
        """Means of an epoch over the folds that have it."""
        records = [self.records[fold].get(epoch) for fold in sorted(self.records)]
        known = [record for record in records if record is not None]
        return EpochRecord(
            mean_scalars([record.scalars for record in known]),
            mean_labels([record.labels for record in known]),
        )

    def state(self) -> tuple[str, str | None]:
        """State and error of the trial, if it ends now."""
        if self.error:
            return schemas.FAILED, self.error
        if self.finished:
            return schemas.COMPLETE, None
        if self.pruned:
            return schemas.PRUNED, None
        return schemas.FAILED, "it ended before its last epoch"
