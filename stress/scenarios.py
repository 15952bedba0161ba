"""Scenarios of fault injection: a study, the faults injected into it, and what was lost."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from threading import Lock

from bbam_ray.errors import UsageError
from stress import slurm_jobs
from stress.disks import small_disk
from stress.faults import Fault
from stress.nodes import Nodes
from stress.slurm_jobs import StudyJob
from stress.start_faults import StartFault, try_to_start
from stress.stored_study import CheckFailedError, LostTrialError
from stress.study_process import StudyProcess

MAX_DELAY_S = 3.0  # of a fault, after an epoch
#: yields each fault, and whether there was anything to hit
Injections = Callable[[], Iterator[tuple[Fault, bool]]]


@dataclass
class Tally:
    """Results of one kind of fault, summed over scenarios.

    Args:
        injected: number of injected faults.
        no_target: faults that found nothing to hit.
        skipped: faults that could not be injected on this machine.
        lost_or_duplicated: trials.
        unreadable: how often a table could not be read.
        differences: trials, confirmed runs and models that differ from the undisturbed study.
        other_failures: all that no other field counts: hangs, wrong exit codes.
        slowest_s: seconds of the slowest command.
    """

    injected: int = 0
    no_target: int = 0
    skipped: int = 0
    lost_or_duplicated: int = 0
    unreadable: int = 0
    differences: int = 0
    other_failures: int = 0
    slowest_s: float = 0.0

    @property
    def passed(self) -> bool:
        failures = self.lost_or_duplicated + self.unreadable + self.differences
        return failures + self.other_failures == 0


@dataclass
class Scenarios:
    """Runs scenarios and sums their results by fault; its methods may run in several threads.

    Args:
        folder: an empty folder for all studies.
        seed: of times, targets and offsets.
        settings: of all studies, as ``name=value``.
    """

    folder: Path
    seed: int
    settings: Sequence[str] = ()
    tallies: dict[str, Tally] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng, self._numbers, self._lock = random.Random(self.seed), count(1), Lock()
        self._references: dict[tuple[str, int], StudyProcess] = {}
        self._studies: list[StudyProcess] = []

    def reference(self, command: str, workers: int) -> StudyProcess:
        """The undisturbed study, run once."""
        key = command, workers
        if key not in self._references:
            study = StudyProcess(
                self.folder / f"reference-{command}-{workers}", command, self._flags(workers)
            )
            study.start()
            if study.wait_for_end() or study.lost_or_duplicated():
                raise CheckFailedError(f"the undisturbed study has failed:\n{study.output}")
            study.check_end()
            self._references[key] = study
        return self._references[key]

    def while_running(self, faults: Sequence[Fault]) -> None:
        """Inject faults into a running study, one after the other."""
        folder, results = self._new_folder(), None
        with ExitStack() as stack:
            if any(fault.disk for fault in faults):
                try:
                    results = stack.enter_context(small_disk(folder / "disk")) / "results"
                except OSError as error:
                    self._skip([fault for fault in faults if fault.disk], error)
                    faults = [fault for fault in faults if not fault.disk]
            if not faults:
                return
            first = faults[0]
            study = StudyProcess(folder, first.command, self._flags(first.workers), results)
            stack.callback(study.close)
            self._run(study, faults, lambda: self._inject(study, faults))

    def after_end(self, fault: Fault) -> None:
        """Damage a file of a study that has ended, and resume the study."""
        study = StudyProcess(self._new_folder(), "tune", self._flags(1))
        shutil.copytree(self.reference("tune", 1).results, study.results)

        def inject() -> Iterator[tuple[Fault, bool]]:
            yield fault, fault.inject(study, self._rng)

        self._run(study, [fault], inject)

    def cannot_start(self, fault: StartFault, command: str, workers: int) -> None:
        """Start a command whose workers cannot start; remove the cause and resume it."""
        folder = self._new_folder()
        (current := folder / "current").mkdir(parents=True)
        variables = fault.prepare(current)
        study = StudyProcess(
            folder, command, self._flags(workers), variables=variables, cwd=current
        )
        kind = Fault(fault.name, lambda study, rng: True, workers, command)

        def inject() -> Iterator[tuple[Fault, bool]]:
            try_to_start(study, fault.cause)
            yield kind, True

        self._run(study, [kind], inject)

    def lost_nodes(self, times: int) -> None:
        """Kill nodes of a cluster that a study runs on; each is replaced."""
        with Nodes() as nodes:
            fault = Fault("node killed", lambda study, rng: nodes.replace_one())
            variables = {"RAY_ADDRESS": nodes.address, "RAY_AUTH_MODE": "disabled"}
            flags = [*self._flags(1), "--address", "auto"]
            study = StudyProcess(self._new_folder(), "tune", flags, variables=variables)
            self._run(study, [fault] * times, lambda: self._inject(study, [fault] * times))
            study.close()

    def of_jobs(self, faults: Sequence[Fault]) -> None:
        """Let Slurm interrupt the job of a study, once for each fault; each study is resumed."""
        if not faults:
            return
        try:
            with slurm_jobs.cluster():
                for fault in faults:
                    study = StudyJob(self._new_folder(), self._flags(1))
                    self._run(study, [fault], partial(self._inject, study, [fault]))
                    study.close()
        except (OSError, CheckFailedError) as error:  # the cluster does not start or end
            self._skip(faults, error)

    def finish(self) -> None:
        """Check that no process outlives its study."""
        alive = [process for study in self._studies for process in study.left_behind()]
        if alive:
            print(f"processes left behind: {alive}", flush=True)
            tally = self.tallies.setdefault("processes left behind", Tally())
            tally.other_failures += len(alive)

    # --------------------------------------------------------------------------------

    def _new_folder(self) -> Path:
        return self.folder / f"{next(self._numbers):03d}"

    def _flags(self, workers: int) -> list[str]:
        assignments = [word for setting in self.settings for word in ("--set", setting)]
        return ["--workers", str(workers), *assignments]

    def _skip(self, faults: Sequence[Fault], error: Exception) -> None:
        print(f"skipped: {', '.join(fault.name for fault in faults)} ({error})", flush=True)
        with self._lock:
            for fault in faults:
                self.tallies.setdefault(fault.name, Tally()).skipped += 1

    def _inject(self, study: StudyProcess, faults: Sequence[Fault]) -> Iterator[tuple[Fault, bool]]:
        for fault in faults:
            if not study.running:
                if study.returncode == 0:
                    yield fault, False  # the study has already ended
                    continue
                study.start()
            study.wait_for_epoch()
            study.wait(self._rng.uniform(0, MAX_DELAY_S))
            hit = study.running and fault.inject(study, self._rng)
            yield fault, hit
            if not study.running and study.returncode not in (0, fault.exit_code):
                raise CheckFailedError(f"exit code {study.returncode} after '{fault.name}'")

    def _run(self, study: StudyProcess, faults: Sequence[Fault], inject: Injections) -> None:
        """Inject the faults, let the study end, check it and add up the results."""
        names, events, result = {fault.name for fault in faults}, [], Tally()
        with self._lock:
            self._studies.append(study)
            for name in names:
                self.tallies.setdefault(name, Tally())
        try:
            for fault, hit in inject():
                with self._lock:
                    self.tallies[fault.name].injected += hit
                    self.tallies[fault.name].no_target += not hit
                events.append(fault.name if hit else f"({fault.name})")
            self._end_and_check(study, faults[0].workers, result)
        except LostTrialError as error:
            result.lost_or_duplicated += 1
            print(f"{study.folder}: {error}\n{study.output[-3000:]}", flush=True)
        except (CheckFailedError, UsageError, OSError) as error:
            result.other_failures += not study.unreadable
            print(f"{study.folder}: {error}\n{study.output[-3000:]}", flush=True)
        with self._lock:
            for name in names:
                tally = self.tallies[name]
                tally.lost_or_duplicated += result.lost_or_duplicated
                tally.differences += result.differences
                tally.other_failures += result.other_failures
                tally.unreadable += study.unreadable
                tally.slowest_s = max(tally.slowest_s, study.slowest_s)
        print(
            f"{study.base.name}: {', '.join(events)}; {result.lost_or_duplicated} lost or "
            f"duplicated, {result.differences} differ",
            flush=True,
        )

    def _end_and_check(self, study: StudyProcess, workers: int, result: Tally) -> None:
        if not study.running and study.returncode != 0:  # the last fault has ended it
            study.start()
        if code := study.wait_for_end():
            raise CheckFailedError(f"exit code {code} at the end")
        study.check_end()
        reference = self.reference(study.command, workers)
        result.lost_or_duplicated = study.lost_or_duplicated()
        result.differences = study.differences(reference, exact=workers == 1)
