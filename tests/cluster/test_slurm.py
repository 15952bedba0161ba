"""``slurm.sh`` on a real Slurm of two nodes: an interrupted study resumes and loses no trial."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bbam_ray.results.loading import load_study
from stress.slurm_cluster import (
    missing_programs,
    ray_processes,
    run,
    slurm_cluster,
    wait_until,
)

ROOT = Path(__file__).parents[2]
TRIALS = 4
STUDY = [
    "--name",
    "queued",
    "--num-samples",
    str(TRIALS),
    "--max-concurrent",
    "2",
    "--epochs",
    "30",
]
STUDY += ["--warmup-epochs", "1", "--confirm-seeds", "1", "--folds", "1", "--final", "single"]
STUDY += ["--no-baselines"]
for setting in ("scenes=100", "test_scenes=40", "warmup_passes=1", "labeled_fraction=0.4"):
    STUDY += ["--set", setting]
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        bool(missing_programs()),
        reason=f"{', '.join(missing_programs())} missing; Debian: slurm-wlm and munge",
    ),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Slurm cluster, to which the commands of Slurm connect."""
    with slurm_cluster() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        yield


@pytest.fixture()
def repository(tmp_path: Path) -> Path:
    """A folder from which a user submits: the programs, an environment, and later the results."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "launch").symlink_to(ROOT / "launch")
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def submit(repository: Path, *arguments: str) -> str:
    """Submit the script to nodes without GPUs; the number of the job."""
    sbatch = ["sbatch", "--parsable", "--gpus-per-node=0", "--cpus-per-task=2"]
    return run(*sbatch, "launch/cluster/slurm.sh", *STUDY, *arguments, cwd=repository)


def field(job: str, name: str) -> str:
    """A field of a job, for example ``JobState``."""
    fields = run("scontrol", "show", "job", job).split()
    return next(text.partition("=")[2] for text in fields if text.startswith(f"{name}="))


def numbers(repository: Path) -> list[int]:
    """Numbers of the trials in Parquet, in order."""
    path = repository / "results" / "digits" / "queued" / "trials.parquet"
    return sorted(pq.read_table(path)["number"].to_pylist()) if path.exists() else []


def output(repository: Path) -> str:
    return "\n".join(path.read_text()[-4000:] for path in sorted(repository.glob("*.out")))


@pytest.mark.parametrize("end", ["scancel", "scancel the script", "requeue"])
def test_an_interrupted_study_resumes_with_every_trial_once(
    end: str, cluster: None, repository: Path
) -> None:
    first = submit(repository)
    wait_until(lambda: bool(numbers(repository)), 300, lambda: output(repository))
    steps = [line for line in run("scontrol", "show", "step", "-o").splitlines() if first in line]
    of_ray = [line for line in steps if ".batch" not in line]
    assert len(of_ray) == 2 and all("TRES=cpu=2," in line for line in of_ray), steps
    if end == "requeue":
        run("scontrol", "requeue", first)
        last = first
    else:
        options = ["--batch", "--signal=TERM"] if end == "scancel the script" else []
        run("scancel", *options, first)
        final = ("CANCELLED", "FAILED")
        wait_until(lambda: field(first, "JobState") in final, 120, lambda: output(repository))
        wait_until(lambda: not ray_processes(first), 60, lambda: str(ray_processes(first)))
        wait_until(
            lambda: not list(repository.glob(".slurm-*")), 60, lambda: "the token is still there"
        )
        assert len(numbers(repository)) < TRIALS, "the study was too short to be interrupted"
        last = submit(repository, "--resume")
    done = ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL")
    wait_until(lambda: field(last, "JobState") in done, 400, lambda: output(repository))
    assert field(last, "JobState") == "COMPLETED", output(repository)
    assert int(field(last, "Restarts")) == (end == "requeue")
    assert numbers(repository) == list(range(TRIALS))
    study = load_study(repository / "results" / "digits" / "queued")
    assert study.status == "COMPLETE" and set(study.trials["state"]) <= {"COMPLETE", "PRUNED"}
    wait_until(lambda: not ray_processes(last), 60, lambda: str(ray_processes(last)))
    for job in {first, last}:
        shutil.rmtree(f"/tmp/ray-{job}", ignore_errors=True)


def test_a_run_that_gets_the_signal_of_slurm_saves_in_its_epoch_and_resumes(
    cluster: None, repository: Path
) -> None:
    """``--signal=B:TERM@120`` sends SIGTERM to the script alone, as scancel --batch does."""
    flags = ["train", "--name", "queued", "--epochs", "4", "--warmup-epochs", "1", "--workers", "2"]
    for setting in ("scenes=3000", "test_scenes=40", "warmup_passes=1", "keep=last"):
        flags += ["--set", setting]
    sbatch = ["sbatch", "--parsable", "--gpus-per-node=0", "--cpus-per-task=2"]
    script = "launch/cluster/slurm.sh"
    first = run(*sbatch, script, *flags, cwd=repository)
    history = repository / "results" / "digits" / "queued" / "history.parquet"

    def in_second_epoch() -> bool:
        return history.exists() and pq.read_table(history).num_rows > 0

    wait_until(in_second_epoch, 300, lambda: output(repository))
    time.sleep(1)
    run("scancel", "--batch", "--signal=TERM", first)
    ended = ("COMPLETED", "CANCELLED", "FAILED")
    wait_until(lambda: field(first, "JobState") in ended, 120, lambda: output(repository))
    saved = r"checkpoint after step (\d+) of epoch (\d+), (\d+\.\d) s after the request"
    match = re.search(saved, output(repository))
    assert match is not None, output(repository)
    print(f"{match[0]}")
    last = run(*sbatch, script, *flags, "--resume", cwd=repository)
    wait_until(lambda: field(last, "JobState") in ended, 300, lambda: output(repository))
    assert field(last, "JobState") == "COMPLETED", output(repository)
    resumed = f"2 workers, from epoch {int(match[2]) - 1} and {match[1]} step"
    assert resumed in output(repository)
    assert pq.read_table(history)["epoch"].to_pylist() == [1, 2, 3, 4]
    for job in (first, last):
        wait_until(lambda job=job: not ray_processes(job), 60, lambda: "Ray is still running")
        shutil.rmtree(f"/tmp/ray-{job}", ignore_errors=True)


def test_a_node_on_which_ray_does_not_start_ends_the_job(cluster: None, repository: Path) -> None:
    (repository / ".venv").unlink()
    (repository / ".venv" / "bin").mkdir(parents=True)
    (repository / ".venv" / "bin" / "ray").symlink_to("/bin/false")
    job = submit(repository)
    wait_until(lambda: field(job, "JobState") == "FAILED", 60, lambda: output(repository))
    assert "error: Ray has ended on a node" in output(repository)
    assert not list(repository.glob(".slurm-*"))
