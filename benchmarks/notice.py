"""Seconds from a notice of preemption (SIGTERM) to the complete checkpoint in the middle of an epoch.

    python -m benchmarks.notice [--notices 10] [--write docs/scaling.md]
    python -m benchmarks.notice --table --write docs/scaling.md

Trains batches of 2 + 30 images, and sends SIGTERM to itself at random moments of the first epoch. The
results are in notice.parquet; what is stored is not measured again. Takes some minutes on two CPUs.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from bbam_ray.config import RunConfig
from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.process import use_cpus
from bbam_ray.engine.session import LocalSession, run_epochs
from bbam_ray.engine.stop_request import StopRequest, made_by_signal
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import TrainingStoppedError
from bbam_ray.methods import run_config
from benchmarks.epoch import voc_like
from benchmarks.page import hardware, write_section
from benchmarks.stored_cells import measure_missing, read_cells

STORE = Path(__file__).with_name("notice.parquet")
_IMAGES = 400  # of 224 x 224, so that no epoch ends during a measurement
DIGITS, RESNET = "small network of digits, 24 px", "ResNet-50, 96 px"


@contextmanager
def _run(network: str) -> Iterator[RunConfig]:
    """The configuration of a run without a warm-up; its data exist while the block runs."""
    common: dict[str, Any] = {"device": "cpu", "epochs": 100, "warmup_epochs": 0}
    if network == DIGITS:
        common |= {"dataset": "digits", "scenes": 8000, "labeled_batch": 2, "unlabeled_batch": 30}
        yield run_config(common, "benchmark")
        return
    with voc_like(_IMAGES) as root:
        common |= {"dataset": "voc2012", "data_dir": str(root), "image_size": 96}
        common |= {"backbone": "resnet50", "weights": "none", "labeled_fraction": 0.1}
        common |= {"labeled_batch": 2, "unlabeled_batch": 30, "validation_fraction": 0}
        yield run_config(common, "benchmark")


class TimedSession(LocalSession):
    """A session that sends SIGTERM to this process some steps after the start, and times the writing."""

    def __init__(self, folder: Path, request: StopRequest, after_s: float) -> None:
        super().__init__(folder, lambda record, again: None, requested=self._at_step)
        self._request, self._after_s = request, after_s
        self._steps: list[float] = []
        self.sent_at = self.writing_s = self.notice_s = 0.0

    def _at_step(self) -> bool:
        self._steps.append(time.perf_counter())
        if len(self._steps) == 4:  # the first steps after a start are slower
            threading.Timer(self._after_s, self._send).start()
        return self._request()

    def _send(self) -> None:
        self.sent_at = time.perf_counter()
        os.kill(os.getpid(), signal.SIGTERM)

    @property
    def step_s(self) -> float:
        """Median time between two steps."""
        steps = self._steps[2:]
        return statistics.median(b - a for a, b in pairwise(steps))

    def stopped(self, trainer: Trainer, records: list[Any]) -> None:
        started = time.perf_counter()
        super().stopped(trainer, records)
        self.writing_s = time.perf_counter() - started


def stop(config: RunConfig, data: Any, folder: Path, after_s: float) -> TimedSession:
    """Train from the newest checkpoint until SIGTERM has led to another one.

    Args:
        config: of the run.
        data: of ``prepare_training``.
        folder: of checkpoints.
        after_s: seconds from the fourth step to the signal.
    """
    request = StopRequest()
    session = TimedSession(folder, request, after_s)
    with made_by_signal(request):
        try:
            for _ in run_epochs(Trainer(config, *data), session):
                pass
        except TrainingStoppedError:
            session.notice_s = time.perf_counter() - session.sent_at
    return session


def measure(cell: dict[str, Any], notices: int) -> dict[str, Any]:
    """Stop several times, each time from the same early step of the first epoch.

    Args:
        cell: ``network``.
        notices: number of notices.
    """
    rng, sessions = random.Random(0), []
    with tempfile.TemporaryDirectory() as name, _run(cell["network"]) as config:
        data, first = prepare_training(config), Path(name) / "first"
        stop(config, data, first, 0.0)
        checkpoint = next(checkpoint_folder.newest_first(first))
        size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
        for number in range(notices):
            folder = Path(name) / str(number)
            shutil.copytree(first, folder)
            sessions.append(stop(config, data, folder, rng.uniform(0, 2)))
            shutil.rmtree(folder)
    seconds = [session.notice_s for session in sessions]
    return {
        "notices": notices,
        "median_s": statistics.median(seconds),
        "largest_s": max(seconds),
        "waiting_s": statistics.median(s.notice_s - s.writing_s for s in sessions),
        "largest_waiting_s": max(s.notice_s - s.writing_s for s in sessions),
        "step_s": statistics.median(session.step_s for session in sessions),
        "writing_s": statistics.median(session.writing_s for session in sessions),
        "megabytes": size / 1e6,
        "hardware": hardware(),
    }


def table() -> str:
    """A Markdown table of the stored results."""
    rows = read_cells(STORE)
    lines = [
        "| network | notices | notice to checkpoint: median, largest | "
        "until the step ended: median, largest | a step | writing | checkpoint |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {r['network']} | {r['notices']} | {r['median_s']:.2f} s, {r['largest_s']:.2f} s | "
            f"{r['waiting_s']:.2f} s, {r['largest_waiting_s']:.2f} s | "
            f"{r['step_s']:.3f} s | {r['writing_s']:.2f} s | {r['megabytes']:.1f} MB |"
            for r in rows.to_dict("records")
        ),
    ]
    return "\n".join([*lines, "", *dict.fromkeys(rows["hardware"])])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--notices", type=int, default=10, help="of each network")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if not arguments.table:
        use_cpus(1)
        cells = [{"network": name} for name in (DIGITS, RESNET)]
        measure_missing(STORE, cells, lambda cell: measure(cell, arguments.notices))
    text = table()
    print(text)
    if arguments.write:
        write_section(arguments.write, "notice", text)


if __name__ == "__main__":
    main()
