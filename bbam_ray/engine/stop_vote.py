"""How all ranks stop at the same step, although only one of them may have got the request."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from bbam_ray import distributed

_LAG = 4  # steps after which a vote is read on a GPU: it has ended by then, so that no step waits


class StopVote:
    """The votes of all ranks for a stop, which travel with the last gradients of each step.

    They need no message of their own. On a CPU they are read in the same step; on a GPU a few steps later,
    at the same step on all ranks. A single process reads its own request only.

    Args:
        requested: whether this rank has a request to stop.
        device: of the training.
    """

    def __init__(self, requested: Callable[[], bool], device: torch.device) -> None:
        self._requested, self._is_gpu = requested, device.type == "cuda"
        self._choices = torch.tensor([[0.0], [1.0]], device=device).unbind()
        self._votes: deque[tuple[Tensor, torch.cuda.Event | None]] = deque()
        self._decided = False

    def own(self) -> Tensor:
        """The vote of this rank in a step: (1,) float32, 1 for a stop."""
        return self._choices[self._requested()]

    def note(self, votes: Tensor) -> None:
        """Remember the sum (1,) of the votes of a step, over all ranks."""
        if not self._is_gpu:
            self._votes.append((votes, None))
            return
        copied = votes.to("cpu", non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._votes.append((copied, event))

    def decided(self, *, all_steps: bool = False) -> bool:
        """Whether training stops now: the same on all ranks.

        Args:
            all_steps: read the votes of all steps so far, for which a GPU is waited for.
        """
        if not distributed.is_active():
            return self._requested()
        while len(self._votes) > (0 if all_steps or not self._is_gpu else _LAG):
            votes, event = self._votes.popleft()
            if event is not None:
                event.synchronize()
            self._decided |= bool(votes)
        return self._decided


def any_rank(requested: bool, device: torch.device) -> bool:
    """Whether any rank has a request to stop; one message between two epochs, none in a single process.

    Args:
        requested: of this rank.
        device: of the training.
    """
    if not distributed.is_active():
        return requested
    (votes,) = distributed.all_reduce_sum(torch.tensor([float(requested)], device=device))
    return bool(votes)
