"""The records of a run under Ray Train, on their way from rank 0 to the driver, and requests to stop back.

An actor on the driver's node holds them, since workers cannot call the driver. Ray replaces it when its
process dies. What it held is lost then, so rank 0 keeps each record until the driver has confirmed it,
and sends it again if the actor lacks it. Records are numbered, so that none counts twice.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

import ray

from bbam_ray.scale.cluster.connection import on_this_node

Record = dict[str, Any]
#: number of the last record by writer; each start of the workers has a writer of its own
Numbers = dict[str, int]
_POLL_SECONDS = 0.1


class Ledger:
    """The actor: the records that the driver has not confirmed, and its request to stop."""

    def __init__(self) -> None:
        self._stops = False
        self._records: dict[tuple[str, int], Record] = {}
        self._last, self._confirmed = Numbers(), Numbers()

    def put(self, writer: str, first: int, records: dict[int, Record]) -> tuple[int, int]:
        """Add records of a writer; one that follows a gap is not taken, so that the order is kept.

        Args:
            writer: its name.
            first: number of its first record that it does not know to be confirmed.
            records: by number, in order.

        Returns:
            Numbers of the writer's last record that arrived here, and of its last confirmed one.
        """
        last = max(self._last.get(writer, 0), first - 1)
        for number, record in records.items():
            if number == last + 1:
                self._records[writer, number] = record
                last = number
        self._last[writer] = last
        return last, self._confirmed.get(writer, 0)

    def take(self, confirmed: Numbers) -> dict[tuple[str, int], Record]:
        """All records after the confirmed ones, in their order; the confirmed ones are forgotten."""
        self._confirmed = confirmed
        self._records = {
            (writer, number): record
            for (writer, number), record in self._records.items()
            if number > confirmed.get(writer, 0)
        }
        return self._records

    def request_stop(self) -> None:
        """The driver wants the workers to stop."""
        self._stops = True

    def stop_requested(self) -> bool:
        return self._stops


def new_ledger() -> Any:
    """Start the actor on the driver's node; Ray replaces it when its process dies."""
    restart = {"max_restarts": -1, "max_task_retries": -1}
    return ray.remote(num_cpus=0, scheduling_strategy=on_this_node(), **restart)(Ledger).remote()


class LedgerWriter:
    """The side of rank 0.

    Args:
        ledger: the actor.
    """

    def __init__(self, ledger: Any) -> None:
        self._ledger, self._name, self._newest = ledger, uuid.uuid4().hex, 0
        self._unconfirmed: dict[int, Record] = {}

    def write(self, record: Record) -> None:
        """Send a record; returns when the ledger has it and all before it."""
        self._newest += 1
        self._unconfirmed[self._newest] = record
        self._send({self._newest: record})

    def wait(self) -> None:
        """Return when the driver has confirmed all records."""
        while self._unconfirmed:
            self._send({})
            time.sleep(_POLL_SECONDS)

    def _send(self, records: dict[int, Record]) -> None:
        """Send records, and those that the ledger has lost with its process."""
        first = min(self._unconfirmed)
        last, confirmed = ray.get(self._ledger.put.remote(self._name, first, records))
        while last < self._newest:
            put = self._ledger.put.remote(self._name, first, self._unconfirmed)
            last, confirmed = ray.get(put)
        self._unconfirmed = {n: r for n, r in self._unconfirmed.items() if n > confirmed}


class LedgerReader:
    """The side of the driver.

    Args:
        ledger: the actor.
    """

    def __init__(self, ledger: Any) -> None:
        self._ledger = ledger
        self._processed = Numbers()
        self._reply: ray.ObjectRef[dict[tuple[str, int], Record]] | None = None

    def new_records(self, wait_s: float) -> list[Record]:
        """The records since the last call, each once and in order; the next call confirms them.

        Args:
            wait_s: how long to wait for the ledger, which may be replaced just now.
        """
        if self._reply is None:
            self._reply = self._ledger.take.remote(self._processed)
        if not ray.wait([self._reply], timeout=wait_s)[0]:
            return []
        reply, self._reply = self._reply, None
        records = ray.get(reply)
        self._processed = self._processed | dict(records.keys())
        return list(records.values())

    def request_stop(self) -> None:
        """Ask the workers to stop; called again and again, since the ledger may be replaced."""
        self._ledger.request_stop.options(max_task_retries=0).remote()
