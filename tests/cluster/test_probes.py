"""The probes of ``kuberay-job.yaml`` need neither a token nor a dashboard on 127.0.0.1."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def body(url: str) -> str:
    """What a GET without a token returns; empty if no one listens or it is refused."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return str(response.read().decode())
    except (OSError, urllib.error.HTTPError):
        return ""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_agent_reports_health_to_the_probes(
    start_head: Callable[..., None],
    free_port: Callable[[], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = next(yaml.safe_load_all((ROOT / "launch/cluster/kuberay-job.yaml").read_text()))
    (head,) = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    token = tmp_path / "auth_token"
    token.write_text("t" * 40)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    agent, dashboard = free_port(), free_port()
    flags = [f"--port={free_port()}", "--num-cpus=0", "--dashboard-host=127.0.0.2"]
    flags += [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    probe = head["readinessProbe"]["httpGet"]["path"]
    start_head(*flags, ready=lambda: "success" in body(f"http://127.0.0.1:{agent}{probe}"))
    assert head["livenessProbe"]["httpGet"]["path"] == probe
    # KubeRay 1.5 asks this address of the head, which has no listener here.
    assert body(f"http://127.0.0.1:{dashboard}/api/gcs_healthz") == ""
    assert "success" in body(f"http://127.0.0.2:{dashboard}/api/gcs_healthz")
