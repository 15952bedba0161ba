"""The steps of a phase of training, on which the schedule of the learning rate depends."""

from __future__ import annotations

from dataclasses import dataclass

from bbam_ray.config import TrainingConfig


@dataclass(frozen=True)
class PhaseSteps:
    """Where an epoch is in its phase.

    Args:
        peak: highest learning rate.
        before: steps of the phase before this epoch.
        total: steps of the phase.
        cycle: steps of a cycle of the learning rate.
    """

    peak: float
    before: int
    total: int
    cycle: int

    @classmethod
    def of(
        cls,
        common: TrainingConfig,
        warmup_epochs: int,
        epoch: int,
        steps: int,
        *,
        main_phase: bool,
    ) -> PhaseSteps:
        """Those of the phase of an epoch.

        Args:
            common: of the run.
            warmup_epochs: of the run with its method.
            epoch: from 1.
            steps: of each epoch of the phase.
            main_phase: whether the epoch belongs to it.
        """
        if not main_phase:
            total = warmup_epochs * steps
            return cls(common.warmup_learning_rate, (epoch - 1) * steps, total, total)
        epochs, before = common.epochs - warmup_epochs, (epoch - 1 - warmup_epochs) * steps
        cycle = (common.cycle_epochs or epochs) * steps
        return cls(common.learning_rate, before, epochs * steps, cycle)
