"""A whole training step (loss, masks, averaging, logging, AdamW) beside the network's bare passes."""

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
from benchmarks.measure import Measured, in_turn


class PreparedSteps:
    """Steps of an epoch whose views have been made before; the trainer takes them for its own.

    Args:
        steps: of an epoch of the main phase.
        count: how many of them.
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
            made = batch.view("strong")
            return Minibatch(batch.rows, batch.total, lambda kind: made)

        assert step.unlabeled is not None
        return Step(fixed(step.labeled), step.labels, fixed(step.unlabeled))

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps)


def bare_steps(trainer: Trainer, batches: Iterable[Tensor], optimizer: Any) -> None:
    """Forward, backward and an optimizer's step for each batch, with the sum of all cosines as loss."""
    for inputs in batches:
        trainer.model.train()
        optimizer.zero_grad(set_to_none=True)
        with trainer.precision.autocast():
            _, cosine = trainer.model(inputs)
        cosine.sum().backward()
        optimizer.step()


def run(full: bool) -> list[Measured]:
    """Ten steps, or forty, in float32 and in bfloat16."""
    count, found = 40 if full else 10, []
    keep_freed_memory()
    with voc_like(30 * count + 60) as root:
        for name, amp in (("float32", False), ("bfloat16", True)):
            # A rate of next to nothing, so that both go on from the same weights for ever.
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
            bare = torch.optim.AdamW(trainer.model.parameters(), lr=1e-30, fused=True)
            timed = in_turn(
                partial(bare_steps, trainer, prepared.inputs, bare),
                partial(trainer.take_steps, prepared, main_phase=True),
                9 if full else 5,
            )
            timed["figures"] = {"times_bare": 1 / timed["ratio"]}
            case = f"{count} steps of 32 images of 96 px, ResNet-18, {name}"
            found.append(Measured("step", case, **timed))
    return found
