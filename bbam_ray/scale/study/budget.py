"""The budget of a search: time, GPU-hours, money. A part is reserved for the confirmation."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ray.tune import Stopper

from bbam_ray.scale.study.plan import Limits


@dataclass
class Use:
    """What earlier runs of a study have used.

    Args:
        gpu_hours: of trials and confirmations.
        trials: that were trained to their end.
        trial_hours: GPU-hours of these trials.
    """

    gpu_hours: float = 0.0
    trials: int = 0
    trial_hours: float = 0.0


class Budget(Stopper):
    """Counts what trials use; Tune stops all of them when a limit is exceeded.

    A trial starts only if the budget is enough for it, the running trials and the confirmation, at the
    mean GPU-hours of the complete trials. Trials that start can therefore usually end. The time limit
    works differently: it stops trials where they are.

    Args:
        limits: of the study.
        gpus: that a trial holds.
        before: what earlier runs used.
        confirmations: runs that follow the search.
    """

    def __init__(self, limits: Limits, gpus: float, before: Use, confirmations: int) -> None:
        self.limits, self._gpus, self._confirmations = limits, gpus, confirmations
        self._use, self._began = before, time.monotonic()
        self._running: dict[int, float] = {}
        self.reached = False

    def __getstate__(self) -> dict[str, object]:
        """Tune pickles its stopper for a restore that this project does not use."""
        return {}

    def started(self, number: int) -> None:
        self._running.setdefault(number, time.monotonic())

    def ended(self, number: int, seconds: float, *, complete: bool) -> float:
        """Count a trial that has ended.

        Args:
            number: of the trial.
            seconds: that it took.
            complete: whether it was trained to its end.

        Returns:
            Its GPU-hours.
        """
        self._running.pop(number, None)
        hours = seconds / 3600 * self._gpus
        self._use.gpu_hours += hours
        if complete:
            self._use.trial_hours += hours
            self._use.trials += 1
        return hours

    @property
    def unfinished_hours(self) -> float:
        """GPU-hours of the running trials; they are lost if the search ends now."""
        now = time.monotonic()
        return sum(now - began for began in self._running.values()) / 3600 * self._gpus

    @property
    def gpu_hours(self) -> float:
        """Used so far, by running trials too, in hours."""
        return self._use.gpu_hours + self.unfinished_hours

    @property
    def seconds(self) -> float:
        """Since the start of this run of the search."""
        return time.monotonic() - self._began

    def may_start(self, running: int) -> bool:
        """Whether one more trial may start.

        Args:
            running: how many trials run.
        """
        limit = self.limits.total_gpu_hours
        mean = self._use.trial_hours / max(1, self._use.trials)
        needed = mean * (running + 1 + self._confirmations)
        fits = limit is None or self._use.gpu_hours + needed <= limit
        self.reached |= not fits or self.over()
        return not self.reached

    def over(self) -> bool:
        """Whether a limit is exceeded."""
        limit, seconds = self.limits.total_gpu_hours, self.limits.seconds
        late = seconds is not None and self.seconds > seconds
        return late or (limit is not None and self.gpu_hours > limit)

    def stop_all(self) -> bool:
        """Whether Tune must stop all trials; Tune calls it in every step."""
        over = self.over()
        self.reached |= over
        return over

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
        """Whether Tune must stop a single trial: never, since the budget is shared by all."""
        return False

    def left(self) -> str:
        """What is left of each limit, as text for people; empty without limits."""
        limits, parts = self.limits, []
        if limits.seconds is not None:
            rest = max(0.0, limits.seconds - self.seconds)
            parts.append(f"{rest / 60:.1f} of {limits.seconds / 60:g} min")
        if limits.gpu_hours is not None:
            rest = max(0.0, limits.gpu_hours - self.gpu_hours)
            parts.append(f"{rest:.2f} of {limits.gpu_hours:g} GPU-hours")
        if limits.cost is not None and limits.price is not None:
            rest = max(0.0, limits.cost - self.gpu_hours * limits.price)
            parts.append(f"{rest:.2f} of {limits.cost:g} (money)")
        return ", ".join(parts)
