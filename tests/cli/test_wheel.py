"""The built wheel works outside the repository: it carries search spaces and launch files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed, as in another environment with the same dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True, timeout=120)
    return target


def run(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(site / "bin" / "bbam-ray"), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_the_wheel_carries_spaces_launch_files_templates_and_types(site: Path) -> None:
    (wheel,) = site.parent.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "bbam_ray/py.typed",
        "bbam_ray/search_spaces/digits.yaml",
        "bbam_ray/search_spaces/published/voc.yaml",
        "bbam_ray/launch/tune.py",
        "bbam_ray/report/assets/page.css",
        "bbam_ray/report/templates/page.html.j2",
    } <= names
    assert not any(name.startswith(("tests/", "benchmarks/", "stress/")) for name in names)
    (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
    assert "License-Expression: MIT" in zipfile.ZipFile(wheel).read(metadata).decode()


def test_the_command_searches_outside_the_repository(site: Path, tmp_path: Path) -> None:
    ended = run(
        site,
        tmp_path,
        *("tune", "--num-samples", "1", "--epochs", "2", "--warmup-epochs", "1", "--json"),
        *("--set", "scenes=100", "--set", "labeled_fraction=0.4", "--confirm-seeds", "1"),
        *("--set", "test_scenes=40", "--no-dashboard", "--name", "outside"),
        *("--folds", "1", "--final", "single", "--no-baselines"),
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["confirmed"][0]["seeds"] == 1
    record = json.loads((tmp_path / "results" / "digits" / "outside" / "study.json").read_text())
    assert Path(record["space_file"]).is_relative_to(site)


def test_version_and_help_answer(site: Path, tmp_path: Path) -> None:
    assert run(site, tmp_path, "--version").stdout.startswith("bbam-ray 0.")
    shown = run(site, tmp_path, "tune", "--help").stdout
    for flag in ("--dataset", "--labeled-fraction", "--confirm-seeds", "--resume", "--dry-run"):
        assert flag in shown
