"""``doctor``: its findings for given facts, and for a real Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from bbam_ray.commands.doctor import doctor as examine_all
from bbam_ray.scale.cluster.doctor import (
    Finding,
    check_extras,
    check_gpus,
    check_results,
    facts,
    judged,
)

ROOT = Path(__file__).parents[2]
GPU = {"nccl": True, "cuda": "12.8", "driver": "580.1", "bf16": True}


@pytest.fixture()
def node() -> dict[str, Any]:
    """The facts of a node without problems."""
    healthy = {"sees_probe": True, "skew_s": 0.0, "temporary_gb": 50.0, "shared_memory_gb": 8.0}
    return facts() | healthy | {"files": 65536, "gpus": ["A10G"], "gpu_gb": [24.0]} | GPU


def levels(findings: list[Finding]) -> dict[str, str]:
    return {finding.check.removeprefix("n: "): finding.level for finding in findings}


def test_a_good_node_has_no_warning(node: dict[str, Any]) -> None:
    findings = judged("n", facts(), node)
    assert set(levels(findings).values()) == {"ok"} and len(findings) >= 6
    text = "A10G (24 GB), driver 580.1, CUDA 12.8, NCCL, bf16"
    assert any(finding.text == text for finding in findings)


@pytest.mark.parametrize(
    ("change", "check", "level", "words"),
    [
        ({"python": "3.10.0"}, "versions", "blocker", "python 3.10.0 (driver 3."),
        ({"nccl": False}, "GPUs", "blocker", "no NCCL"),
        ({"sees_probe": False}, "results folder", "warning", "all nodes share"),
        ({"skew_s": 3.5}, "clock", "warning", "3.5 s; start a time service"),
        ({"temporary_gb": 1.0}, "disk of /tmp", "warning", "1 GB free; at least 10 are better"),
        ({"shared_memory_gb": 0.06}, "shared memory", "warning", "0 GB in /dev/shm"),
        ({"files": 1024}, "open files", "warning", "1024 allowed"),
    ],
)
def test_each_defect_of_a_node_is_reported(
    change: dict[str, Any], check: str, level: str, words: str, node: dict[str, Any]
) -> None:
    findings = judged("n", facts(), node | change)
    assert levels(findings)[check] == level
    assert [name for name, other in levels(findings).items() if other != "ok"] == [check]
    assert any(words in finding.text for finding in findings)


def test_a_missing_package_and_an_unresponsive_node_are_blockers(node: dict[str, Any]) -> None:
    node["packages"] = {**node["packages"], "torchvision": None}
    (finding, *_) = judged("n", facts(), node)
    assert finding.level == "blocker" and "torchvision missing" in finding.text
    (unresponsive,) = judged("n", facts(), "GetTimeoutError")
    assert unresponsive.level == "blocker" and "GetTimeoutError" in unresponsive.text


def test_an_extra_package_is_described_and_only_compared_if_the_driver_has_it(
    node: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {**facts(), "packages": {**facts()["packages"], "timm": "1.0.30"}}
    (without,) = [
        f
        for f in judged("n", here, node | {"packages": {**here["packages"], "timm": None}})
        if f.check == "n: versions"
    ]
    assert without.level == "blocker" and "timm missing (driver 1.0.30)" in without.text
    driver = {**here, "packages": {**here["packages"], "timm": None}}
    assert judged("n", driver, node | {"packages": here["packages"]})[0].level == "ok"

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("bbam_ray.scale.cluster.doctor.version", missing)
    (finding,) = check_extras()
    assert finding.level == "ok" and "pip install 'bbam-ray[vision]'" in finding.text


def doctor(*arguments: object) -> tuple[int, list[dict[str, str]], str]:
    command = [sys.executable, "launch/doctor.py", "--json", *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return ended.returncode, json.loads(ended.stdout or "[]"), ended.stderr


@pytest.mark.ray
def test_this_machine_has_no_blocker(tmp_path: Path) -> None:
    code, findings, errors = doctor("--results", tmp_path / "results")
    by_check = {f["check"].split(": ")[-1]: f for f in findings}
    assert code == 0, (findings, errors)
    assert by_check["versions"]["level"] == by_check["token"]["level"] == "ok"
    assert by_check["dashboard"]["level"] == "ok" and "on loopback" in by_check["dashboard"]["text"]
    assert by_check["clock"]["level"] == "ok"
    assert "results folder" in by_check and list((tmp_path / "results").iterdir()) == []


@pytest.mark.ray
def test_a_results_folder_that_cannot_be_written_is_a_blocker(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, findings, _ = doctor("--results", tmp_path / "file" / "results")
    (blocker,) = [f for f in findings if f["level"] == "blocker"]
    assert code == 2 and blocker["check"] == "results folder"
    assert "choose another --results" in blocker["text"]


def test_checks_before_ray_are_reported_although_ray_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**options: Any) -> None:
        raise RuntimeError("the raylet died")

    monkeypatch.setattr(ray, "init", fails)
    findings = examine_all("local", tmp_path / "results")
    assert next(findings).check == "results folder"
    assert next(findings).check == "GPUs"
    assert any(finding.check == "timm" for finding in check_extras())
    *_, last = findings
    assert last.level == "blocker" and last.check == "Ray" and "the raylet died" in last.text


def test_a_gpu_of_this_machine_is_described() -> None:
    if torch.cuda.is_available():
        first, second = check_gpus()
        assert torch.cuda.get_device_name() in first.text and "driver" in first.text
        assert second.check == "torch.compile"
    else:
        assert [(f.check, f.text) for f in check_gpus()] == [("GPUs", "none")]


@pytest.mark.parametrize(("bucket", "level"), [("results", "ok"), ("none-such", "blocker")])
def test_results_on_object_storage_are_checked(
    bucket: str, level: str, s3_server: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finding = check_results(Path(f"s3://{bucket}/x"))
    assert finding.level == level and f"s3://{bucket}/x" in finding.text
    assert not list(tmp_path.iterdir())
