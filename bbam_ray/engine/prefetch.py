"""Reading the samples of the next steps while this one trains, and copying them beside it to the GPU."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
_AHEAD = 2  # items that are ready before they are needed
#: held while a thread starts copies; no other thread may use a GPU while a CUDA graph is captured
COPYING = threading.Lock()


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def in_background(items: Iterable[T], ahead: int = _AHEAD) -> Generator[T]:
    """The same items in the same order, computed by one thread a few steps ahead.

    An error in the thread is raised where its item would have come. If the consumer stops early, the
    thread ends with the item that it is computing.

    Args:
        items: iterated in the thread alone.
        ahead: most items that wait; one more may be in work.
    """
    ready: queue.Queue[T | _Failure | None] = queue.Queue(ahead)
    stopped = threading.Event()

    def put(item: T | _Failure | None) -> bool:
        """Whether the consumer still listens."""
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:  # raised in the consumer
            put(_Failure(error))
        else:
            put(None)

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        stopped.set()
        thread.join()


class Copies:
    """Copies tensors to a device, on a GPU from pinned memory and on a stream of its own.

    Args:
        device: the target.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def start(self, *tensors: Tensor) -> Callable[[], tuple[Tensor, ...]]:
        """Start to copy; called in any thread.

        Args:
            tensors: in the memory of the host.

        Returns:
            A function that returns the copies, for the thread that computes with them: its stream waits
            for the copies, the host does not.
        """
        if self._stream is None:
            copies = tuple(tensor.to(self._device) for tensor in tensors)
            return lambda: copies
        with COPYING, torch.cuda.stream(self._stream):
            pinned = [tensor.pin_memory() for tensor in tensors]
            copies = tuple(tensor.to(self._device, non_blocking=True) for tensor in pinned)
            done = torch.cuda.Event()
            done.record(self._stream)

        def ready() -> tuple[Tensor, ...]:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(done)
            for copy in copies:
                copy.record_stream(
                    current
                )  # its memory is not reused before this stream is done with it
            return copies

        return ready
