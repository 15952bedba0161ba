"""Studies written through the real store, one small real study, and a headless browser."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bbam_ray.results.store import StudyStore
from bbam_ray.results.study import COMPLETE, StudyRecord

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "packages": {"torch": "2.11", "ray": None},
    "python": "3.11",
    "cpu_count": 2,
    "gpu": None,
    "git_commit": None,
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "scale": {"type": "float", "low": 10.0, "high": 30.0, "log": True},
    "margin": {"type": "float", "low": 0.2, "high": 0.5},
    "negative_ratio": {"type": "categorical", "choices": [5, 20, "inf"]},
    "balance": {"type": "categorical", "choices": [True, False]},
    "clamp": {"type": "categorical", "choices": [True, False], "when": {"balance": True}},
}
KINDS = {
    "scale": "float",
    "margin": "float",
    "negative_ratio": "float",
    "balance": "bool",
    "clamp": "bool",
}
BINS = 60
_DRAWN = """
return !document.getElementById('plotly-library')
  || document.documentElement.dataset.figures === 'drawn';
"""


def bell(mean: float, deviation: float, count: float) -> list[float]:
    """Counts of angles around a mean (radians) in the store's bins."""
    centres = (np.arange(BINS) + 0.5) * math.pi / BINS
    density = np.exp(-0.5 * ((centres - mean) / deviation) ** 2)
    return [float(v) for v in count * density / density.sum()]


def label_row(epoch: int, index: int) -> dict[str, Any]:
    """The values that the method records of a label in an epoch of the main phase."""
    return {
        "epoch": epoch,
        "prior": 0.1,
        "n_positive": 50.0 + index,
        "n_negative": 900.0,
        "n_negative_kept": 250.0 + index,
        "mean_positive": 1.0,
        "mean_negative": 1.5,
        "variance_positive": 0.09,
        "variance_negative": 0.04,
        "vdfd": 0.05 / epoch + 0.001 * index,
        "pseudo_precision": 0.5 + 0.02 * index,
        "pseudo_recall": 0.6 + 0.01 * index,
        "val_ap": 0.5 + 0.015 * index,
        "threshold": 0.1 * index - 1,
        "angles_positive": bell(1.0, 0.3, 50),
        "angles_negative": bell(1.5, 0.2, 900),
    }


@pytest.fixture(scope="session")
def write_study() -> Callable[..., Path]:
    """Writes the folder of a finished search; arguments change its content."""

    def write(
        folder: Path,
        *,
        trials: int = 14,
        labels: int = 20,
        failed: int = 1,
        pruned: int = 1,
        epochs: int = 4,
        balance: bool | None = None,
        confirmed: tuple[int, ...] = (0,),
        best_scale: float = 30.0,
        **content: Any,
    ) -> Path:
        space = {"metric": "val_map", "mode": "max", "parameters": PARAMETERS, "fixed": {}}
        given = {
            "dataset": "digits",
            "method": "bbam",
            "seed": 0,
            "settings": {"labeled_fraction": 0.05},
            "num_samples": trials,
            "space": space,
            "environment": ENVIRONMENT,
        }
        record = StudyRecord.create(folder, {**given, **content})
        store = StudyStore(folder, KINDS)
        generator = np.random.default_rng(3)
        for number in range(trials):
            state = "COMPLETE"
            if number >= trials - failed:
                state = "FAILED"
            elif number >= trials - failed - pruned:
                state = "PRUNED"
            margin = 0.4 if number == 0 else float(generator.uniform(0.2, 0.5))
            scale = 20.0 if number == 0 else float(generator.uniform(10, 29))
            value = 0.6 + margin / 2 + 0.001 * float(generator.standard_normal())
            if number == 1:
                scale, margin, value = best_scale, 0.35, 0.95
            on = bool(number % 3) if balance is None else balance
            who = {"study": folder.name, "trial_id": f"t{number:05}", "number": number}
            row = who | {
                "state": state,
                "seed": 0,
                "param_scale": scale,
                "param_margin": margin,
                "param_negative_ratio": [5.0, 20.0, math.inf][number % 3],
                "param_balance": on,
                "param_clamp": number % 2 == 0 if on else None,
                "val_map": None if state == "FAILED" else value,
                "best_epoch": epochs,
                "epochs": epochs,
                "seconds_per_epoch": 1.0,
                "duration_s": 5.0 + number,
                "gpu_hours": 0.25,
                "cost": 0.5,
                "error": "RuntimeError: out of memory" if state == "FAILED" else None,
            }
            store.trials.put([row])
            for epoch in range(1, epochs + 1):
                phase = "warmup" if epoch <= epochs // 2 else "main"
                seconds = {
                    "seconds_refresh": 0.0 if phase == "warmup" else 0.4,
                    "seconds_train": 0.5,
                    "seconds_evaluate": 0.1,
                }
                values = {"epoch": epoch, "phase": phase, "val_map": value * epoch / epochs}
                store.history.put([who | values | seconds])
                for index in range(labels):
                    row_of_label = label_row(epoch, index)
                    if phase == "warmup":
                        row_of_label = {
                            k: row_of_label[k] for k in ("epoch", "prior", "val_ap", "threshold")
                        }
                    store.labels.put([who | row_of_label | {"label": f"label {index:02}"}])
        for rank, number in enumerate((1, *confirmed), start=1):
            for seed in range(3):
                who = {"study": folder.name, "trial_id": f"t{number:05}", "number": number}
                metrics = {
                    f"test_{m}": 0.7 + 0.05 * (number == 1) + 0.01 * seed
                    for m in ("map", "micro_f1", "macro_f1", "hamming_loss", "one_error")
                }
                store.confirm.put([who | {"rank": rank, "seed": seed, "gpu_hours": 0.1} | metrics])
        store.flush()
        store.write_best({"scale": best_scale, "margin": 0.35}, "best")
        record.end(COMPLETE)
        return folder

    return write


