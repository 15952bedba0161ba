"""Disturb small studies in every way we can think of, and count what is lost; fuzz the readers; run long.

    python -m stress.chaos [--faults 120] [--cases 10000] [--minutes 30] [--seed 0] [--at-once 2]
                               [--kinds WORDS] [--store FILE] [--write stress/README.md]
    python -m stress.chaos --table [--write stress/README.md]

Needs two CPUs and about an hour and a half, and the right to mount a file system (without it, the
disturbances of disks are left out, and the table says so).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

from bbam_ray.errors import UsageError
from benchmarks.page import write_section
from stress import fuzz, soak
from stress.disturbed import LIMIT_S, Disturbed
from stress.faults import DISKS, KILLS, TEARS, TEARS_AFTERWARDS, Fault, small_disk
from stress.nodes import Nodes
from stress.stored_study import BrokenPromiseError, LostError
from stress.trust import STORE, keep, table

LATEST_S = 3.0  # after an epoch
_TOGETHER = 3  # disturbances of one study, one after the other


@dataclass
class Tally:
    """What came of one kind of disturbance; ``ended_badly`` is what no other column names."""

    injected: int = 0
    nothing_to_hit: int = 0
    left_out: int = 0
    lost_or_doubled: int = 0
    unreadable: int = 0
    other_figures: int = 0
    ended_badly: int = 0
    slowest_s: float = 0.0

    def faultless(self) -> bool:
        bad = self.lost_or_doubled + self.unreadable + self.other_figures + self.ended_badly
        return bad == 0


@dataclass
class Chaos:
    """All stories of one run of the harness.

    Args:
        place: an empty folder.
        seed: of moments, victims and offsets.
        settings: of all studies, beside their own: ``name=value``.
    """

    place: Path
    seed: int
    settings: Sequence[str] = ()
    tallies: dict[str, Tally] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng, self._numbers, self._lock = random.Random(self.seed), count(1), Lock()
        self._calm: dict[tuple[str, int], Disturbed] = {}
        self._studies: list[Disturbed] = []

    def calm(self, command: str, workers: int) -> Disturbed:
        """The study that is left alone."""
        key = command, workers
        if key not in self._calm:
            study = Disturbed(
                self.place / f"calm-{command}-{workers}", command, self._flags(workers)
            )
            study.start()
            if study.to_end() or study.lost_or_doubled():
                raise BrokenPromiseError(
                    f"the study that is left alone has failed:\n{study.output}"
                )
            study.check_end()
            self._calm[key] = study
        return self._calm[key]

    def story(self, faults: Sequence[Fault]) -> None:
        """One study, and what happens to it while it runs."""
        place, results = self._place(), None
        with ExitStack() as stack:
            if any(fault.disk for fault in faults):
                try:
                    results = stack.enter_context(small_disk(place / "disk")) / "results"
                except OSError as error:
                    of_disk = [fault for fault in faults if fault.disk]
                    print(f"left out: {', '.join(f.name for f in of_disk)} ({error})", flush=True)
                    with self._lock:
                        for fault in of_disk:
                            self.tallies.setdefault(fault.name, Tally()).left_out += 1
                    faults = [fault for fault in faults if not fault.disk]
            if not faults:
                return
            first = faults[0]
            study = Disturbed(place, first.command, self._flags(first.workers), results)
            stack.callback(study.close)
            self._tell(study, faults, lambda: self._disturb(study, faults))

    def afterwards(self, fault: Fault) -> None:
        """A study that has ended, whose files are torn and which is asked to go on."""
        study = Disturbed(self._place(), "tune", self._flags(1))
        shutil.copytree(self.calm("tune", 1).results, study.results)

        def disturb() -> Iterator[tuple[Fault, bool]]:
            yield fault, fault.strike(study, self._rng)

        self._tell(study, [fault], disturb)

    def lost_node(self, times: int) -> None:
        """A study on a cluster whose nodes die and are replaced."""
        with Nodes() as nodes:
            fault = Fault("node killed", lambda study, rng: nodes.replace_one())
            variables = {"RAY_ADDRESS": nodes.address, "RAY_AUTH_MODE": "disabled"}
            flags = [*self._flags(1), "--address", "auto"]
            study = Disturbed(self._place(), "tune", flags, variables=variables)
            self._tell(study, [fault] * times, lambda: self._disturb(study, [fault] * times))
            study.close()

    # --------------------------------------------------------------------------------

    def _place(self) -> Path:
        return self.place / f"{next(self._numbers):03d}"

    def _flags(self, workers: int) -> list[str]:
        sets = [word for setting in self.settings for word in ("--set", setting)]
        return ["--workers", str(workers), *sets]

    def _disturb(self, study: Disturbed, faults: Sequence[Fault]) -> Iterator[tuple[Fault, bool]]:
        for fault in faults:
            if not study.running:
                if study.process is not None and study.process.returncode == 0:
                    yield fault, False  # it has ended meanwhile
                    continue
                study.start()
            study.until_training()
            study.wait(self._rng.uniform(0, LATEST_S))
            hit = study.running and fault.strike(study, self._rng)
            yield fault, hit
            if not study.running and study.returncode not in (0, fault.ends):
                raise BrokenPromiseError(f"exit code {study.returncode} after '{fault.name}'")

    def _tell(self, study: Disturbed, faults: Sequence[Fault], disturb: Any) -> None:
        """Let it happen, let the study end, and count what came of it."""
        story, mine = [], {fault.name for fault in faults}
        found = Tally()
        with self._lock:
            self._studies.append(study)
            for name in mine:
                self.tallies.setdefault(name, Tally())
        try:
            for fault, hit in disturb():
                with self._lock:
                    self.tallies[fault.name].injected += hit
                    self.tallies[fault.name].nothing_to_hit += not hit
                story.append(fault.name if hit else f"({fault.name})")
            if not study.running and study.returncode != 0:  # ended by what it may be ended by
                study.start()
            if code := study.to_end():
                raise BrokenPromiseError(f"exit code {code} in the end")
            study.check_end()
            exact = faults[0].workers == 1
            calm = self.calm(study.command, faults[0].workers)
            found.lost_or_doubled = study.lost_or_doubled()
            found.other_figures = study.other_figures(calm, exact=exact)
        except LostError as error:
            found.lost_or_doubled += 1
            print(f"{study.folder}: {error}\n{study.output[-3000:]}", flush=True)
        except (BrokenPromiseError, UsageError, OSError) as error:
            found.ended_badly += not study.unreadable
            print(f"{study.folder}: {error}\n{study.output[-3000:]}", flush=True)
        with self._lock:
            for name in mine:
                tally = self.tallies[name]
                tally.lost_or_doubled += found.lost_or_doubled
                tally.other_figures += found.other_figures
                tally.ended_badly += found.ended_badly
                tally.unreadable += study.unreadable
                tally.slowest_s = max(tally.slowest_s, study.slowest_s)
        print(
            f"{study.place.name}: {', '.join(story)}; {found.lost_or_doubled} lost or doubled, "
            f"{found.other_figures} other",
            flush=True,
        )

    def finish(self) -> None:
        """No process outlives its study."""
        alive = [process for study in self._studies for process in study.left_behind()]
        if alive:
            print(f"processes that nobody ended: {alive}", flush=True)
            self.tallies.setdefault("processes left behind", Tally()).ended_badly += len(alive)


def stories(faults: int, seed: int, words: str = "") -> list[list[Fault]]:
    """So many disturbances of every kind that has the words, in stories of a few of one sort of study."""
    rng = random.Random(seed)
    kinds = [fault for fault in (*KILLS, *TEARS, *DISKS) if words in fault.name]
    if not kinds:
        raise UsageError(f"--kinds '{words}': no disturbance of a running study has these words")
    wanted = [kinds[place % len(kinds)] for place in range(faults)]
    rng.shuffle(wanted)
    found: list[list[Fault]] = []
    for sort in sorted({(f.workers, f.command, f.disk) for f in wanted}):
        alike = [f for f in wanted if (f.workers, f.command, f.disk) == sort]
        found += [alike[n : n + _TOGETHER] for n in range(0, len(alike), _TOGETHER)]
    return found


def run(faults: int, seed: int, place: Path, at_once: int = 2, words: str = "") -> dict[str, Tally]:
    """Disturb studies; a quarter of the disturbances hit studies that have ended, a few whole nodes.

    Args:
        words: only disturbances of running studies that have them in their names, if there are any.

    Returns:
        What came of each kind.
    """
    os.environ["BBAM_RAY_CACHE"] = str(place / "cache")
    chaos = Chaos(place, seed)
    nodes, afterwards = (0, 0) if words else (max(1, faults // 25), faults // 4)
    told = stories(faults - nodes - afterwards, seed, words)
    for kind in sorted({("tune", 1), *((f.command, f.workers) for story in told for f in story)}):
        chaos.calm(*kind)
    kinds = [TEARS_AFTERWARDS[n % len(TEARS_AFTERWARDS)] for n in range(afterwards)]
    with ThreadPoolExecutor(at_once) as pool:  # they mostly wait
        list(pool.map(chaos.story, told))
        list(pool.map(chaos.afterwards, kinds))
    while nodes > 0:
        chaos.lost_node(min(2, nodes))
        nodes -= 2
    chaos.finish()
    return chaos.tallies


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=120)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=2, help="disturbed studies at once")
    parser.add_argument("--kinds", default="", metavar="WORDS", help="such as 'read-only'")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--store", type=Path, default=STORE, metavar="FILE")
    parser.add_argument("--write", type=Path, metavar="FILE")
    given = parser.parse_args()
    if not given.table:
        try:
            stories(1, given.seed, given.kinds)
        except UsageError as error:
            parser.error(str(error))
        if given.faults:
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as name:
                tallies = run(given.faults, given.seed, Path(name), given.at_once, given.kinds)
            rows = [("fault", kind, vars(tally)) for kind, tally in tallies.items()]
            keep(rows, given.seed, given.store)
            minutes = (time.monotonic() - began) / 60
            print(f"{minutes:.0f} minutes; every command had {LIMIT_S:g} s", flush=True)
        if given.cases:
            found = fuzz.run(given.cases, given.seed)
            keep([("fuzz", one.reader, vars(one)) for one in found], given.seed, given.store)
        if given.minutes:
            keep(soak.run(given.minutes), given.seed, given.store)
    text = table(given.store)
    print(text)
    if given.write:
        write_section(given.write, "chaos", text)


if __name__ == "__main__":
    main()
