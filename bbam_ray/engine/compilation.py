"""When training compiles its network or captures it as a CUDA graph: the setting ``compile``."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeVar

from bbam_ray.engine.compile_records import Gain, GainRecords, use_compiler_cache
from bbam_ray.errors import UsageError, brief
from bbam_ray.models.fast_paths import CapturedPath, CompiledPath, FastPath, ShapeRecorder
from bbam_ray.models.network import Network

_log = logging.getLogger(__name__)

_SETTLED = 3  # steps of an epoch before its steps are timed
_TIMED = 20  # steps that are timed, of one epoch
_FEWEST = 5
_LAUNCH_BOUND_S = 0.02  # steps that are shorter may wait for the launches of their kernels
_NOTICEABLE = 0.97  # a path is kept if its steps take at most this share of the time before
_CERTAINTY = 1.5  # the expected saving / the time of compiling


T = TypeVar("T")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class StepPosition:
    """Where a step is.

    Args:
        number: in its epoch, from 0.
        total: steps of the epoch.
        left: steps of this phase of the run from this one on.
    """

    number: int
    total: int
    left: int


Choice = Generator[None, StepPosition, T]


def pays(step_s: float, steps_left: int, gain: Gain) -> bool:
    """Whether compiling saves clearly more time than it takes."""
    return step_s * steps_left * gain.saving > _CERTAINTY * gain.seconds


class Compilation:
    """Chooses the path of a network for one phase of training, while its steps are running.

    ``true`` compiles at the second step, ``false`` never. ``auto`` times the first steps on a GPU. Where
    they may wait for launches it tries a CUDA graph, and it compiles where the steps that are left are
    expected to save more time than that takes. A path that is not faster, or fails, is dropped.

    Args:
        setting: of the run.
        networks: the trained one, and the averaged one, which only evaluates.
        compiled: makes the compiled paths of both for a shape of the trained one's inputs, or for any.
        captured: makes the CUDA graph for a shape; None = not possible.
        records: the gains of compiling for a shape on this machine.
        clock: seconds, after waiting for the device.
        agreed: the answer of rank 0, on all ranks.
    """

    def __init__(
        self,
        setting: Literal["auto", "true", "false"],
        networks: tuple[Network, Network],
        *,
        compiled: Callable[[Shape | None], tuple[CompiledPath, FastPath | None]],
        captured: Callable[[Shape], CapturedPath] | None,
        records: Callable[[Shape | None], GainRecords],
        clock: Callable[[], float] = time.perf_counter,
        agreed: Callable[[bool], bool] = bool,
    ) -> None:
        self._setting, self._networks, self._records = setting, networks, records
        self._compiled, self._captured = compiled, captured
        self._clock, self._agreed = clock, agreed
        #: of capturing and of compiling so far
        self.seconds = 0.0
        self._recorder = ShapeRecorder()
        self._take(None if setting == "false" else self._recorder)
        self._choice = self._choose()
        next(self._choice)

    @property
    def is_fast(self) -> bool:
        """Whether batches of the usual shape take a faster path now."""
        return isinstance(self._networks[0].fast_path, (CapturedPath, CompiledPath))

    def start_step(self, position: StepPosition) -> None:
        """Call before every step.

        Raises:
            UsageError: the setting is `true`, and the compiler fails.
        """
        path = self._networks[0].fast_path
        if isinstance(path, CapturedPath):
            path.start_step()
        with suppress(StopIteration):  # the choice is made
            self._choice.send(position)

    def _take(self, path: FastPath | None, averaged: FastPath | None = None) -> None:
        """Use paths for the trained and the averaged network; None = the plain one."""
        self._networks[0].fast_path, self._networks[1].fast_path = path, averaged

    def _choose(self) -> Choice[None]:
        yield  # the first step
        if self._setting == "true":
            yield  # the second, when a shape is known
            yield from self._compile(self._recorder.usual)
        if self._setting != "auto":
            return
        seconds, left = yield from self._timed()
        shape = self._recorder.usual
        self._take(None)
        if self._captured is not None and shape is not None and seconds < _LAUNCH_BOUND_S:
            if self._capture(self._captured, shape):
                graph_s, left = yield from self._timed()
                if graph_s <= _NOTICEABLE * seconds:
                    return
            self._take(None)
        records = self._records(shape)
        if self._agreed(pays(seconds, left, records.read() or Gain())):
            saving, before = 0.0, self.seconds
            if self._agreed((yield from self._compile(shape))):
                compiled_s, _ = yield from self._timed()
                saving = 1 - compiled_s / seconds
                if not self._agreed(compiled_s <= _NOTICEABLE * seconds):
                    self._take(None)
            records.write(Gain(self.seconds - before, saving))

    def _timed(self) -> Choice[tuple[float, int]]:
        """Seconds per step over steps of one epoch, and the number of steps that are left then."""
        start, first = 0.0, -1
        while True:
            position = yield
            number = position.number
            if number == 0:
                first = -1
            if first < 0 and number >= _SETTLED:
                start, first = self._clock(), number
            steps = number - first
            is_last = steps == _TIMED or number == position.total - 1
            if first >= 0 and steps >= _FEWEST and is_last:
                return (self._clock() - start) / steps, position.left

    def _capture(self, captured: Callable[[Shape], CapturedPath], shape: Shape) -> bool:
        """Capture the network; whether it worked."""
        started = self._clock()
        try:
            self._take(captured(shape))
        except RuntimeError as error:  # an operation that a graph cannot contain
            _log.info("no CUDA graph for this network (%s)", brief(error, 200))
        self.seconds += self._clock() - started
        return self.is_fast

    def _compile(self, shape: Shape | None) -> Choice[bool]:
        """Compile the network in the next step with inputs of the shape; whether it worked."""
        use_compiler_cache()
        path, averaged = self._compiled(shape)
        self._take(path, averaged)
        while True not in path.ready:
            yield
        self.seconds += path.seconds
        if path.failure is None:
            return True
        self._take(None)
        reason = f"torch.compile fails for this network ({brief(path.failure, 200)})"
        if self._setting == "true":
            raise UsageError(f"{reason}; use --set compile=false")
        _log.warning("%s; training continues without it", reason)
        return False
