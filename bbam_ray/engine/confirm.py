"""Confirmation: train a chosen configuration on all labelled samples, and read the test part once."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.config import RunConfig
from bbam_ray.core.calibration import Calibration, expected_calibration_error, fit_calibration
from bbam_ray.core.metrics import multilabel_metrics
from bbam_ray.core.thresholds import robust_thresholds
from bbam_ray.data.sampling.sharding import even_part
from bbam_ray.engine.fitted_trainer import make_trainer
from bbam_ray.engine.model import Model
from bbam_ray.engine.model_folder import save_model
from bbam_ray.engine.task import load_part, prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import run_config

OutOfFold = tuple[Tensor, Tensor]  # scores and labels, (N, K) each
CALIBRATION_ERROR = "test_calibration_error"
_BLOCK = 4096  # test samples in memory at once


@dataclass(frozen=True)
class Decisions:
    """How scores become decisions and probabilities; from samples that the model was not trained on.

    Args:
        thresholds: (K,) on logits.
        slope, offset: (K,) of the calibration.
    """

    thresholds: list[float]
    slope: list[float]
    offset: list[float]

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> Decisions:
        """Tune thresholds and calibration.

        Args:
            logits: (N, K) out-of-fold scores.
            labels: (N, K) 0/1.
        """
        calibration = fit_calibration(logits, labels)
        thresholds = robust_thresholds(logits, labels, calibration)
        return cls(thresholds.tolist(), calibration.slope.tolist(), calibration.offset.tolist())

    @property
    def calibration(self) -> Calibration:
        slope, offset = (torch.tensor(v, dtype=torch.float64) for v in (self.slope, self.offset))
        return Calibration(slope, offset)


def confirmation_config(
    settings: dict[str, Any],
    parameters: dict[str, Any],
    seed: int,
    stop_epoch: int | None,
    *,
    same_pool: bool = False,
) -> RunConfig:
    """Configuration of the run that confirms a trial: no validation samples, and usually another seed.

    Args:
        settings: settings of the study that all trials share.
        parameters: searched parameters of the trial.
        seed: of the confirmation run.
        stop_epoch: last epoch, if the chosen weights are not those of the end of the schedule.
        same_pool: use the labelled samples of the study, else those that the seed draws.
    """
    values = {
        **settings,
        **parameters,
        "seed": seed,
        "validation_fraction": 0.0,
        "folds": 1,
        "fold": 0,
        "patience": None,
        "stop_epoch": stop_epoch,
    }
    if same_pool:
        values["split_seed"] = pool_seed(settings)
    return run_config(values, "confirmation")


def pool_seed(settings: dict[str, Any]) -> int:
    """The seed of the labelled samples of a study."""
    seed: int | None = settings.get("split_seed")
    return settings["seed"] if seed is None else seed


def measure_test_metrics(
    trainer: Trainer, thresholds: list[float], calibration: Calibration | None = None
) -> dict[str, Any]:
    """Evaluate the averaged model of a trainer on the test part; every rank calls this.

    Args:
        trainer: after training.
        thresholds: (K,) on logits, tuned on validation data.
        calibration: of the logits; None = do not measure the calibration error.

    Returns:
        ``test_*`` metrics, ``n_labeled`` and ``n_test``.
    """
    test = load_part(trainer.config, "test")
    part = even_part(len(test.inputs), distributed.rank(), distributed.world_size())
    logits = trainer.score(test.inputs, np.arange(len(test.inputs))[part])
    labels = torch.from_numpy(test.labels[part]).to(logits.device)
    limits = torch.tensor(thresholds, device=logits.device)
    metrics = multilabel_metrics(logits, labels, thresholds=limits)
    result = {f"test_{name}": value for name, value in metrics.items()}
    if calibration is not None:
        scores, known = distributed.gather_rows(logits, labels)
        probabilities = calibration.probabilities(scores)
        result[CALIBRATION_ERROR] = expected_calibration_error(probabilities, known)
    return result | {"n_labeled": len(trainer.data.labeled), "n_test": len(test.inputs)}


def train(
    config: RunConfig,
    model_folder: Path | None,
    decisions: Decisions | None = None,
    out_of_fold: OutOfFold | None = None,
) -> Trainer:
    """Train a configuration to its end, and save the model on rank 0.

    Args:
        config: without validation samples, so that training uses all labelled samples.
        model_folder: folder for the trained model; None = do not save it.
        decisions: of the model.
        out_of_fold: scores and labels for thresholds and weights of pseudo-labels.
    """
    data, audit = prepare_training(config)
    trainer = make_trainer(config, replace(data, out_of_fold=out_of_fold), audit)
    while not trainer.finished:
        trainer.run_epoch()
    if model_folder is not None and distributed.rank() == 0:
        if decisions is None:
            save_model(model_folder, trainer, [0.0] * len(trainer.data.label_names))
        else:
            thresholds, calibration = decisions.thresholds, decisions.calibration
            save_model(model_folder, trainer, thresholds, calibration)
    return trainer


def train_and_test(
    config: RunConfig,
    decisions: Decisions,
    model_folder: Path | None = None,
    out_of_fold: OutOfFold | None = None,
) -> dict[str, Any]:
    """Train a configuration to the end and evaluate it on the test part.

    Args:
        config: without validation samples, so that training uses all labelled samples.
        decisions: from out-of-fold scores of the chosen trial.
        model_folder: folder for the trained model; None = do not save it.
        out_of_fold: scores and labels for thresholds and weights of pseudo-labels.

    Returns:
        ``test_*`` metrics, epochs, numbers of networks and samples, and seconds. ``held_out`` is the
        number of samples behind thresholds or weights of pseudo-labels; None if the settings need none.
    """
    started = time.time()
    trainer = train(config, model_folder, decisions, out_of_fold)
    metrics = measure_test_metrics(trainer, decisions.thresholds, decisions.calibration)
    seconds = time.time() - started
    return {
        **metrics,
        "epochs": trainer.epoch,
        "networks": 1,
        "held_out": trainer.scores.num_held_out,
        "duration_s": seconds,
    }


def test_model(folder: Path, config: RunConfig) -> dict[str, Any]:
    """Evaluate a saved model on the test part.

    Args:
        folder: of the model, which may be an ensemble.
        config: of a run with the data set, for the number of labelled samples.

    Returns:
        As ``train_and_test``, without epochs.
    """
    started = time.time()
    model, test = Model(folder), load_part(config, "test")
    blocks = np.array_split(np.arange(len(test.inputs)), -(-len(test.inputs) // _BLOCK))
    logits = torch.from_numpy(
        np.concatenate([model.logits(np.asarray(test.inputs[rows])) for rows in blocks])
    )
    labels = torch.from_numpy(test.labels)
    thresholds = torch.from_numpy(model.thresholds)
    metrics = multilabel_metrics(logits, labels, thresholds=thresholds)
    probabilities = torch.from_numpy(model.probabilities(logits.numpy()))
    task, _ = prepare_training(config)
    return {
        **{f"test_{name}": value for name, value in metrics.items()},
        CALIBRATION_ERROR: expected_calibration_error(probabilities, labels),
        "n_labeled": len(task.labeled),
        "n_test": len(labels),
        "networks": model.networks,
        "duration_s": time.time() - started,
    }
