"""The image for clusters: one version of Ray and Python in all files, exact requirements, its context."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from bbam_ray import __version__

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "launch" / "cluster"
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins() -> dict[str, Version]:
    """Name to exact version of each requirement of the image."""
    lines = (FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    split = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in split}


def test_one_version_of_ray_and_python_in_all_files() -> None:
    ray = str(pins()["ray"])
    (python,) = re.findall(r"^ARG PYTHON=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert python in {text.rpartition(" ")[2] for text in PROJECT["classifiers"]}
    named = set()
    for path in sorted(FOLDER.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        named.update(re.findall(r"rayVersion: \"(.+)\"", text))
        for version, tag in re.findall(r"rayproject/ray:([\d.]+)-py(\d+)", text):
            named.add(version)
            assert tag == python.replace(".", ""), path
    assert named == {ray}


def test_the_requirements_satisfy_the_project() -> None:
    extras = PROJECT["optional-dependencies"]
    for text in PROJECT["dependencies"] + extras["vision"] + extras["text"]:
        wanted = Requirement(text)
        assert pins()[canonicalize_name(wanted.name)] in wanted.specifier, text


def test_commands_in_files_name_the_image_of_this_version() -> None:
    texts = [DOCKERFILE, *(path.read_text() for path in FOLDER.glob("kuberay-*.yaml"))]
    for text in texts:
        tags = set(re.findall(r"bbam-ray:([\d.]*\d)", text))
        assert tags == {__version__}


def test_the_user_has_no_privileges() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    (user,) = re.findall(r"^USER (\S+)$", last, re.MULTILINE)
    assert user == "1000:1000"  # a number, by which Kubernetes sees that it is not root


def test_the_context_is_enough_to_build_the_wheel(tmp_path: Path) -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*", "everything is excluded but what is named"
    for name in (line[1:] for line in lines if line.startswith("!")):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name)
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    for name in re.findall(r"^COPY (?!--|\. )(\S+)", DOCKERFILE, re.MULTILINE):
        assert (tmp_path / name).is_file()
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "built", "."]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "built").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("cli/main.py", "launch/tune.py", "search_spaces/digits.yaml"):
        assert f"bbam_ray/{name}" in names


def test_the_linter_of_dockerfiles_has_no_objection() -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("hadolint is missing: pip install 'bbam-ray[dev]'")
    ended = subprocess.run([linter, FOLDER / "Dockerfile"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
