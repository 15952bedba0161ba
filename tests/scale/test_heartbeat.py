"""The monitor over processes that train: it sees silence, and ends with its study."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, time, ray
from bbam_ray.scale.cluster.connection import connected
from bbam_ray.scale.workers.heartbeat import HeartbeatMonitor

def watchers():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[3]
            text = open(f"/proc/{pid}/cmdline").read()
        except OSError:
            continue
        if text.startswith("ray::HeartbeatStore") and int(parent) in ours:
            found.append(int(pid))
    return found

with connected("local", dashboard=False):
    ours = {os.getsid(0)}
    for _ in range(3):
        with HeartbeatMonitor(60.0) as monitor:
            ray.get(monitor.heartbeats.beat.remote("node", 1))
            assert ray.get(monitor.heartbeats.silent.remote(60.0)) == []
            time.sleep(0.2)
            assert ray.get(monitor.heartbeats.silent.remote(0.1)) == [("node", 1)]
            assert ray.get(monitor.heartbeats.silent.remote(0.1)) == [], "named twice"
            print("during", len(watchers()))
    with HeartbeatMonitor(60.0) as monitor:
        ray.get(monitor.heartbeats.beat.remote("node", 1))
        (process,) = watchers()
        os.kill(process, signal.SIGKILL)
        ray.get(monitor.heartbeats.beat.remote("node", 2))
        time.sleep(0.2)
        print("again", *ray.get(monitor.heartbeats.silent.remote(0.1)))
        # A request to stop reaches the store that replaces a lost one, when it is made again.
        assert not ray.get(monitor.heartbeats.trial_stopped.remote(3, True)), "before the request"
        assert monitor.request_stop() == {}
        assert ray.get(monitor.heartbeats.stop_requested.remote())
        assert ray.get(monitor.heartbeats.trial_stopped.remote(4, True))
        assert ray.get(monitor.heartbeats.trial_stopped.remote(5, False))
        assert monitor.request_stop() == {4: True, 5: False}
        (process,) = watchers()
        os.kill(process, signal.SIGKILL)
        while not ray.get(monitor.heartbeats.stop_requested.remote()):
            monitor.request_stop()
    deadline = time.monotonic() + 30
    while watchers() and time.monotonic() < deadline:
        time.sleep(0.2)
    print("after", len(watchers()))
"""


@pytest.mark.ray
def test_the_watch_comes_again_when_it_is_killed_and_ends_with_its_study() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, start_new_session=True
    )
    assert ended.returncode == 0, ended.stderr
    expected = ["during 1"] * 3 + ["again ('node', 2)", "after 0"]
    # Ray tells of the process that was killed, too.
    lines = [line for line in ended.stdout.splitlines() if "(raylet)" not in line]
    assert lines == expected