@pytest.fixture(scope="session")
def rich(write_study: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of 14 trials with 20 labels, one trial failed and one pruned; tests must not change it."""
    return write_study(tmp_path_factory.mktemp("rich") / "results" / "digits" / "rich")


def run_line(line: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of a report, ``python launch/NAME.py ...``, in a folder; it must succeed."""
    program, script, *words = shlex.split(line)
    assert program == "python"
    ended = subprocess.run(
        [sys.executable, str(ROOT / "launch" / Path(script).name), *words, *options],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture(scope="session")
def run_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run_line``, for tests."""
    return run_line


@pytest.fixture(scope="session")
def real_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny search on digits by the real command line."""
    above = tmp_path_factory.mktemp("real")
    settings = {
        "scenes": 150,
        "test_scenes": 60,
        "labeled_fraction": 0.4,
        "warmup_passes": 1,
        "hidden_dim": 16,
        "feature_dim": 8,
    }
    flags = "--name real --num-samples 3 --epochs 4 --warmup-epochs 2 --max-concurrent 1"
    flags += " --confirm-seeds 2 --no-dashboard --folds 1 --final single --no-baselines"
    for name, value in settings.items():
        flags += f" --set {name}={value}"
    script = [sys.executable, str(ROOT / "launch" / "tune.py"), "--results", "results"]
    ended = subprocess.run(
        [*script, *flags.split()],
        cwd=above,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return above / "results" / "digits" / "real"


class Tab:
    """A tab of a headless browser without a network, with its console messages and requests."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, *, width: int = 1200, dark: bool = False) -> None:
        """Show a file at a width, in a color scheme; earlier messages are dropped."""
        call = self.driver.execute_cdp_cmd
        call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        call("Emulation.setEmulatedMedia", {"features": [scheme]})
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.driver.get(path.resolve().as_uri())
        for _ in range(200):  # the library of the figures is unpacked first
            if self.run(_DRAWN):
                return
            time.sleep(0.05)
        raise AssertionError(f"figures were not drawn: {self.errors()}")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def errors(self) -> list[str]:
        """Console messages of the page."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """URLs that the page has requested."""
        events = (json.loads(e["message"])["message"] for e in self.driver.get_log("performance"))
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]


@pytest.fixture(scope="session")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A browser tab; its proxy is a port that does not answer."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new",
        "--no-sandbox",  # it does not work as root
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--proxy-server=http://127.0.0.1:9",
        f"--user-data-dir={tmp_path_factory.mktemp('browser')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield Tab(driver)
    driver.quit()
