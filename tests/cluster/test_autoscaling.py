"""A study on a head that computes nothing makes nodes appear, and lets them go (Ray's fake provider)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bbam_ray.results.loaded import load_study

ROOT = Path(__file__).parents[2]
_NODES = """
import json, ray
ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
print(json.dumps(sum(n["Alive"] and n["Resources"].get("CPU", 0) > 0 for n in ray.nodes())))
"""


@pytest.fixture()
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A head with the fake autoscaler, in a session of its own, ended by its process group."""
    port = 6379  # the fake provider knows no other
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            pytest.skip("port 6379 is taken by another cluster")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_FAKE_CLUSTER", "1")
    monkeypatch.setenv("AUTOSCALER_UPDATE_INTERVAL_S", "1")
    # The provider knows its head by this name.
    monkeypatch.setenv("RAY_OVERRIDE_NODE_ID_FOR_TESTING", f"{'f' * 51}00000")
    # What a head of ours does on a real cluster; the provider gives its nodes the rest.
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={port}"]
    command += ["--num-cpus=0", '--resources={"trial_slot": 1000}', "--block"]
    command += [f"--autoscaling-config={Path(__file__).with_name('autoscaling.yaml')}"]
    command += ["--dashboard-host=127.0.0.1", f"--temp-dir={_short_folder(tmp_path)}"]
    folder = _short_folder(tmp_path)
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"127.0.0.1:{port}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    try:
        deadline = time.monotonic() + 90
        while _workers() is None:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(1)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        _end_what_is_left(str(folder))
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _short_folder(tmp_path: Path) -> Path:
    """Sockets have short names."""
    return Path("/tmp") / f"bbam-{abs(hash(tmp_path)) % 10**8}"


def _end_what_is_left(mark: str) -> None:
    """Fake nodes are processes of sessions of their own, which name the head's folder."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "cmdline").read_bytes().decode(errors="replace")
            if mark in text and "ray" in text and int(folder.name) != os.getpid():
                os.kill(int(folder.name), signal.SIGKILL)
        except OSError:
            continue


def _workers() -> int | None:
    """Nodes that have CPUs; None while no cluster answers."""
    asked = subprocess.run([sys.executable, "-c", _NODES], capture_output=True, text=True)
    return json.loads(asked.stdout) if asked.returncode == 0 else None


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_nodes_come_for_a_study_and_go_after_it(head: str, tmp_path: Path) -> None:
    assert _workers() == 0
    command = ["launch/tune.py", "--address", "auto", "--results", str(tmp_path / "results")]
    command += ["--name", "far", "--num-samples", "4", "--max-concurrent", "2"]
    command += ["--epochs", "3", "--warmup-epochs", "1", "--confirm-seeds", "1"]
    for setting in ("scenes=100", "test_scenes=40", "warmup_passes=1", "labeled_fraction=0.4"):
        command += ["--set", setting]
    study = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    seen, deadline = 0, time.monotonic() + 150
    while study.poll() is None and time.monotonic() < deadline:
        seen = max(seen, _workers() or 0)
        time.sleep(1)
    study.kill()  # nothing to one that has ended
    said, _ = study.communicate(timeout=10)
    assert study.returncode == 0, said
    assert seen >= 1  # short trials may be over before the second one has come
    found = load_study(tmp_path / "results" / "digits" / "far")
    assert found.status == "COMPLETE" and len(found.trials) == 4 and len(found.confirm) == 1
    deadline = time.monotonic() + 120
    while _workers() != 0:
        assert time.monotonic() < deadline, "nodes stay"
        time.sleep(2)
