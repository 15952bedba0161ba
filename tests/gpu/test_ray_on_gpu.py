"""Ray on a GPU through the command line: workers and trials with a fraction of it each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from bbam_ray.results.store import read_table

MISSING = [name for name in ("ray", "optuna") if find_spec(name) is None]
pytestmark = [
    *(pytest.mark.gpu, pytest.mark.ray, pytest.mark.timeout(600)),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]

ROOT = Path(__file__).parents[2]
TINY = {"scenes": 150, "test_scenes": 60, "labeled_fraction": 0.4, "warmup_passes": 1}
TINY |= {"hidden_dim": 16, "feature_dim": 8}


def run(script: str, results: Path, device: torch.device, fraction: str, *more: str) -> str:
    """Output of a command that ends well; on a CPU its workers have no GPU."""
    settings = [part for name, value in TINY.items() for part in ("--set", f"{name}={value}")]
    gpus = fraction if device.type == "cuda" else "0"
    ended = subprocess.run(
        [
            *(sys.executable, str(ROOT / "launch" / script), "--results", str(results)),
            *("--name", "one", "--epochs", "4", "--warmup-epochs", "2", *settings),
            *("--gpus-per-worker", gpus, *more),
        ],
        cwd=results.parent,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def record(results: Path) -> dict[str, Any]:
    content = json.loads((results / "digits" / "one" / "study.json").read_text(encoding="utf-8"))
    return dict(content)


def history(results: Path) -> list[dict[str, Any]]:
    return list(read_table(results / "digits" / "one" / "history.parquet").to_pylist())


def test_two_workers_of_ray_train_share_a_gpu(tmp_path: Path, device: torch.device) -> None:
    results = tmp_path / "results"
    printed = run("train.py", results, device, "0.5", "--workers", "2", "--test")
    assert "2 workers, from epoch 0" in printed
    content = record(results)
    assert content["status"] == "COMPLETE" and content["settings"]["device"] == device.type
    rows = history(results)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    if device.type == "cuda":
        assert f"0.5 x {torch.cuda.get_device_name()} each" in printed
        assert all(row["gpu_memory"] > 0 for row in rows)
    assert "Traceback" not in printed


def test_trials_share_a_gpu(tmp_path: Path, device: torch.device) -> None:
    results = tmp_path / "results"
    more = ("--num-samples", "2", "--folds", "1", "--final", "single", "--no-baselines")
    printed = run(
        "tune.py", results, device, "0.25", *more, "--no-dashboard", "--confirm-seeds", "1"
    )
    content = record(results)
    assert content["status"] == "COMPLETE" and content["settings"]["device"] == device.type
    assert len(history(results)) == 8
    if device.type == "cuda":
        assert f"0.25 x {torch.cuda.get_device_name()} each" in printed
        assert content["environment"]["gpu"] == torch.cuda.get_device_name()
        need = content["gpu"]
        assert 0 < need["memory"] < need["total_memory"]
        assert need["use"] is None or 0 <= need["use"] <= 1
    else:
        assert "gpu" not in content


def test_a_gang_of_two_shares_a_gpu(tmp_path: Path, device: torch.device) -> None:
    results = tmp_path / "results"
    more = ("--num-samples", "1", "--folds", "1", "--final", "single", "--no-baselines")
    printed = run(
        *("tune.py", results, device, "0.5", *more, "--no-dashboard", "--confirm-seeds", "0"),
        *("--workers", "2"),
    )
    assert "2 workers each" in printed
    assert record(results)["status"] == "COMPLETE" and len(history(results)) == 4
