"""Confirmation: retrain a chosen configuration on all labelled data, then read the test part once."""

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
    """The run that confirms a trial: another seed, and no validation samples.

    ``stop_epoch`` is the best epoch of a trial that patience ended; others train to the end of their
    schedule, since the peak of a noisy validation curve is no reason to cut a one-cycle schedule short.
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
    """Measure a trained model on the test part: ``test_*`` and the numbers of samples; all ranks call.

    Args:
        trainer: its averaged model is measured.
        thresholds: (K,) on logits, tuned on validation data.
    """
    test = load_part(trainer.config, "test")
    part = even_part(len(test.inputs), distributed.rank(), distributed.world_size())
    logits = trainer.score(test.inputs, np.arange(len(test.inputs))[part])
    figures = multilabel_metrics(
        logits,
        torch.from_numpy(test.labels[part]).to(logits.device),
        thresholds=torch.tensor(thresholds, device=logits.device),
    )
    sizes = {"n_labeled": len(trainer.data.labeled), "n_test": len(test.inputs)}
    return {f"test_{name}": value for name, value in figures.items()} | sizes


def train_and_test(
    config: RunConfig, thresholds: list[float], model_folder: Path | None = None
) -> dict[str, Any]:
    """Train a configuration to its end and measure it on the test part.

    Args:
        config: without validation samples, so that all labelled samples train.
        thresholds: (K,) on logits, tuned on the validation data of the trial that was chosen.
        model_folder: where the trained model is kept.

    Returns:
        ``test_*`` measures, epochs, numbers of samples and seconds.
    """
    started = time.time()
    data, audit = prepare_training(config)
    trainer = Trainer(config, data, audit)
    while not trainer.finished:
        trainer.run_epoch()
    figures = measure_test_metrics(trainer, thresholds)
    if model_folder is not None and distributed.rank() == 0:
        save_model(model_folder, trainer, thresholds)
    return {**figures, "epochs": trainer.epoch, "duration_s": time.time() - started}
