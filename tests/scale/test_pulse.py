"""The watch over processes that train: it sees silence, and ends with its study."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, time, ray
from bbam_ray.scale.cluster import connected
from bbam_ray.scale.pulse import Watch

def watchers():
    found = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[3]
            text = open(f"/proc/{pid}/cmdline").read()
        except OSError:
            continue
        found += text.startswith("ray::Beats") and int(parent) in ours
    return found

with connected("local", dashboard=False):
    ours = {os.getsid(0)}
    for _ in range(3):
        with Watch(60.0) as watch:
            ray.get(watch.beats.beat.remote("node", 1))
            assert ray.get(watch.beats.silent.remote(60.0)) == []
            time.sleep(0.2)
            assert ray.get(watch.beats.silent.remote(0.1)) == [("node", 1)]
            assert ray.get(watch.beats.silent.remote(0.1)) == [], "named twice"
            print("during", watchers())
    deadline = time.monotonic() + 30
    while watchers() and time.monotonic() < deadline:
        time.sleep(0.2)
    print("after", watchers())
"""


@pytest.mark.ray
def test_studies_one_after_the_other_leave_no_watch_behind() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, start_new_session=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [*("during", "1") * 3, "after", "0"]
