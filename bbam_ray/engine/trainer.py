"""The training loop: warm-up on labelled samples, then refresh and semi-supervised epochs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbam_ray.config import RunConfig
from bbam_ray.core.ema import ExponentialAverage
from bbam_ray.data.batches import ViewChance, cycled_batches, epoch_batches, stream
from bbam_ray.data.views import CHANCE_WIDTH, Views
from bbam_ray.engine.evaluation import (
    channels_last,
    cosines,
    fetch,
    plain_batches,
    validation_figures,
)
from bbam_ray.engine.optimisation import Precision, apply_step, one_cycle
from bbam_ray.engine.task import PseudoLabelAudit, TrainingData
from bbam_ray.methods import METHODS
from bbam_ray.methods.method import Minibatch, Setting, Snapshot
from bbam_ray.models import build_network

# Purposes of the random streams of an epoch (see data/batches.py).
_LABELED_ORDER, _UNLABELED_ORDER, _LABELED_VIEWS, _UNLABELED_VIEWS, _GLOBAL = range(1, 6)


@dataclass(frozen=True)
class EpochRecord:
    """What an epoch reports: one row of the history and one row per label."""

    scalars: dict[str, Any]
    labels: dict[str, list[float]]


class Trainer:
    """Trains one configuration, epoch by epoch.

    Args:
        config: the complete configuration.
        data: what training may see.
        audit: judges pseudo-labels against the hidden truth, for the records only.
    """

    def __init__(
        self, config: RunConfig, data: TrainingData, audit: PseudoLabelAudit | None = None
    ) -> None:
        self.config, self.data, self._audit = config, data, audit
        common = config.training
        has_gpu = torch.cuda.is_available()
        self.device = torch.device(
            ("cuda" if has_gpu else "cpu") if common.device == "auto" else common.device
        )
        self.precision = Precision(self.device, common.amp)
        self.views = Views(data.views, common.strong_magnitude, common.cutout)
        self.labels = data.labels.to(self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(common.seed)
            self.model = build_network(
                common.backbone,
                data.input_shape,
                len(data.label_names),
                hidden_dim=common.hidden_dim,
                feature_dim=common.feature_dim,
                weights=common.weights,
            )
        self.model.to(self.device).to(memory_format=torch.channels_last)
        self.average = ExponentialAverage(self.model, common.ema_decay)
        self.method = METHODS[common.method](
            config.method,
            Setting(
                num_labels=len(data.label_names),
                labels=self.labels,
                positive_frequency=self.labels.double().mean(0),
                num_unlabeled=len(data.unlabeled),
                labeled_batch=min(common.labeled_batch, len(data.labeled)),
                unlabeled_batch=min(common.unlabeled_batch, len(data.unlabeled)),
            ),
        )
        self.epoch = 0  # epochs done
        self.best_epoch, self.best_map = 0, float("-inf")
        self._start_phase()

    # ------------------------------------------------------------------ phases

    @property
    def _warmup_epochs(self) -> int:
        """Epochs without unlabelled samples: all of them for a supervised method."""
        common = self.config.training
        return common.warmup_epochs if self.method.semi_supervised else common.epochs

    @property
    def finished(self) -> bool:
        """All epochs are done, or patience has run out (not counted in a warm-up)."""
        common = self.config.training
        if self.epoch >= min(common.stop_epoch or common.epochs, common.epochs):
            return True
        counted_from = self._warmup_epochs if self.method.semi_supervised else 0
        waited = self.epoch - max(self.best_epoch, counted_from)
        return common.patience is not None and waited >= common.patience

    def _start_phase(self) -> None:
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), weight_decay=self.config.training.weight_decay
        )

    def run_epoch(self) -> EpochRecord:
        """Train one epoch, evaluate it, and return its record."""
        if self.finished:
            raise RuntimeError(f"training has ended after epoch {self.epoch}")
        if self.epoch == self._warmup_epochs:
            self._start_phase()
        main_phase = self.epoch >= self._warmup_epochs
        seed = self.config.training.seed
        torch.manual_seed(int(stream(seed, self.epoch, _GLOBAL).integers(2**62)))
        self.epoch += 1
        started = time.perf_counter()
        if main_phase:
            self.method.refresh(self._snapshot())
        refreshed = time.perf_counter()
        losses = self._semi_supervised_epoch() if main_phase else self._labeled_epoch()
        trained = time.perf_counter()
        samples = losses.pop("samples")
        scalars: dict[str, Any] = {
            "epoch": self.epoch,
            "phase": "main" if main_phase else "warmup",
            **losses,
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        by_label = {k: v.double().tolist() for k, v in self.method.label_records().items()}
        if vdfd := by_label.get("vdfd"):
            scalars["vdfd_mean"] = float(np.nanmean(vdfd)) if np.isfinite(vdfd).any() else None
        if main_phase and self._audit and (pseudo := self.method.pseudo_labels()):
            judged = self._audit(*(tensor.clone() for tensor in pseudo))
            scalars["pseudo_precision"] = judged["precision"]
            scalars["pseudo_recall"] = judged["recall"]
            by_label["pseudo_precision"] = judged["precision_by_label"].tolist()
        if len(self.data.validation):
            logits = self.score(self.data.inputs, self.data.validation)
            figures, figures_by_label = validation_figures(
                logits, self.data.validation_labels.to(self.device)
            )
            scalars |= {f"val_{name}": value for name, value in figures.items()}
            by_label |= figures_by_label
            if figures["map"] > self.best_map:
                self.best_epoch, self.best_map = self.epoch, figures["map"]
        else:
            self.best_epoch = self.epoch
        scalars |= {
            "seconds_refresh": refreshed - started,
            "seconds_train": trained - refreshed,
            "seconds_evaluate": time.perf_counter() - trained,
            "images_per_second": samples / (trained - refreshed),
        }
        return EpochRecord(scalars, by_label)

    # ------------------------------------------------------------------ epochs

    def _labeled_epoch(self) -> dict[str, Any]:
        common, epoch = self.config.training, self.epoch
        order = stream(common.seed, epoch, _LABELED_ORDER)
        count = len(self.data.labeled)
        batches = epoch_batches(count, common.labeled_batch, common.warmup_passes, order)
        chance = ViewChance(common.seed, epoch, _LABELED_VIEWS, CHANCE_WIDTH)
        before, total = (epoch - 1) * len(batches), self._warmup_epochs * len(batches)
        losses = torch.zeros(2, device=self.device)
        for step, rows in enumerate(batches):
            self._set_rate(common.warmup_learning_rate, before + step, total)
            labeled = self._minibatch(self.data.labeled, rows, chance)
            self.model.train()
            with self.precision.autocast():
                loss = self.method.labeled_loss(self.model, labeled, self.labels[labeled.rows])
            self._apply(loss.total, step)
            losses[0] += loss.labeled.detach()
        return self._loss_record(losses / len(batches), main_phase=False) | {
            "samples": sum(map(len, batches))
        }

    def _semi_supervised_epoch(self) -> dict[str, Any]:
        common, epoch = self.config.training, self.epoch
        unlabeled_batches = epoch_batches(
            len(self.data.unlabeled),
            common.unlabeled_batch,
            1,
            stream(common.seed, epoch, _UNLABELED_ORDER),
        )
        steps = len(unlabeled_batches)
        order = stream(common.seed, epoch, _LABELED_ORDER)
        labeled_batches = cycled_batches(len(self.data.labeled), common.labeled_batch, steps, order)
        labeled_chance = ViewChance(common.seed, epoch, _LABELED_VIEWS, CHANCE_WIDTH)
        unlabeled_chance = ViewChance(common.seed, epoch, _UNLABELED_VIEWS, CHANCE_WIDTH)
        before = (epoch - 1 - self._warmup_epochs) * steps
        total = (common.epochs - self._warmup_epochs) * steps
        losses = torch.zeros(2, device=self.device)
        for step, rows in enumerate(unlabeled_batches):
            self._set_rate(common.learning_rate, before + step, total)
            labeled = self._minibatch(self.data.labeled, labeled_batches[step], labeled_chance)
            unlabeled = self._minibatch(self.data.unlabeled, rows, unlabeled_chance)
            self.model.train()
            with self.precision.autocast():
                loss = self.method.semi_supervised_loss(
                    self.model, labeled, self.labels[labeled.rows], unlabeled
                )
            self._apply(loss.total, step)
            losses[0] += loss.labeled.detach()
            if loss.unlabeled is not None:
                losses[1] += loss.unlabeled.detach()
        samples = sum(map(len, unlabeled_batches)) + sum(map(len, labeled_batches))
        return self._loss_record(losses / steps, main_phase=True) | {"samples": samples}

    def _minibatch(self, pool: np.ndarray, rows: np.ndarray, chance: ViewChance) -> Minibatch:
        """Samples at some places of a pool; their views are computed when the method asks."""
        numbers = chance.draw(len(rows))

        def view(kind: str) -> Tensor:
            inputs = fetch(self.data.inputs, pool[rows], self.device)
            make = {"weak": self.views.weak, "strong": self.views.strong}[kind]
            return channels_last(make(inputs, numbers.to(self.device)))

        return Minibatch(torch.from_numpy(rows).to(self.device), len(rows), view)

    def _set_rate(self, peak: float, step: int, total: int) -> None:
        rate = peak * one_cycle(step, total, self.config.training.pct_start)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _apply(self, loss: Tensor, step: int) -> None:
        where = f"epoch {self.epoch}, step {step + 1}"
        apply_step(loss, self.model, self.optimizer, self.precision, where)
        self.average.update()

    @staticmethod
    def _loss_record(losses: Tensor, *, main_phase: bool) -> dict[str, Any]:
        labeled, unlabeled = losses.tolist()
        return {
            "loss": labeled + unlabeled,
            "loss_labeled": labeled,
            "loss_unlabeled": unlabeled if main_phase else None,
        }

    # -------------------------------------------------------------- evaluation

    @torch.no_grad()
    def _snapshot(self) -> Snapshot:
        """One decode and one view of every sample for both models (method, section 4)."""
        common, data = self.config.training, self.data
        self.model.eval()
        features: list[list[Tensor]] = [[], []]
        averaged: list[Tensor] = []
        with self.precision.autocast():
            for pool, rows in enumerate((data.labeled, data.unlabeled)):
                for block in plain_batches(
                    data.inputs, rows, common.evaluation_batch, self.views, self.device
                ):
                    features[pool].append(self.model(block)[0].float())
                    if pool == 1:
                        averaged.append(self.average.module(block)[1].float())
        return Snapshot(torch.cat(features[0]), torch.cat(features[1]), torch.cat(averaged))

    def score(self, inputs: np.ndarray, rows: np.ndarray) -> Tensor:
        """Logits (N, K) of the averaged model for some rows of an array of inputs."""
        batch = self.config.training.evaluation_batch
        cosine = cosines(
            self.average.module, inputs, rows, batch, self.views, self.device, self.precision
        )
        return self.method.logits(cosine)

    # ------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes, at the end of an epoch. Orders and views follow from the epoch."""
        return {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_map": self.best_map,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "method": self.method.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, bit for bit on a CPU."""
        self.epoch = state["epoch"]
        self.best_epoch, self.best_map = state["best_epoch"], state["best_map"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self._start_phase()
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.scaler.load_state_dict(state["scaler"])
        self.method.load_state_dict(state["method"])
