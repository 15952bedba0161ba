"""What a study does about workers that cannot start: it reports each cause once, and stops repeating."""

from __future__ import annotations

from bbam_ray.errors import StartError
from bbam_ray.scale.study.events import Listener, NotStarted


class StartFailures:
    """Failed starts of this run of a study.

    Args:
        listener: gets a sentence for each cause.
        max_failures: how often a lost worker is replaced; -1 = always.

    Attributes:
        trained: whether a worker has trained in this run, so that workers can start at all.
    """

    def __init__(self, listener: Listener, max_failures: int) -> None:
        self._listener, self._max_failures = listener, max_failures
        self._causes: set[str] = set()
        self._deaths: dict[int, int] = {}
        self.trained = False

    def report(self, what: str, failure: StartError) -> None:
        """Tell the listener, unless it knows this cause.

        Args:
            what: the trial or the job that failed.
            failure: its reason.
        """
        if failure.cause not in self._causes:
            self._causes.add(failure.cause)
            self._listener(NotStarted(what, failure))

    def starts_again(self, number: int) -> bool:
        """Whether to start a trial again whose process died while it started, without a Python error.

        It may have been killed. Before any worker has trained, a second death ends the trial.
        """
        self._deaths[number] = deaths = self._deaths.get(number, 0) + 1
        most = self._max_failures
        if most != 0 and not self.trained:
            most = 1
        return most < 0 or deaths <= most
