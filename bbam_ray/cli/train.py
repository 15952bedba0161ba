"""``bbam-ray train``: train one configuration."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from bbam_ray.cli import options as shared
from bbam_ray.cli.progress import duration
from bbam_ray.config import read_yaml_mapping
from bbam_ray.errors import EXIT_FAILED, NonFiniteError, UsageError
from bbam_ray.results import study as studies
from bbam_ray.results.schemas import COMPLETE, FAILED
from bbam_ray.results.store import StudyStore

if TYPE_CHECKING:
    from bbam_ray.config import RunConfig
    from bbam_ray.engine.trainer import Trainer

_CHECKPOINT = Path("checkpoints") / "last.pt"
_MODEL = Path("checkpoints") / "model"
_NUMBER, _TRIAL = 0, "t00000"


def train(
    dataset: Annotated[str | None, typer.Option(help="Data set; default digits.")] = None,
    data_dir: shared.DataDir = None,
    method: Annotated[str | None, typer.Option(help="Learning method; default bbam.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings (YAML), e.g. a best.yaml.")] = None,
    name: shared.StudyName = None,
    results: shared.Results = Path("results"),
    seed: Annotated[int | None, typer.Option(help="Of split, weights, order and views.")] = None,
    labeled_fraction: shared.Fraction = None,
    epochs: shared.Epochs = None,
    warmup_epochs: shared.WarmupEpochs = None,
    workers: shared.Workers = 1,
    gpus_per_worker: shared.Gpus = 0,
    cpus_per_worker: shared.Cpus = 1,
    set_: shared.Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run --name.")] = False,
    test: Annotated[
        bool, typer.Option("--test", help="At the end, measure once on the test part.")
    ] = False,
    json_: shared.Json = False,
    quiet: shared.Quiet = False,
) -> int:
    """Train one configuration and keep its model, history and checkpoint."""
    from bbam_ray.engine.task import check_task, prepare_training
    from bbam_ray.engine.threads import use_threads
    from bbam_ray.engine.trainer import Trainer
    from bbam_ray.methods import run_config

    named = {
        "dataset": dataset,
        "method": method,
        "seed": seed,
        "data_dir": str(data_dir) if data_dir else None,
        "labeled_fraction": labeled_fraction,
        "epochs": epochs,
        "warmup_epochs": warmup_epochs,
    }
    if resume and name is None:
        raise UsageError("--resume needs --name: which run shall go on?")
    from_file = read_yaml_mapping(config) if config else {}
    from_file["device"] = "cuda" if gpus_per_worker else "cpu"
    settings = run_config(
        shared.given_settings(set_, named, from_file), str(config or "command line")
    )
    common = settings.training
    study = name or studies.default_name(common.method)
    folder = studies.check_folder(results, common.dataset, study, resume=resume)
    split = check_task(settings)
    shared.check_workers(workers, gpus_per_worker, len(split.labeled))
    use_threads(cpus_per_worker)
    record = _record(folder, settings, resume=resume)
    trainer = Trainer(settings, *prepare_training(settings))
    console = Console(stderr=json_, soft_wrap=True, highlight=False)
    return _train(
        Console(quiet=True) if quiet or json_ else console,
        record,
        trainer,
        test=test,
        as_json=json_,
    )


def _record(folder: Path, settings: RunConfig, *, resume: bool) -> studies.StudyRecord:
    import torch

    content = {
        "dataset": settings.training.dataset,
        "method": settings.training.method,
        "seed": settings.training.seed,
        "settings": settings.flat(),
        "space": {
            "metric": "val_map",
            "mode": "max",
            "parameters": {},
            "published": {},
            "fixed": {},
        },
        "num_samples": 1,
        "environment": studies.describe_environment(
            torch.cuda.get_device_name() if torch.cuda.is_available() else None
        ),
    }
    if not resume:
        return studies.StudyRecord.create(folder, content)
    record = studies.StudyRecord.open(folder)
    if record.content.get("settings") != content["settings"]:
        raise UsageError(
            f"--resume: the settings of run '{folder.name}' were different; give the same flags and "
            "file as before, or use another --name"
        )
    record.update(status=studies.RUNNING, ended_at=None)
    return record


def _train(
    console: Console, record: studies.StudyRecord, trainer: Trainer, *, test: bool, as_json: bool
) -> int:
    from bbam_ray.engine.checkpoint import load_checkpoint, save_checkpoint
    from bbam_ray.engine.model_folder import save_model

    folder, store = record.folder, StudyStore(record.folder, {})
    common = trainer.config.training
    checkpoint = folder / _CHECKPOINT
    if checkpoint.exists():
        trainer.load_state_dict(load_checkpoint(checkpoint))
    identity = {"study": folder.name, "trial_id": _TRIAL, "number": _NUMBER}
    console.print(
        f"run {folder}: {common.method} on {common.dataset}, {len(trainer.data.labeled)} labelled, "
        f"{len(trainer.data.validation)} validation, {len(trainer.data.unlabeled)} unlabelled, "
        f"on {trainer.device}" + (f", from epoch {trainer.epoch}" if trainer.epoch else "")
    )
    started, error = time.time(), None
    try:
        while not trainer.finished:
            row = _epoch(store, trainer, identity)
            # A checkpoint may lack behind the history by an epoch, which is then written again.
            save_checkpoint(checkpoint, trainer.state_dict())
            if trainer.best_epoch == trainer.epoch:
                save_model(folder / _MODEL, trainer, _thresholds(store, trainer))
            console.print(_line(row, common.epochs))
    except NonFiniteError as failure:
        error = str(failure)
    except KeyboardInterrupt:
        record.end(studies.INTERRUPTED)
        console.print(
            f"\ninterrupted: go on with the same command and --name {folder.name} --resume"
        )
        raise
    rows = store.history.rows()
    best = next((row for row in rows if row["epoch"] == trainer.best_epoch), {})
    store.trials.put(
        [
            identity
            | {name: value for name, value in best.items() if name.startswith("val_")}
            | {
                "state": FAILED if error else COMPLETE,
                "seed": common.seed,
                "best_epoch": trainer.best_epoch or None,
                "epochs": len(rows),
                "started_at": datetime.fromtimestamp(started, UTC),
                "duration_s": time.time() - started,
                "gpu_hours": (time.time() - started) / 3600 * (trainer.device.type == "cuda"),
                "error": error,
            }
        ]
    )
    store.flush()
    record.end(studies.FAILED if error else studies.COMPLETE)
    if error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", markup=False, highlight=False)
        return EXIT_FAILED
    figures = _test(store, trainer, identity) if test else {}
    _show(console, folder, best, figures, trainer.best_epoch, time.time() - started)
    if as_json:
        best_figures = {name: best[name] for name in best if name.startswith("val_")}
        content = {
            "folder": str(folder),
            "best_epoch": trainer.best_epoch,
            **best_figures,
            **figures,
        }
        typer.echo(json.dumps(content))
    return 0


def _epoch(store: StudyStore, trainer: Trainer, identity: dict[str, Any]) -> dict[str, Any]:
    """Train an epoch and write its rows."""
    record = trainer.run_epoch()
    row = identity | record.scalars
    store.history.put([row])
    store.labels.put(
        identity
        | {"epoch": trainer.epoch, "label": name}
        | {column: values[place] for column, values in record.labels.items()}
        for place, name in enumerate(trainer.data.label_names)
    )
    store.flush()
    return row


def _thresholds(store: StudyStore, trainer: Trainer) -> list[float]:
    """Thresholds of the newest epoch; 0 on logits where there is no validation part."""
    rows = {row["label"]: row for row in store.labels.rows() if row["epoch"] == trainer.epoch}
    return [rows[name]["threshold"] or 0.0 for name in trainer.data.label_names]


def _line(row: dict[str, Any], epochs: int) -> str:
    value = row.get("val_map")
    seconds = row["seconds_refresh"] + row["seconds_train"] + row["seconds_evaluate"]
    figures = f"  val_map {value:.4f}" if value is not None else ""
    if row.get("pseudo_precision") is not None:
        figures += f"  pseudo-label precision {row['pseudo_precision']:.3f}"
    return (
        f"epoch {row['epoch']:>3}/{epochs}  {row['phase']:<6}  loss {row['loss']:.4f}{figures}"
        f"  {seconds:.1f}s"
    )


def _test(store: StudyStore, trainer: Trainer, identity: dict[str, Any]) -> dict[str, float]:
    """Measure the model of the best epoch on the test part and store the row."""
    from bbam_ray.engine.confirm import test_figures
    from bbam_ray.engine.model_folder import load_weights, read_thresholds

    folder = store.folder / _MODEL
    load_weights(folder, trainer)
    figures = test_figures(trainer, read_thresholds(folder))
    seed = trainer.config.training.seed
    store.confirm.put(
        [identity | figures | {"rank": 1, "seed": seed, "epochs": trainer.best_epoch}]
    )
    store.flush()
    return figures


def _show(
    console: Console,
    folder: Path,
    best: dict[str, Any],
    figures: dict[str, float],
    best_epoch: int,
    seconds: float,
) -> None:
    if best.get("val_map") is not None:
        console.print(f"\nbest epoch {best_epoch}: val_map {best['val_map']:.4f}", style="bold")
    for name in ("test_map", "test_micro_f1", "test_macro_f1"):
        if name in figures:
            console.print(f"{name} {figures[name]:.4f}")
    console.print(f"model: {folder / _MODEL}\nhistory: {folder / 'history.parquet'}", markup=False)
    console.print(f"took {duration(seconds)}", style="dim")
