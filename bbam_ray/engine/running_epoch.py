"""An epoch that has begun: its position, and the sums behind its record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.methods.method import Method

#: seconds of an epoch, as columns of the history
PARTS = ("refresh", "train", "input", "communicate", "compile")
_LOSSES = "losses"


def _no_seconds() -> dict[str, float]:
    return dict.fromkeys(PARTS, 0.0)


@dataclass
class RunningEpoch:
    """What an epoch has done so far on this rank.

    Args:
        losses: (2,) float32, sums over steps of the labelled and the unlabelled loss, this rank's shares.
        step: steps that were taken.
        fast_steps: those on a faster path of the network.
        seconds: spent by part of the epoch, over all processes that worked on it one after the other.
        generators: states of torch's global generators (of dropout) between two steps, by device; empty
            for an epoch that did not stop.
        method: what the method needs until its next refresh, equal on all ranks; see
            ``Method.epoch_state``.
    """

    losses: Tensor
    step: int = 0
    fast_steps: int = 0
    seconds: dict[str, float] = field(default_factory=_no_seconds)
    generators: dict[str, Tensor] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def new(cls, device: torch.device) -> RunningEpoch:
        """An epoch before its first step."""
        return cls(torch.zeros(2, device=device))

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time of a block to a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - started

    def add_seconds(self, seconds_input: float, communicated_before: float) -> None:
        """Add the times that are measured elsewhere.

        Args:
            seconds_input: of the steps of this process.
            communicated_before: ``distributed.seconds_spent()`` when this process started with the epoch.
        """
        self.seconds["input"] += seconds_input
        self.seconds["communicate"] += distributed.seconds_spent() - communicated_before

    def columns(self, samples: int, seconds_evaluate: float) -> dict[str, float]:
        """Columns of the history.

        Args:
            samples: of all steps and ranks.
            seconds_evaluate: for the evaluation after the steps.
        """
        spent = self.seconds
        return {
            "seconds_refresh": spent["refresh"],
            "seconds_train": spent["train"],
            "seconds_evaluate": seconds_evaluate,
            "seconds_input": spent["input"],
            "seconds_communicate": spent["communicate"],
            "images_per_second": samples / spent["train"],
        }

    def stop(self, device: torch.device, seconds_input: float, communicated_before: float) -> None:
        """Remember the states of the generators, and add times as ``add_seconds`` does."""
        self.add_seconds(seconds_input, communicated_before)
        self.generators = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            self.generators["cuda"] = torch.cuda.get_rng_state(device)

    def resume(self, device: torch.device) -> None:
        """Set the generators to the states at the stop, if there was one."""
        if self.generators:
            torch.set_rng_state(self.generators["cpu"])
        if "cuda" in self.generators and device.type == "cuda":
            torch.cuda.set_rng_state(self.generators["cuda"], device)

    def state_dict(self, method: Method[Any]) -> dict[str, Any]:
        """For a checkpoint: what is equal on all ranks, and the times of this one."""
        return {
            "step": self.step,
            "fast_steps": self.fast_steps,
            "seconds": self.seconds,
            "method": method.epoch_state()[0],
        }

    @classmethod
    def from_state_dict(
        cls, state: dict[str, Any] | None, device: torch.device
    ) -> RunningEpoch | None:
        """Restore ``state_dict``; None = no epoch was running."""
        return None if state is None else cls(torch.zeros(2, device=device), **state)

    def rank_state(self) -> dict[str, Tensor]:
        """For a checkpoint: what belongs to this rank."""
        return {_LOSSES: self.losses, **self.generators}

    def load_rank_states(self, states: list[dict[str, Tensor]]) -> None:
        """Restore ``rank_state`` of all ranks that saved.

        If their number differs from the current one, sums of losses are divided in another way, and a rank
        that has no predecessor keeps the generators with which its epoch began.
        """
        rank, world_size = distributed.rank(), distributed.world_size()
        for state in states[rank::world_size]:
            self.losses += state[_LOSSES].to(self.losses.device)
        if rank < len(states):
            self.generators = {n: t for n, t in states[rank].items() if n != _LOSSES}
