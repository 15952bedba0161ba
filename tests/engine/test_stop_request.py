"""A request to stop is made once, by a signal or a thread; votes of ranks are read in order."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import torch

from bbam_ray.engine.stop_request import StopRequest, made_by_signal, never
from bbam_ray.engine.stop_vote import StopVote, any_rank

CPU = torch.device("cpu")


def test_the_time_counts_from_the_first_request() -> None:
    request = StopRequest()
    assert not request() and request.seconds == 0
    request.make()
    first = request.seconds
    request.make()
    assert request() and request.seconds >= first >= 0


def test_the_first_signal_makes_the_request_and_the_second_interrupts() -> None:
    before, request = signal.getsignal(signal.SIGTERM), StopRequest()
    with pytest.raises(KeyboardInterrupt), made_by_signal(request):
        os.kill(os.getpid(), signal.SIGTERM)
        assert request()
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_another_thread_has_no_handler() -> None:
    before, request, ran = signal.getsignal(signal.SIGTERM), StopRequest(), []

    def run() -> None:
        with made_by_signal(request):
            ran.append(signal.getsignal(signal.SIGTERM) == before)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert ran == [True]


def test_a_single_process_reads_its_own_request() -> None:
    requests: list[bool] = []
    vote = StopVote(lambda: bool(requests), CPU)
    vote.note(torch.ones(1))  # of a group that there is not
    assert not vote.decided() and vote.own().tolist() == [0.0]
    requests.append(True)
    assert vote.decided() and vote.own().tolist() == [1.0]
    assert any_rank(True, CPU) and not any_rank(never(), CPU)
