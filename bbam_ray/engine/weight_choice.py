"""Which weights a run keeps: those of its last epoch or earlier ones, by the setting ``keep``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.engine.kept_weights import KeptWeights, is_harmful, share_of_changed_decisions


class WeightChoice:
    """Follows the scores of the validation samples over the epochs of a run; equal on all ranks.

    Args:
        rule: ``TrainingConfig.keep_rule``: "last", "phase" or "best".
        epochs: of the whole run.
        warmup_epochs: of them, before the main phase.
        has_main_phase: false for a supervised method.

    Attributes:
        fallback: weights that may be better than those of the last epoch.
        harmful: the main phase has lowered val_map and must end.
        last_map: val_map of the last epoch.
        last_logits: (N_v, K) scores at the last epoch; empty before the first evaluation.
    """

    def __init__(self, rule: str, epochs: int, warmup_epochs: int, *, has_main_phase: bool) -> None:
        self._rule, self._epochs, self._warmup_epochs = rule, epochs, warmup_epochs
        self._has_main_phase = has_main_phase
        self.fallback: KeptWeights | None = None
        self.harmful = False
        self.last_map, self.last_logits = float("-inf"), torch.empty(0, 0)

    def best_epoch(self, epoch: int) -> int:
        """The epoch whose weights are kept if training ends after ``epoch``."""
        fallback = self.fallback
        if fallback is None or fallback.value < self.last_map:
            return epoch
        # The first of equally good epochs, but the main phase if it is as good as the warm-up.
        is_better = fallback.value > self.last_map or self._rule == "best"
        return fallback.epoch if is_better else epoch

    def after_evaluation(
        self,
        epoch: int,
        value: float,
        logits: Tensor,
        labels: Tensor,
        weights: Callable[[], KeptWeights],
    ) -> dict[str, float]:
        """Store weights that may be kept, and find out whether the main phase does harm.

        Args:
            epoch: that was evaluated, from 1.
            value: its val_map.
            logits, labels: (N_v, K) of all validation samples.
            weights: those of the epoch, copied when called.

        Returns:
            The column ``flipped`` of the history, in a main phase that is compared with its warm-up.
        """
        self.last_map, self.last_logits = value, logits
        in_warmup_end = epoch == self._warmup_epochs and self._has_main_phase
        best = self.fallback.value if self.fallback else float("-inf")
        if (self._rule == "phase" and in_warmup_end) or (self._rule == "best" and value > best):
            self.fallback = weights()
        if self._rule != "phase" or self.fallback is None:
            return {}
        main, done = self._epochs - self._warmup_epochs, epoch - self._warmup_epochs
        if done >= max(1, main / 2):
            harm = is_harmful(self.fallback.logits, logits, labels)
            self.harmful = bool(distributed.broadcast_float(float(harm), logits.device))
        if done < 1:
            return {}
        return {"flipped": share_of_changed_decisions(self.fallback.logits, logits, labels)}

    def forget_scores(self) -> None:
        """The average starts again, so the scores of the last epoch are not its own."""
        self.last_logits = torch.empty(0, 0)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "fallback": self.fallback and self.fallback.state_dict(),
            "harmful": self.harmful,
            "last_map": self.last_map,
            "last_logits": self.last_logits,
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore ``state_dict``; other keys are ignored."""
        stored = state["fallback"]
        self.fallback = None if stored is None else KeptWeights.from_state_dict(stored, device)
        self.harmful, self.last_map = state["harmful"], state["last_map"]
        self.last_logits = state["last_logits"].to(device)
