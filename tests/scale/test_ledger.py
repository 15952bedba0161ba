"""Records of a run under Ray Train reach the driver once and in order, though their actor is killed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bbam_ray.scale.workers.ledger import Ledger


def taken(ledger: Ledger, **confirmed: int) -> list[str]:
    return [f"{writer}{number}" for writer, number in ledger.take(confirmed)]


def test_a_record_is_kept_until_it_is_confirmed() -> None:
    ledger = Ledger()
    assert ledger.put("a", 1, {1: {}}) == (1, 0)
    assert ledger.put("a", 1, {2: {}}) == (2, 0)
    assert taken(ledger) == taken(ledger) == ["a1", "a2"]
    assert taken(ledger, a=1) == ["a2"]
    assert ledger.put("a", 1, {3: {}}) == (3, 1)
    assert taken(ledger, a=3) == []


def test_a_record_that_is_sent_twice_counts_once() -> None:
    ledger = Ledger()
    for _ in range(2):
        assert ledger.put("a", 1, {1: {}, 2: {}}) == (2, 0)
    assert taken(ledger) == ["a1", "a2"]
    assert taken(ledger, a=2) == []
    ledger.put("a", 1, {1: {}, 2: {}})
    assert taken(ledger, a=2) == []


def test_a_record_after_a_gap_is_taken_when_the_gap_is_filled() -> None:
    ledger = Ledger()
    assert ledger.put("a", 3, {5: {}}) == (2, 0)  # 1 and 2 are confirmed, 3 and 4 were lost
    assert taken(ledger) == []
    assert ledger.put("a", 3, {3: {}, 4: {}, 5: {}}) == (5, 0)
    assert taken(ledger, a=2) == ["a3", "a4", "a5"]


def test_workers_that_start_again_have_numbers_of_their_own() -> None:
    ledger = Ledger()
    ledger.put("a", 1, {1: {}})
    ledger.put("b", 1, {1: {}})
    assert taken(ledger, a=1) == ["b1"]


# A writer and a reader with a killed actor in every position relative to a write and a read.
_SCRIPT = """
import json, os, random, signal, sys, threading, time
import ray
from bbam_ray.scale.cluster.connection import connected
from bbam_ray.scale.workers.ledger import LedgerReader, LedgerWriter, new_ledger

def kill(ledger):
    pid = ray.get(ledger.__ray_call__.remote(lambda self: os.getpid()))
    os.kill(pid, signal.SIGKILL)

rng, got, kills, last = random.Random(int(sys.argv[1])), [], 0, 40
with connected("local", dashboard=False):
    ledger = new_ledger()
    writer, reader = LedgerWriter(ledger), LedgerReader(ledger)
    for number in range(last):
        if number == last // 2:  # the workers start again
            waiting = threading.Thread(target=writer.wait)
            waiting.start()
            while waiting.is_alive():
                got += reader.new_records(0.1)
            writer = LedgerWriter(ledger)
        writer.write({"number": number})
        for _ in range(rng.randrange(3)):
            got += reader.new_records(rng.choice((0.0, 5.0)))
        if rng.random() < 0.15:
            kill(ledger)
            kills += 1
    kill(ledger)  # with the last records
    thread = threading.Thread(target=writer.wait)
    thread.start()
    while thread.is_alive():
        got += reader.new_records(0.1)
print("RESULT" + json.dumps([[record["number"] for record in got], kills]))
"""


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_no_record_is_lost_or_doubled_when_the_actor_is_killed() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _SCRIPT, "3"], capture_output=True, text=True, start_new_session=True
    )
    assert ended.returncode == 0, ended.stderr
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("RESULT")]
    numbers, kills = json.loads(line.removeprefix("RESULT"))
    assert numbers == list(range(40))
    assert kills >= 3
