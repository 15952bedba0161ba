"""What a single run writes and prints while it trains, wherever its epochs come from."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from bbam_ray.core.metric_names import HEADLINE_METRICS
from bbam_ray.errors import EXIT_FAILED, StorageError
from bbam_ray.results import study as studies
from bbam_ray.results.epoch_rows import put_epoch
from bbam_ray.results.redaction import redacted
from bbam_ray.results.schemas import COMPLETE, FAILED
from bbam_ray.results.store import Row, StudyStore
from bbam_ray.results.summary import duration

if TYPE_CHECKING:
    from bbam_ray.config import RunConfig

CHECKPOINTS = "checkpoints"
MODEL = Path(CHECKPOINTS) / "model"
_NUMBER, _TRIAL = 0, "t00000"


class RunLog:
    """The tables, the record and the printed lines of one run.

    Args:
        console: for people; quiet where nobody reads.
        record: of the run's folder.
        settings: of the run.
        label_names: K names.
        gpus: that all workers hold together, for ``gpu_hours``.
    """

    def __init__(
        self,
        console: Console,
        record: studies.StudyRecord,
        settings: RunConfig,
        label_names: tuple[str, ...],
        gpus: float,
    ) -> None:
        self.console, self.record, self.settings = console, record, settings
        self.folder = record.folder
        self._label_names, self._gpus = label_names, gpus
        self._store = StudyStore(record.folder, {})
        self._identity: Row = {"study": self.folder.name, "trial_id": _TRIAL, "number": _NUMBER}
        self._started = time.time()
        self.error: str | None = None

    def epoch(self, scalars: Mapping[str, Any], labels: Mapping[str, Any], *, again: bool) -> None:
        """Store an epoch; one that a checkpoint brought back is stored again, but not printed."""
        row = put_epoch(self._store, self._identity, scalars, labels, self._label_names)
        self._store.flush()
        if not again:
            self.console.print(_line(row, self.settings.training.epochs))

    def started(self, workers: int, epoch: int, defects: list[str]) -> None:
        """Say where workers begin, and which checkpoints could not be used."""
        for defect in defects:
            self.console.print(f"damaged checkpoint left out: {defect}", markup=False)
        if workers > 1 or epoch:
            self.console.print(f"{workers} worker{'s' * (workers > 1)}, from epoch {epoch}")

    def stopped(self, reason: BaseException) -> None:
        """The run ends here, by Ctrl-C or by an error nobody foresaw; what is done is kept."""
        if isinstance(reason, StorageError):
            return  # nothing more can be written
        self._store.flush()
        interrupted = isinstance(reason, KeyboardInterrupt)
        self.record.end(studies.INTERRUPTED if interrupted else studies.FAILED)
        self.console.print(
            f"\n{'interrupted' if interrupted else 'failed'}: go on with the same command and --name "
            f"{self.folder.name} --resume"
        )

    def best(self) -> Row:
        """The row of the epoch with the highest val_map; the last one where there is none."""
        rows = self._store.history.rows()
        measured = [row for row in rows if row["val_map"] is not None]
        return max(measured, key=lambda row: row["val_map"]) if measured else (rows or [{}])[-1]

    def finish(self, *, test: bool, as_json: bool) -> int:
        """Write the trial's row, measure the test part if asked to, and print the end."""
        best, rows = self.best(), self._store.history.rows()
        seconds = time.time() - self._started
        self._store.trials.put(
            [
                self._identity
                | {name: value for name, value in best.items() if name.startswith("val_")}
                | {
                    "state": FAILED if self.error else COMPLETE,
                    "seed": self.settings.training.seed,
                    "best_epoch": best.get("epoch"),
                    "epochs": len(rows),
                    "started_at": datetime.fromtimestamp(self._started, UTC),
                    "duration_s": seconds,
                    "gpu_hours": seconds / 3600 * self._gpus,
                    "error": self.error,
                }
            ]
        )
        self._store.flush(wait=True)
        self.record.end(studies.FAILED if self.error else studies.COMPLETE)
        if self.error:
            console = Console(stderr=True, soft_wrap=True, highlight=False)
            console.print(f"error: {redacted(self.error)}", markup=False)
            return EXIT_FAILED
        figures = self._test(best) if test else {}
        self._show(best, figures, time.time() - self._started)
        if as_json:
            found = {name: best[name] for name in best if name.startswith("val_")}
            content = {"folder": str(self.folder), "best_epoch": best["epoch"], **found, **figures}
            typer.echo(json.dumps(content))
        return 0

    def _test(self, best: Row) -> dict[str, Any]:
        """Measure the model of the best epoch on the test part and store the row."""
        from bbam_ray.engine.confirm import measure_test_metrics
        from bbam_ray.engine.model_folder import load_weights, read_thresholds
        from bbam_ray.engine.task import prepare_training
        from bbam_ray.engine.trainer import Trainer

        trainer = Trainer(self.settings, *prepare_training(self.settings))
        load_weights(self.folder / MODEL, trainer)
        figures = measure_test_metrics(trainer, read_thresholds(self.folder / MODEL))
        seed = self.settings.training.seed
        self._store.confirm.put(
            [self._identity | figures | {"rank": 1, "seed": seed, "epochs": best["epoch"]}]
        )
        self._store.flush(wait=True)
        return figures

    def _show(self, best: Row, figures: dict[str, Any], seconds: float) -> None:
        console = self.console
        if best.get("val_map") is not None:
            console.print(
                f"\nbest epoch {best['epoch']}: val_map {best['val_map']:.4f}", style="bold"
            )
        for name in HEADLINE_METRICS:
            if (value := figures.get(f"test_{name}")) is not None:
                console.print(f"test_{name} {value:.4f}")
        console.print(f"model: {self.folder / MODEL}", markup=False)
        console.print(f"history: {self.folder / 'history.parquet'}", markup=False)
        console.print(f"took {duration(seconds)}", style="dim")


def _line(row: Row, epochs: int) -> str:
    value = row.get("val_map")
    seconds = row["seconds_refresh"] + row["seconds_train"] + row["seconds_evaluate"]
    figures = f"  val_map {value:.4f}" if value is not None else ""
    if row.get("pseudo_precision") is not None:
        figures += f"  pseudo-label precision {row['pseudo_precision']:.3f}"
    return (
        f"epoch {row['epoch']:>3}/{epochs}  {row['phase']:<6}  loss {row['loss']:.4f}{figures}"
        f"  {seconds:.1f}s"
    )
