"""A Slurm cluster of two nodes on this machine, on loopback: munged, slurmctld and two slurmd."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from stress.stored_study import CheckFailedError

NODES = ("n1", "n2")
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo", "squeue")
_CONFIG = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdSpoolDir={folder}/spool.%n
StateSaveLocation={folder}/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
FirstJobId={first_job}
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """Programs of Slurm and munge that this machine lacks."""
    return [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]


def run(*command: str, cwd: Path | None = None) -> str:
    """Standard output of a command of Slurm.

    Raises:
        CheckFailedError: it fails or hangs.
    """
    try:
        ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired as error:
        raise CheckFailedError(str(error)) from None
    if ended.returncode:
        raise CheckFailedError(f"{command}: {ended.stdout} {ended.stderr}")
    return ended.stdout.strip()


def wait_until(ready: Callable[[], bool], seconds: float, problem: Callable[[], str]) -> None:
    """Wait until a condition is true; a CheckFailedError has the problem if that takes too long."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise CheckFailedError(problem())
        time.sleep(0.5)


def ray_processes(job: str) -> list[psutil.Process]:
    """Processes of this job's Ray: those whose command line names its folder."""
    named = []
    for process in psutil.process_iter():
        try:
            if any(f"/tmp/ray-{job}" in part for part in process.cmdline()):
                named.append(process)
        except psutil.Error:
            continue
    return named


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for free in sockets:
        free.bind(("127.0.0.1", 0))
    ports = [int(free.getsockname()[1]) for free in sockets]
    for free in sockets:
        free.close()
    return ports


@contextmanager
def slurm_cluster() -> Iterator[Path]:
    """Start the daemons and yield their folder; the caller sets ``SLURM_CONF`` to its ``slurm.conf``.

    At the end all jobs are cancelled and exactly the daemons started here are ended.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # socket paths must be short
    first_job = 1000 + secrets.randbelow(4000)
    host = socket.gethostname().split(".")[0]
    values = {"folder": folder, "user": getpass.getuser(), "host": host, "first_job": first_job}
    text = _CONFIG.format(ports=_free_ports(3), **values)
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    (folder / "gres.conf").touch()
    for name in ("state", *(f"spool.{node}" for node in NODES)):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    munged = ["munged", "--foreground", "--force", f"--key-file={key}"]
    munged += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    commands = [[*munged, f"--socket={folder}/munge.socket"], ["slurmctld", "-D"]]
    commands += [["slurmd", "-D", "-N", node] for node in NODES]
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": _PATH}
    daemons: list[subprocess.Popen[bytes]] = []

    def client(*command: str) -> str:
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        return ended.stdout.strip()

    def logs() -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.log")))

    try:
        for command in commands:
            with (folder / f"{len(daemons)}-{command[0]}.log").open("wb") as log:
                daemons.append(
                    subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
                )
            if command[0] == "munged":
                wait_until((folder / "munge.socket").exists, 30, logs)
        idle = ["sinfo", "--noheader", "--states=idle", "--format=%D"]
        wait_until(lambda: client(*idle) == str(len(NODES)), 60, logs)
        yield folder
    finally:
        if len(daemons) == len(commands):
            client("scancel", "--user", getpass.getuser())
            deadline = time.monotonic() + 60
            while client("squeue", "--noheader") and time.monotonic() < deadline:
                time.sleep(0.5)
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)
