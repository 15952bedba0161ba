"""While a study runs: Ray's dashboard, with its token and our names of actors, and our live page.

``BBAM_RAY_SCREENSHOTS=docs/images`` writes new screenshots of both.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.slow]


def started(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
    )


def line_of(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """The first printed line that matches."""
    assert process.stdout is not None
    for line in process.stdout:
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f"no line {pattern!r}")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of the dashboard of a long study, and its folder."""
    results = tmp_path_factory.mktemp("running") / "results"
    command = ["launch/tune.py", "--results", str(results), "--name", "shown", "--no-reuse"]
    command += ["--num-samples", "300", "--max-concurrent", "1", "--workers", "2"]
    command += ["--epochs", "24", "--warmup-epochs", "4", "--confirm-seeds", "0", "--folds", "1"]
    # Trials of many seconds, so that one is seen while it runs.
    command += ["--set", "scenes=1200", "--set", "warmup_passes=1"]
    process = started(*command)
    address = line_of(process, r"Ray dashboard: (http://\S+)")[1]
    deadline = time.monotonic() + 90
    while not (results / "digits" / "shown" / "trials.parquet").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.5)
    yield address, results / "digits" / "shown"
    process.terminate()
    process.communicate(timeout=60)


def keep_screenshot(tab: Any, name: str) -> None:
    if folder := os.environ.get("BBAM_RAY_SCREENSHOTS"):
        tab.driver.save_screenshot(f"{folder}/{name}.png")


def text_with(tab: Any, pattern: str, seconds: float = 60) -> str:
    """Wait until the text of the page matches, and return it."""
    deadline = time.monotonic() + seconds
    while not re.search(pattern, text := tab.run("return document.body.innerText")):
        assert time.monotonic() < deadline, text
        time.sleep(0.5)
    return str(text)


def test_the_ray_dashboard_requires_a_token_and_shows_our_actors(
    study: tuple[str, Path], tab: Any
) -> None:
    address, _ = study
    assert address.startswith("http://127.0.0.1:")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{address}/api/jobs/", timeout=10)
    refused.value.close()
    assert refused.value.code in (401, 403)
    ray = Path(sys.executable).with_name("ray")
    ended = subprocess.run([ray, "get-auth-token"], capture_output=True, text=True, check=True)
    token = ended.stdout.strip().splitlines()[-1]
    tab.driver.set_window_size(1280, 900)
    tab.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    tab.driver.get(f"{address}/#/actors")
    text_with(tab, "Authentication Token Required")
    tab.driver.find_element("css selector", "[role=dialog] input").send_keys(token)
    tab.driver.find_element("xpath", "//*[@role='dialog']//button[contains(., 'ubmit')]").click()
    deadline = time.monotonic() + 30
    while "Token Required" in (text := text_with(tab, "trials of shown, rank 0")):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert "trials of shown, rank 1" in text
    keep_screenshot(tab, "dashboard")


def test_the_live_page_shows_the_running_trial(study: tuple[str, Path], tab: Any) -> None:
    _, folder = study
    process = started("launch/watch.py", str(folder), "--port", "0")
    try:
        tab.driver.get(line_of(process, r"(http://127\.0\.0\.1:\d+)")[1])
        text = text_with(tab, r"running: [1-9]\d* of 300 trials have ended")
        assert "Learning curves" in text
        text_with(tab, r"\ntrial \d+\t\d")  # the table of what runs now
        keep_screenshot(tab, "watch")
        before = re.search(r"running: (\d+) of 300", text)
        deadline = time.monotonic() + 90
        while True:
            now = re.search(r"running: (\d+) of 300", text_with(tab, "running:"))
            if before and now and int(now[1]) > int(before[1]):
                break
            assert time.monotonic() < deadline, "it does not follow"
            time.sleep(1)
    finally:
        process.terminate()
        process.communicate(timeout=30)
