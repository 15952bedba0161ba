"""A real Prometheus with a real study: every query of the dashboard has data, every alert works."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "launch" / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (package prometheus)"
)


@promtool
def test_the_rules_are_what_promtool_takes_and_fire_when_they_should() -> None:
    subprocess.run(["promtool", "check", "rules", FOLDER / "alerts.yml"], check=True)
    subprocess.run(["promtool", "test", "rules", FOLDER / "alerts.test.yml"], check=True)
    subprocess.run(["promtool", "check", "config", FOLDER / "prometheus.yml"], check=True)


def test_every_alert_has_a_test() -> None:
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
    tests = yaml.safe_load((FOLDER / "alerts.test.yml").read_text())["tests"]
    tried = {rule["alertname"] for test in tests for rule in test["alert_rule_test"]}
    assert {rule["alert"] for rule in rules} == tried


def test_panels_do_not_overlap() -> None:
    places = [tuple(panel["gridPos"][k] for k in "xywh") for panel in DASHBOARD["panels"]]
    cells = [(x + i, y + j) for x, y, w, h in places for i in range(w) for j in range(h)]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24


@pytest.fixture()
def prometheus(tmp_path: Path) -> Iterator[str]:
    """Address of a Prometheus that scrapes the study's Ray often."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(FOLDER / "alerts.yml")]
    config["scrape_configs"][0]["file_sd_configs"][0]["refresh_interval"] = "1s"
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}"]
    command += [f"--web.listen-address={address}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://{address}"
    finally:
        server.kill()
        server.wait()


def ask(address: str, query: str) -> list[Any]:
    for name in ("study", "trial"):
        query = query.replace(f"${name}", ".*")
    url = f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        result: list[Any] = json.load(answer)["data"]["result"]
    return result


@pytest.mark.ray
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
def test_every_query_of_the_dashboard_has_data_while_a_study_runs(
    prometheus: str, program: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "1000")
    command = ["launch/tune.py", "--results", str(tmp_path / "results"), "--name", "watched"]
    command += ["--num-samples", "500", "--max-concurrent", "1", "--epochs", "4"]
    command += ["--warmup-epochs", "1", "--confirm-seeds", "0", "--no-reuse", "--folds", "1"]
    for setting in ("scenes=200", "test_scenes=40", "warmup_passes=1", "labeled_fraction=0.4"):
        command += ["--set", setting]
    study = program(*command)
    missing = set(QUERIES)
    deadline = time.monotonic() + 150
    while missing and time.monotonic() < deadline:
        assert not study.ended, study.output
        with contextlib.suppress(OSError):  # it is starting
            missing = {name for name in missing if not ask(prometheus, QUERIES[name])}
        time.sleep(1)
    assert not missing, f"no data for {sorted(missing)}"
    alerts = {
        rule["alert"]
        for rule in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
    }
    with urllib.request.urlopen(f"{prometheus}/api/v1/rules", timeout=10) as answer:
        rules = json.load(answer)["data"]["groups"][0]["rules"]
    assert {rule["name"] for rule in rules} == alerts
    assert all(rule["health"] == "ok" for rule in rules)
    states = ask(prometheus, 'ray_bbam_trials{study="watched"}')
    assert {s["metric"]["state"] for s in states} >= {"RUNNING", "COMPLETE"}
