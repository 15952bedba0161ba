"""Operations of a training step: on a GPU each is a launch, and small networks wait for nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from bbam_ray.engine.minibatches import EpochSteps
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import run_config

# They change the shape of a tensor, or make one without content, and launch nothing.
FREE = {"view", "reshape", "transpose", "t", "permute", "expand", "detach", "alias", "unsqueeze"}
FREE |= {"squeeze", "slice", "select", "split", "split_with_sizes", "as_strided", "empty_like"}
FREE |= {"empty", "empty_strided", "unbind", "_unsafe_view", "_reshape_alias", "new_empty"}
FREE |= {"lift_fresh", "new_empty_strided", "is_pinned", "narrow", "diagonal"}


class Operations(TorchDispatchMode):
    """Counts operations that compute something."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ not in FREE
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def steps() -> dict[str, float]:
    """Operations per step of the two phases of bbam on digits."""
    settings = {"dataset": "digits", "scenes": 400, "labeled_fraction": 0.3, "device": "cpu"}
    config = run_config({**settings, "epochs": 2, "warmup_epochs": 1}, "test")
    trainer = Trainer(config, *prepare_training(config))
    counts: dict[str, float] = {}
    take_steps = Trainer.take_steps

    def counted(trainer: Trainer, steps: EpochSteps, *, main_phase: bool) -> dict[str, Any]:
        with Operations() as operations:
            losses = take_steps(trainer, steps, main_phase=main_phase)
        counts["main" if main_phase else "warmup"] = operations.count / len(steps)
        return losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "take_steps", counted)
        while not trainer.finished:
            trainer.run_epoch()
    return counts


@pytest.mark.parametrize(("phase", "most"), [("warmup", 245), ("main", 315)])
def test_a_step_launches_few_operations(phase: str, most: int, steps: dict[str, float]) -> None:
    """The balance map, which is the same in all steps of an epoch, alone would add 37 in each."""
    assert 150 < steps[phase] < most
