"""Faults of Slurm: the job of a study is cancelled, gets the signal of its time limit, or is requeued."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from stress.faults import Fault, saved_on_request
from stress.slurm_cluster import missing_programs, ray_processes, run, slurm_cluster
from stress.stored_study import CheckFailedError
from stress.study_process import ROOT, StudyProcess

_SECONDS = 120.0  # for a job to end after its cancellation
_SBATCH = ("sbatch", "--parsable", "--wait", "--gpus-per-node=0", "--cpus-per-task=2")


@contextmanager
def cluster() -> Iterator[None]:
    """A Slurm cluster of two nodes, to which the commands of Slurm connect.

    Raises:
        OSError: programs of Slurm are missing.
    """
    if missing := missing_programs():
        raise OSError(f"{', '.join(missing)} missing; Debian: slurm-wlm and munge")
    before = {name: os.environ.get(name) for name in ("SLURM_CONF", "PYTHONPATH")}
    with slurm_cluster() as folder:
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), before["PYTHONPATH"])))
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


class StudyJob(StudyProcess):
    """A study as a job of Slurm, submitted with ``launch/cluster/slurm.sh``.

    Its process is ``sbatch --wait``, which ends with the job.

    Args:
        folder: for all of its files; the folder from which a user submits.
        flags: of the study.
    """

    def __init__(self, folder: Path, flags: Iterable[str]) -> None:
        super().__init__(folder, "tune", [*flags, "--max-concurrent", "2"], cwd=folder)
        (folder / "launch").symlink_to(ROOT / "launch")
        (folder / ".venv").symlink_to(sys.prefix)
        self._jobs: list[str] = []

    def program(self) -> list[str]:
        output = ["--open-mode=append", f"--output={self.base / 'output.txt'}"]
        return [*_SBATCH, *output, "launch/cluster/slurm.sh", "tune"]

    def start(self) -> None:
        """Submit the study, or submit it again to resume it."""
        super().start()
        deadline = time.monotonic() + _SECONDS
        while not (lines := [line for line in self.output.splitlines() if line.isdigit()]):
            if not self.running or time.monotonic() > deadline:
                raise CheckFailedError(f"no job was submitted: {self.output}")
            time.sleep(0.1)
        self._jobs.append(lines[0])

    @property
    def returncode(self) -> int | None:
        """0 for a complete job, else 1: the code of ``sbatch`` depends on how it was cancelled."""
        if super().returncode is None:
            return None
        state = run("squeue", "--noheader", "--states=all", f"--jobs={self.job}", "--format=%T")
        return 0 if state == "COMPLETED" else 1

    @property
    def job(self) -> str:
        """Number of the last job."""
        return self._jobs[-1]

    def descendants(self) -> list[psutil.Process]:
        """Processes of Ray in the last job; they are not children of ``sbatch``."""
        processes = ray_processes(self.job) if self._jobs else []
        self._descendants |= {process.pid: process for process in processes}
        return processes

    def wait_for_job(self) -> None:
        """Wait until the job has ended."""
        assert self.process is not None
        try:
            self.process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            raise CheckFailedError(f"job {self.job} has not ended in {_SECONDS:g} s") from None

    def close(self) -> None:
        """Cancel the job if it still runs, and remove Ray's folders."""
        if self.running:
            run("scancel", self.job)
            self.wait_for_job()
        for job in self._jobs:
            shutil.rmtree(f"/tmp/ray-{job}", ignore_errors=True)


def _end(study: StudyProcess, *command: str) -> bool:
    """Let Slurm end the job, and wait until it and its Ray have ended."""
    assert isinstance(study, StudyJob)
    study.descendants()
    run(*command, study.job)
    study.wait_for_job()
    if alive := study.left_behind():
        raise CheckFailedError(f"processes outlive their job: {alive}")
    return True


def _cancel(study: StudyProcess, rng: random.Random) -> bool:
    return _end(study, "scancel")


def _signal(study: StudyProcess, rng: random.Random) -> bool:
    """As Slurm does two minutes before the time limit; running trials must save their state."""
    study.wait_for_rows()
    _end(study, "scancel", "--batch", "--signal=TERM")
    return saved_on_request(study)


def _requeue(study: StudyProcess, rng: random.Random) -> bool:
    """The job starts again by itself, and ``sbatch`` waits for it."""
    assert isinstance(study, StudyJob)
    run("scontrol", "requeue", study.job)
    return True


SLURM_FAULTS: Sequence[Fault] = (
    Fault("Slurm job cancelled", _cancel, exit_code=1),
    Fault("Slurm job with the signal of its time limit", _signal, exit_code=1),
    Fault("Slurm job requeued", _requeue),
)
