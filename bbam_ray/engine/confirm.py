"""Confirmation: train a chosen configuration on all labelled data, then read the test part once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bbam_ray import distributed
from bbam_ray.config import RunConfig
from bbam_ray.core.metrics import multilabel_metrics
from bbam_ray.data.sampling.sharding import even_part
from bbam_ray.engine.model_folder import save_model
from bbam_ray.engine.task import load_part, prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import run_config


def confirmation_config(
    settings: dict[str, Any], parameters: dict[str, Any], seed: int, stop_epoch: int | None
) -> RunConfig:
    """Configuration of the run that confirms a trial: another seed, and no validation samples.

    Args:
        settings: settings of the study that all trials share.
        parameters: searched parameters of the trial.
        seed: of the confirmation run.
        stop_epoch: best epoch of a trial that patience ended. None = train to the end of the schedule:
            the maximum of a noisy validation curve is no reason to cut a one-cycle schedule short.
    """
    values = {
        **settings,
        **parameters,
        "seed": seed,
        "validation_fraction": 0.0,
        "patience": None,
        "stop_epoch": stop_epoch,
    }
    return run_config(values, "confirmation")


def measure_test_metrics(trainer: Trainer, thresholds: list[float]) -> dict[str, Any]:
    """Evaluate the averaged model of a trainer on the test part; every rank calls this.

    Args:
        trainer: after training.
        thresholds: (K,) on logits, tuned on validation data.

    Returns:
        ``test_*`` metrics, ``n_labeled`` and ``n_test``.
    """
    test = load_part(trainer.config, "test")
    part = even_part(len(test.inputs), distributed.rank(), distributed.world_size())
    logits = trainer.score(test.inputs, np.arange(len(test.inputs))[part])
    metrics = multilabel_metrics(
        logits,
        torch.from_numpy(test.labels[part]).to(logits.device),
        thresholds=torch.tensor(thresholds, device=logits.device),
    )
    sizes = {"n_labeled": len(trainer.data.labeled), "n_test": len(test.inputs)}
    return {f"test_{name}": value for name, value in metrics.items()} | sizes


def train_and_test(
    config: RunConfig, thresholds: list[float], model_folder: Path | None = None
) -> dict[str, Any]:
    """Train a configuration to the end and evaluate it on the test part.

    Args:
        config: without validation samples, so that training uses all labelled samples.
        thresholds: (K,) on logits, tuned on the validation data of the chosen trial.
        model_folder: folder for the trained model; None = do not save it.

    Returns:
        ``test_*`` metrics, epochs, numbers of samples and seconds.
    """
    started = time.time()
    data, audit = prepare_training(config)
    trainer = Trainer(config, data, audit)
    while not trainer.finished:
        trainer.run_epoch()
    metrics = measure_test_metrics(trainer, thresholds)
    if model_folder is not None and distributed.rank() == 0:
        save_model(model_folder, trainer, thresholds)
    return {**metrics, "epochs": trainer.epoch, "duration_s": time.time() - started}
