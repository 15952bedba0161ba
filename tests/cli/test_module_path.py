"""The command line finds modules of Python, not files of the current folder with their names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATH = os.environ.get("PYTHONPATH", "")


def paths(current: Path, python_path: str, *options: str) -> tuple[list[str], str]:
    """Search path and PYTHONPATH of a process in a folder, after it has loaded the command line."""
    script = current.parent / "script.py"
    script.write_text(
        "import bbam_ray.cli.main, json, os, sys\n"
        "print(json.dumps([sys.path, os.environ.get('PYTHONPATH')]))\n"
    )
    ended = subprocess.run(
        [sys.executable, *options, str(script)],
        cwd=current,
        env={**os.environ, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ended.stdout)


@pytest.fixture()
def current(tmp_path: Path) -> Path:
    folder = tmp_path / "current"
    folder.mkdir()
    (folder / "statistics.py").write_text("raise RuntimeError('the wrong module')\n")
    return folder


@pytest.mark.parametrize("options", [(), ("-P",)], ids=["", "safe path"])
@pytest.mark.parametrize("python_path", [f"{PATH}{os.pathsep}", f"{os.pathsep}{PATH}"])
def test_an_empty_entry_is_ignored_here_and_in_further_processes(
    current: Path, python_path: str, options: tuple[str, ...]
) -> None:
    search, variable = paths(current, python_path, *options)
    assert str(current) not in search
    assert variable == PATH
    assert (str(current.parent) in search) is (not options)  # the folder of the script


def test_a_folder_that_is_named_stays(current: Path) -> None:
    named = [str(current.parent / "x"), "current", *([PATH] if PATH else [])]
    search, variable = paths(current, os.pathsep.join(("", *named)))
    assert str(current.parent / "x") in search
    assert variable == os.pathsep.join(named)
    (current / "statistics.py").unlink()
    search, _ = paths(current, os.pathsep.join(("", str(current), PATH)))
    assert str(current) in search


@pytest.mark.parametrize("command", ["script", "module"])
def test_the_commands_start_next_to_files_with_names_of_modules(
    current: Path, command: str
) -> None:
    for name in ("random", "types", "queue", "secrets", "json"):
        (current / f"{name}.py").write_text("raise RuntimeError('the wrong module')\n")
    start = [str(ROOT / "launch" / "tune.py")]
    if command == "module":
        start = [str(Path(sys.executable).with_name("bbam-ray")), "tune"]
        if not Path(start[0]).exists():
            pytest.skip("bbam-ray is not installed here")
    flags = ["--dry-run", "--name", "x", "--set", "scenes=120", "--set", "test_scenes=40"]
    ended = subprocess.run(
        [sys.executable, *start, *flags], cwd=current, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
