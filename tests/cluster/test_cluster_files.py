"""The files in ``launch/cluster`` are valid for Ray, open no public port and contain no secret."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "launch" / "cluster"
LAUNCHER = ["aws.yaml", "gcp.yaml", "azure.yaml", "on-premise.yaml"]
FILES = sorted(path for path in FOLDER.iterdir() if path.suffix in (".yaml", ".sh"))


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", LAUNCHER)
def test_a_launcher_file_is_valid_for_ray(name: str) -> None:
    """Against Ray's schema, with the defaults of its provider, without contacting the cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(load(name))
    validate_config(config)
    types = config["available_node_types"]
    head = config["head_node_type"]
    assert all(kind.get("min_workers", 0) == 0 for kind in types.values())
    if name != "on-premise.yaml":
        assert types[head]["resources"] == {"CPU": 0, "GPU": 0, "trial_slot": 1000}
        worker = next(kind for key, kind in types.items() if key != head)
        assert worker["max_workers"] <= config["max_workers"] == 8
        assert re.search("spot", json.dumps(worker["node_config"]), re.IGNORECASE)
    assert 1 <= config["idle_timeout_minutes"] <= 30


def test_an_unknown_key_is_an_error() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(prepare_config(load("aws.yaml") | {"idle_timeout": 3}))


@pytest.mark.parametrize("name", LAUNCHER)
def test_every_node_starts_ray_with_a_token_and_the_head_on_loopback(name: str) -> None:
    config = load(name)
    starts = [
        [line for line in config[key] if "ray start" in line]
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
    ]
    for (line,) in starts:
        assert "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=" in line
    (head,), _ = starts
    for flag in (
        *("--num-cpus=0", "--num-gpus=0", """--resources='{"trial_slot": 1000}'"""),
        *("--dashboard-host=127.0.0.1", "--autoscaling-config=~/ray_bootstrap_config.yaml"),
    ):
        assert flag in head
    assert list(config["file_mounts"].values()) == [".", "~/.ray/auth_token"]
    assert ".git" in config["rsync_exclude"] and any(
        "pip" in c or "make" in c for c in config["setup_commands"]
    )


def exposures(text: str) -> list[str]:
    """Kinds of public ports and secrets in a file."""
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("# "))
    patterns = {
        "open to the world": r"0\.0\.0\.0|::/0|\[::\]",
        "a public service": r"\b(LoadBalancer|NodePort|hostPort|hostNetwork|Ingress\b(?!\]))\b",
        "a public dashboard": r"dashboard-host[=: ]+(?!127\.0\.0\.1|\$\(POD_IP\))\S",
        "an AWS key": r"\b(AKIA|ASIA)[A-Z0-9]{16}\b",
        "a private key": r"BEGIN [A-Z ]*PRIVATE KEY",
        "a password or token": r"(?i)(password|secret|token|_key)\s*[=:]\s*['\"]?[A-Za-z0-9+/]{8,}",
        "no authentication": r"RAY_AUTH_MODE\s*[=:]\s*(?!token)\S",
    }
    return [kind for kind, pattern in patterns.items() if re.search(pattern, code)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_port_is_public_and_no_secret_is_written(path: Path) -> None:
    assert exposures(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("IpRanges: [{CidrIp: 0.0.0.0/0}]", "open to the world"),
        ("serviceType: LoadBalancer", "a public service"),
        ("ports: [{containerPort: 1, hostPort: 1}]", "a public service"),
        ("--dashboard-host=0.0.0.0", "a public dashboard"),
        ("dashboard-host: 10.0.0.1", "a public dashboard"),
        ("key: AKIAABCDEFGHIJKLMNOP", "an AWS key"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("password: hunter2hunter2", "a password or token"),
        ("export RAY_AUTH_MODE=disabled", "no authentication"),
    ],
)
def test_exposures_are_detected(line: str, kind: str) -> None:
    assert kind in exposures(f"a: 1\n{line}\n")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_starts_with_cost_commands_and_values_to_change(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    top = "\n".join(line for line in lines[:30] if line.startswith("#"))
    assert "Cost" in top and "Change:" in top
    assert all(
        re.search(rf"^#   .*\b{word}\b", top, re.MULTILINE) for word in ("up", "submit", "down")
    )


def test_the_slurm_script_has_valid_syntax() -> None:
    path = FOLDER / "slurm.sh"
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", path], check=True)
