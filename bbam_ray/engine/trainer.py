"""The training loop: warm-up on labelled samples, then refresh and semi-supervised epochs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.config import RunConfig
from bbam_ray.core.ema import ExponentialAverage
from bbam_ray.data import Inputs
from bbam_ray.data.sampling.sharding import owned_rows
from bbam_ray.data.views.images import Views
from bbam_ray.engine.compilation import StepPosition
from bbam_ray.engine.compilation_of_run import compilation_of
from bbam_ray.engine.evaluation import validation_metrics
from bbam_ray.engine.gpu_use import busy_percent, gpu_columns
from bbam_ray.engine.gradient_sum import GradientSum
from bbam_ray.engine.kept_weights import KeptWeights
from bbam_ray.engine.minibatches import EpochSteps, seed_epoch
from bbam_ray.engine.network_scores import NetworkScores
from bbam_ray.engine.network_start import network_at_start
from bbam_ray.engine.optim import FiniteCheck, Precision, apply_step, parameter_groups, set_rates
from bbam_ray.engine.phase_steps import PhaseSteps
from bbam_ray.engine.pruning_rule import PruningRule
from bbam_ray.engine.pseudo_label_records import PseudoLabelAudit, pseudo_label_records
from bbam_ray.engine.running_epoch import RunningEpoch
from bbam_ray.engine.sample_rows import SampleState, restore_samples, saved_samples
from bbam_ray.engine.stop_request import never
from bbam_ray.engine.stop_vote import StopVote
from bbam_ray.engine.task import TrainingData
from bbam_ray.engine.warmup_views import forward_of
from bbam_ray.engine.weight_choice import WeightChoice
from bbam_ray.errors import TrainingStoppedError
from bbam_ray.methods import METHODS
from bbam_ray.methods.method import Snapshot, TaskInfo

_STEPS_BETWEEN_CHECKS = 200  # waiting for a GPU costs a fraction of a step


@dataclass(frozen=True)
class EpochRecord:
    """The results of an epoch.

    Args:
        scalars: one row of the history, column to value.
        labels: rows of the label table, column to K values.
    """

    scalars: dict[str, Any]
    labels: dict[str, list[float]]


class Trainer:
    """Trains one configuration, epoch by epoch; together with other ranks in a process group.

    Batches, views and results do not depend on the number of ranks: each rank handles its share of every
    batch, and gradients, statistics and metrics are those of the whole batch.

    Args:
        config: the complete configuration.
        data: everything that training may see.
        audit: compares pseudo-labels with the hidden labels, for the records only.
        pruning_rule: thresholds that prune a trial of a search; None = never prune.
    """

    def __init__(
        self,
        config: RunConfig,
        data: TrainingData,
        audit: PseudoLabelAudit | None = None,
        pruning_rule: PruningRule | None = None,
    ) -> None:
        self.config, self.data, self._audit = config, data, audit
        self._pruning_rule = pruning_rule
        common = config.training
        has_gpu = torch.cuda.is_available()
        self.device = torch.device(
            ("cuda" if has_gpu else "cpu") if common.device == "auto" else common.device
        )
        self.precision = Precision(
            self.device, common.amp, common.amp_cpu, float16=common.amp_dtype == "float16"
        )
        self.views = Views(data.views, common.strong_magnitude, common.cutout)
        self.labels = data.labels.to(self.device)
        start = network_at_start(config, data, self.views, self.device, self.precision)
        self.model = start.network
        #: what the steps read, and its views: the data, or features of a frozen backbone
        self._steps_data, self._steps_views = start.data, start.views
        self._labeled_rows = owned_rows(
            len(data.labeled), distributed.rank(), distributed.world_size()
        )
        self._unlabeled_rows = np.empty(0, dtype=np.int64)  # changes with every main epoch
        self.average = ExponentialAverage(self.model, common.ema_decay, warmup=common.ema_warmup)
        self._gradients = GradientSum(self.model.parameters())
        self.method = METHODS[common.method](
            config.method,
            TaskInfo(
                num_labels=len(data.label_names),
                labels=self.labels[torch.from_numpy(self._labeled_rows).to(self.device)],
                positive_frequency=self.labels.double().mean(0),
                labeled_batch=min(common.labeled_batch, len(data.labeled)),
                unlabeled_batch=min(common.unlabeled_batch, len(data.unlabeled)),
            ),
        )
        self.epoch = 0  # epochs done
        self.weight_choice = WeightChoice(
            common.keep_rule,
            common.epochs,
            self._warmup_epochs,
            has_main_phase=self.method.semi_supervised,
        )
        self.scores = NetworkScores(
            self.model,
            self.average.module,
            self.method,
            self._steps_data,
            self._steps_views,
            common,
            self.device,
            self.precision,
        )
        self._objective: dict[int, float] = {}  # by epoch, if there is a pruning rule
        self.stopped_early = False
        #: an epoch that has begun and is not complete
        self.running: RunningEpoch | None = None
        self._vote = StopVote(never, self.device)
        self._start_phase()

    # ------------------------------------------------------------------ phases

    @property
    def _warmup_epochs(self) -> int:
        """Epochs without unlabelled samples: all of them for a supervised method."""
        common = self.config.training
        return common.warmup_epochs if self.method.semi_supervised else common.epochs

    @property
    def finished(self) -> bool:
        """All epochs are done, the trial was pruned, the main phase does harm, or patience has run out.

        Patience does not end a warm-up.
        """
        common = self.config.training
        if self.stopped_early or self.weight_choice.harmful:
            return True
        if self.epoch >= min(common.stop_epoch or common.epochs, common.epochs):
            return True
        counted_from = self._warmup_epochs if self.method.semi_supervised else 0
        waited = self.epoch - max(self.best_epoch, counted_from)
        return common.patience is not None and waited >= common.patience

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights are kept if training ends now; see the setting ``keep``."""
        return self.weight_choice.best_epoch(self.epoch)

    def _kept_now(self) -> KeptWeights:
        return KeptWeights.of(
            self.epoch,
            self.weight_choice.last_map,
            self.weight_choice.last_logits,
            self.average.module.state_dict(),
            self.method.scoring_state(),
        )

    @contextmanager
    def using(self, weights: KeptWeights | None) -> Iterator[None]:
        """Score and save with earlier weights for a while; None = with those of the last epoch."""
        if weights is None:
            yield
            return
        now = self._kept_now()
        self._restore(weights)
        try:
            yield
        finally:
            self._restore(now)

    def _restore(self, weights: KeptWeights) -> None:
        self.average.module.load_state_dict(weights.average)
        self.method.load_scoring_state(weights.scoring)

    @property
    def kept_weights(self) -> KeptWeights | None:
        """The weights of ``best_epoch``; None = those of the last epoch."""
        return None if self.best_epoch == self.epoch else self.weight_choice.fallback

    @property
    def progress(self) -> dict[str, bool]:
        """Whether the run has ended, and whether it was pruned."""
        return {"finished": self.finished, "stopped_early": self.stopped_early}

    def _start_phase(self) -> None:
        common = self.config.training
        groups = parameter_groups(self.model, common.backbone_rate)
        self.optimizer = torch.optim.AdamW(groups, weight_decay=common.weight_decay, fused=True)
        phase_epochs = common.epochs - (self.epoch if self.epoch >= self._warmup_epochs else 0)
        self._compilation = compilation_of(
            self.config,
            self._steps_data,
            (self.model, self.average.module),
            self.precision,
            phase_epochs,
        )

    def _restart_average(self) -> None:
        """At the start of the main phase: see the setting ``ema_restart``."""
        restart = self.config.training.ema_restart
        if restart == "none":
            return
        if restart == "averaged":
            self.model.load_state_dict(self.average.module.state_dict())
        self.average.restart()
        self.weight_choice.forget_scores()

    def _begin_epoch(self) -> RunningEpoch:
        """Start an epoch, and the main phase with its first one."""
        if self.epoch == self._warmup_epochs:
            self._restart_average()
            self._start_phase()
            for network in (self.model, self.average.module):
                self.method.start_main_phase(network)
        self.precision.start_epoch()
        return RunningEpoch.new(self.device)

    def run_epoch(self, requested: Callable[[], bool] = never) -> EpochRecord:
        """Train one epoch, or the rest of one, evaluate it, and return its record.

        Args:
            requested: whether this rank has a request to stop; called between steps.

        Raises:
            TrainingStoppedError: a rank had a request; the epoch continues with the next call.
        """
        if self.finished:
            raise RuntimeError(f"training has ended after epoch {self.epoch}")
        main_phase, is_new = self.epoch >= self._warmup_epochs, self.running is None
        self.running = running = self.running or self._begin_epoch()
        self.epoch += 1
        seed_epoch(self.config.training.seed, self.epoch - 1)
        self._vote = StopVote(requested, self.device)
        communicated = distributed.seconds_spent()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        with running.timed("refresh"):
            steps = self._steps(self.epoch, main_phase=main_phase, first=running.step)
            if main_phase and is_new:
                self._unlabeled_rows = steps.unlabeled_rows
                if self.method.refreshes:
                    self.method.refresh(self._snapshot())
                self.method.start_epoch(len(self._unlabeled_rows))
        running.resume(self.device)
        try:
            with running.timed("train"):
                losses = self.take_steps(steps, main_phase=main_phase)
        except TrainingStoppedError:
            self.epoch -= 1
            running.stop(self.device, steps.seconds_input, communicated)
            raise
        trained = time.perf_counter()
        busy = busy_percent(self.device)
        scalars: dict[str, Any] = {
            "epoch": self.epoch,
            "phase": "main" if main_phase else "warmup",
            **losses,
            "lr": self.optimizer.param_groups[-1]["lr"],
        }
        by_label = {k: v.double().tolist() for k, v in self.method.label_records().items()}
        if vdfd := by_label.get("vdfd"):
            scalars["vdfd_mean"] = float(np.nanmean(vdfd)) if np.isfinite(vdfd).any() else None
        running.add_seconds(steps.seconds_input, communicated)
        if main_phase and self.method.uses_held_out:
            scalars["held_out"] = self.scores.num_held_out
        if main_phase and (pseudo := self.method.pseudo_labels()):
            records = pseudo_label_records(pseudo, self._unlabeled_rows, self._audit)
            scalars, by_label = scalars | records[0], by_label | records[1]
        metrics, metrics_by_label = self._evaluate()
        scalars, by_label = scalars | metrics, by_label | metrics_by_label
        if (rule := self._pruning_rule) and (value := scalars.get(rule.metric)) is not None:
            self._objective[self.epoch] = value
            stops = rule.stops(self.epoch, self._objective)
            self.stopped_early = bool(distributed.broadcast_float(float(stops), self.device))
        scalars |= running.columns(steps.samples, time.perf_counter() - trained)
        scalars |= gpu_columns(self.device, busy)
        self.running = None
        return EpochRecord(scalars, by_label)

    # ------------------------------------------------------------------ epochs

    def _steps(self, epoch: int, *, main_phase: bool, first: int = 0) -> EpochSteps:
        common, data = self.config.training, self._steps_data
        views = self._steps_views.with_cutout(common.cutout_of_phase(main_phase=main_phase))
        return EpochSteps(
            common, data, views, self.labels, epoch, main_phase=main_phase, first=first
        )

    def take_steps(self, steps: EpochSteps, *, main_phase: bool) -> dict[str, Any]:
        """Take every step of an epoch that was not taken yet.

        Returns:
            Columns of the history: the mean losses over steps, summed over ranks, and how the network ran.

        Raises:
            TrainingStoppedError: a rank had a request to stop.
        """
        common, running = self.config.training, self.running or RunningEpoch.new(self.device)
        warmup, total = self._warmup_epochs, len(steps)
        phase = PhaseSteps.of(common, warmup, self.epoch, total, main_phase=main_phase)
        losses, first_step = running.losses, running.step
        check = FiniteCheck(self.device, self.epoch, first=first_step)
        compiling = self._compilation.seconds - running.seconds["compile"]
        for number, step in enumerate(steps, first_step):
            if self._vote.decided():
                break
            done = phase.before + number
            set_rates(self.optimizer, common, phase.peak, done, phase.cycle)
            self.model.train()
            here = StepPosition(number - first_step, total - first_step, phase.total - done)
            self._compilation.start_step(here)
            running.fast_steps += self._compilation.is_fast
            with self.precision.autocast():
                if step.unlabeled is None:
                    with forward_of(common.warmup_views, self.model, step.labeled):
                        loss = self.method.labeled_loss(self.model, step.labeled, step.labels)
                else:
                    loss = self.method.semi_supervised_loss(
                        self.model, step.labeled, step.labels, step.unlabeled
                    )
            apply_step(
                loss.total, self._gradients, self.optimizer, self.precision, check, self._vote
            )
            self.average.update()
            losses[0] += loss.labeled.detach()
            if loss.unlabeled is not None:
                losses[1] += loss.unlabeled.detach()
            running.step = number + 1
            if number % _STEPS_BETWEEN_CHECKS == _STEPS_BETWEEN_CHECKS - 1:
                check.raise_if_not()  # so that a failed epoch of hours ends soon
        check.raise_if_not()
        running.seconds["compile"] = self._compilation.seconds - compiling
        if self._vote.decided(all_steps=True):
            raise TrainingStoppedError(f"after step {running.step} of epoch {self.epoch}")
        (sums,) = distributed.all_reduce_sum(losses / len(steps))
        labeled, unlabeled = sums.tolist()
        return {
            "loss": labeled + unlabeled,
            "loss_labeled": labeled,
            "loss_unlabeled": unlabeled if main_phase else None,
            "seconds_compile": running.seconds["compile"],
            "compiled": running.fast_steps / len(steps),
        }

    # -------------------------------------------------------------- evaluation

    def _snapshot(self) -> Snapshot:
        rows = self._labeled_rows, self._unlabeled_rows
        return self.scores.snapshot(rows, self.epoch, self.weight_choice.last_logits)

    def _evaluate(self) -> tuple[dict[str, float], dict[str, list[float]]]:
        """Metrics of the validation samples, as columns of the history and of the label table."""
        if not len(self.data.validation):
            return {}, {}
        logits = self.scores.of_validation()
        labels = self.data.validation_labels.to(self.device)
        metrics, by_label = validation_metrics(logits, labels)
        metrics["map"] = distributed.broadcast_float(metrics["map"], self.device)
        scalars = {f"val_{name}": value for name, value in metrics.items()}
        scalars |= self.weight_choice.after_evaluation(
            self.epoch, metrics["map"], logits, labels, self._kept_now
        )
        return scalars, by_label

    def score(self, inputs: Inputs, rows: np.ndarray) -> Tensor:
        """Logits (N, K) of the averaged model.

        Args:
            inputs: all samples of a part.
            rows: (N,) row indices of the samples to score.
        """
        return self.scores.logits(inputs, rows, self.views)

    # ------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes during training and is equal on all ranks.

        Sample order, views and random generators follow from (seed, epoch, rank) and are not saved; in the
        middle of an epoch, its position is.
        """
        running = {} if self.running is None else {"running": self.running.state_dict(self.method)}
        return running | {
            "epoch": self.epoch,
            **self.weight_choice.state_dict(),
            "objective": self._objective,
            "stopped_early": self.stopped_early,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "method": self.method.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``; training then continues bit-identically on a CPU."""
        self.epoch = state["epoch"]
        self.weight_choice.load_state_dict(state, self.device)
        self._objective, self.stopped_early = dict(state["objective"]), state["stopped_early"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self._start_phase()
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.scaler.load_state_dict(state["scaler"])
        self.method.load_state_dict(state["method"])
        self.running = RunningEpoch.from_state_dict(state.get("running"), self.device)

    def sample_state(self) -> dict[str, SampleState]:
        """State of this rank and of its samples in the method, with their row indices in the pools."""
        return saved_samples(self.method, self._labeled_rows, self._unlabeled_rows, self.running)

    def load_sample_state(self, shards: list[dict[str, SampleState]]) -> None:
        """Restore the state of this rank's samples.

        Args:
            shards: ``sample_state`` of all ranks that saved; their number may differ from the current one.
        """
        if any(len(shard["unlabeled"]["index"]) for shard in shards):
            # In or after an epoch of the main phase, which decides the rank of each sample.
            epoch = self.epoch + (self.running is not None)
            self._unlabeled_rows = self._steps(epoch, main_phase=True).unlabeled_rows
        own = self._labeled_rows, self._unlabeled_rows, self.running
        restore_samples(shards, self.method, *own)
