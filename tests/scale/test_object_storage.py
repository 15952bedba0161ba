"""A study whose results are on object storage: killed, resumed on another machine, read from there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bbam_ray import load_model, load_study

ROOT = Path(__file__).parents[2]
SETTINGS = ["--epochs", "3", "--warmup-epochs", "1", "--max-concurrent", "1", "--no-dashboard"]
SETTINGS += ["--folds", "1", "--final", "single", "--no-baselines"]
for setting in ("scenes=100", "test_scenes=40", "warmup_passes=1", "hidden_dim=8", "feature_dim=4"):
    SETTINGS += ["--set", setting]


@pytest.mark.ray
def test_a_killed_study_resumes_elsewhere_and_is_read_from_there(
    s3_server: subprocess.Popen[bytes],
    program: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = f"s3://results/{uuid.uuid4().hex}"
    common = ["launch/tune.py", "--results", uri, "--name", "mine", *SETTINGS]
    common += ["--labeled-fraction", "0.4", "--num-samples", "4", "--confirm-seeds", "1"]
    monkeypatch.setenv("BBAM_RAY_CACHE", str(tmp_path / "a"))
    first = program(*common)
    first.until(lambda: _trials(uri, tmp_path / "reader") >= 1)
    os.killpg(first.pid, signal.SIGKILL)
    assert first.finish(60) == -signal.SIGKILL
    monkeypatch.setenv("BBAM_RAY_CACHE", str(tmp_path / "b"))
    again = program(*common)
    assert again.finish(60) == 2 and "exists already" in again.output
    more = program(*common, "--resume")
    assert more.finish(200) == 0, more.output
    assert "done before" in more.output and f"results go to {uri}" in more.output
    monkeypatch.setenv("BBAM_RAY_CACHE", str(tmp_path / "c"))
    study = load_study(f"{uri}/digits/mine")
    assert sorted(study.trials["number"]) == [0, 1, 2, 3] and study.status == "COMPLETE"
    assert sorted(study.confirm["answer"]) == ["final", "published"]
    assert (study.folder / "study.db").is_file()
    assert load_model(f"{uri}/digits/mine").label_names == [str(k) for k in range(10)]
    made = subprocess.run(
        [sys.executable, "launch/report.py", f"{uri}/digits/mine"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "report.html" in made.stdout


def _trials(uri: str, cache: Path) -> int:
    """Trials that a reader elsewhere finds."""
    from bbam_ray.errors import UsageError

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BBAM_RAY_CACHE", str(cache))
        try:
            return len(load_study(f"{uri}/digits/mine").trials)
        except UsageError:
            return 0
