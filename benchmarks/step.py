"""A training step (loss, masks, averaging, logging, AdamW) compared with the network alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bbam_ray.engine.minibatches import EpochSteps, Step
from bbam_ray.engine.process import keep_freed_memory
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods.method import Minibatch
from benchmarks.epoch import make_trainer, voc_like
from benchmarks.measure import Measured, alternate


class PreparedSteps:
    """Steps of an epoch with views that were made before; replaces ``EpochSteps`` in the trainer.

    Args:
        steps: of an epoch of the main phase.
        count: number of steps to prepare.
    """

    def __init__(self, steps: EpochSteps, count: int) -> None:
        self._steps = [self._prepared(step) for step, _ in zip(steps, range(count), strict=False)]
        self.inputs = [
            torch.cat([s.labeled.view("strong"), s.unlabeled.view("strong")])
            for s in self._steps
            if s.unlabeled is not None
        ]

    @staticmethod
    def _prepared(step: Step) -> Step:
        def fixed(batch: Minibatch) -> Minibatch:
            strong = batch.view("strong")
            return Minibatch(batch.rows, batch.total, lambda kind: strong)

        assert step.unlabeled is not None
        return Step(fixed(step.labeled), step.labels, fixed(step.unlabeled))

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps)


def network_steps(trainer: Trainer, batches: Iterable[Tensor], optimizer: Any) -> None:
    """Forward pass, backward pass and optimizer step for each batch, with the sum of cosines as loss."""
    for inputs in batches:
        trainer.model.train()
        optimizer.zero_grad(set_to_none=True)
        with trainer.precision.autocast():
            _, cosine = trainer.model(inputs)
        cosine.sum().backward()
        optimizer.step()


def run(full: bool) -> list[Measured]:
    """Forty steps if ``full``, else ten, in float32 and in bfloat16."""
    count, measured = 40 if full else 10, []
    keep_freed_memory()
    with voc_like(30 * count + 60) as root:
        for name, amp in (("float32", False), ("bfloat16", True)):
            # The learning rate is almost zero, so that the weights stay the same in all rounds.
            rates = {"learning_rate": 1e-30, "warmup_learning_rate": 1e-30, "weight_decay": 0.0}
            trainer = make_trainer(root, image_size=96, amp_cpu=amp, **rates)
            trainer.run_epoch()
            steps = EpochSteps(
                trainer.config.training,
                trainer.data,
                trainer.views,
                trainer.labels,
                1,
                main_phase=True,
            )
            prepared: Any = PreparedSteps(steps, count)
            optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=1e-30, fused=True)
            timed = alternate(
                partial(network_steps, trainer, prepared.inputs, optimizer),
                partial(trainer.take_steps, prepared, main_phase=True),
                9 if full else 5,
            )
            timed["details"] = {"times_network_alone": 1 / timed["ratio"]}
            case = f"{count} steps of 32 images of 96 px, ResNet-18, {name}"
            measured.append(Measured("step", case, **timed))
    return measured
