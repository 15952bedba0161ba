"""The live page is served on loopback only and follows the study."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bbam_ray.commands.watch import Watched, server_for
from bbam_ray.errors import UsageError
from bbam_ray.results.store import StudyStore
from bbam_ray.results.study import RUNNING, StudyRecord

ROOT = Path(__file__).parents[2]
SPACE = {"metric": "val_map", "mode": "max", "parameters": {}}
ENVIRONMENT = {"packages": {}, "python": "3", "cpu_count": 2, "gpu": None, "git_commit": None}


@pytest.fixture()
def running(tmp_path: Path) -> tuple[StudyRecord, StudyStore]:
    """A study that has begun."""
    folder = tmp_path / "digits" / "live"
    content = {"dataset": "digits", "method": "bbam", "space": SPACE, "environment": ENVIRONMENT}
    record = StudyRecord.create(folder, content | {"num_samples": 3, "lag": 2})
    assert record.content["status"] == RUNNING
    return record, StudyStore(folder, {"scale": "float"})


def epoch(store: StudyStore, number: int, epoch: int, value: float) -> None:
    who = {"study": "live", "trial_id": f"t{number:05}", "number": number}
    row = {"epoch": epoch, "phase": "main", "val_map": value, "pseudo_positives": 1.25}
    store.history.put([who | row])
    store.flush()


def end(store: StudyStore, number: int, value: float) -> None:
    who = {"study": "live", "trial_id": f"t{number:05}", "number": number, "state": "COMPLETE"}
    row = {"val_map": value, "best_epoch": 1, "epochs": 1, "duration_s": 60.0, "gpu_hours": 0.5}
    store.trials.put([who | row | {"param_scale": 20.0}])
    store.flush()


@pytest.fixture()
def port(running: tuple[StudyRecord, StudyStore]) -> Iterator[int]:
    server = server_for(Watched(running[0].folder), 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def get(port: int, path: str, host: str = "127.0.0.1", method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers={"Host": f"{host}:{port}"})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def test_it_follows_the_study(port: int, running: tuple[StudyRecord, StudyStore]) -> None:
    record, store = running
    assert "running: 0 of 3 trials have ended" in get(port, "/")[1]
    first = get(port, "/state")
    epoch(store, 0, 1, 0.5)
    second = get(port, "/state")
    assert first[0] == second[0] == 200 and first != second == get(port, "/state")
    text = get(port, "/")[1]
    assert "trial 0" in text and "0.5" in text and "1.25" in text
    end(store, 0, 0.5)
    epoch(store, 1, 1, 0.625)
    text = get(port, "/")[1]
    assert "1 of 3 trials have ended" in text and "0.50 GPU-hours" in text
    assert "of searching left" in text and "Learning curves" in text
    before = text.split("Chosen of")[0]
    assert ">trial 1<" in before and ">trial 0<" not in before
    record.end("COMPLETE")
    text = get(port, "/")[1]
    assert "complete: 1 of 3" in text and "searching left" not in text


def test_other_hosts_and_paths_are_refused(port: int) -> None:
    assert get(port, "/", host="localhost")[0] == 200
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        assert get(port, "/", host=host)[0] == 403
    for path in ("/trials.parquet", "/../study.json", "/etc/passwd"):
        assert get(port, path)[0] == 404
    assert get(port, "/", method="POST")[0] == 501
    with socket.socket() as probe:  # bound to loopback, and to nothing else
        probe.settimeout(2)
        own = socket.gethostbyname(socket.gethostname())
        if not own.startswith("127."):
            assert probe.connect_ex((own, port)) != 0


def test_a_port_in_use_is_wrong_usage(port: int, running: tuple[StudyRecord, StudyStore]) -> None:
    with pytest.raises(UsageError, match=f"--port {port}: in use"):
        server_for(Watched(running[0].folder), port)


def test_a_folder_without_a_study_is_refused_before_the_server_starts(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "launch/watch.py", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 2 and "there is no study" in ended.stderr


def test_the_page_in_a_browser_draws_and_reloads_when_the_study_has_changed(
    port: int, running: tuple[StudyRecord, StudyStore], tab: Any
) -> None:
    _, store = running
    epoch(store, 0, 1, 0.5)
    end(store, 0, 0.5)
    tab.errors(), tab.requests()  # of the pages before
    tab.driver.get(f"http://127.0.0.1:{port}/")
    drawn = "return document.querySelectorAll('.js-plotly-plot .main-svg').length"
    assert tab.run(drawn) > 0
    read = "return document.body.innerText"
    assert "1 of 3 trials have ended" in tab.run(read)
    time.sleep(2.5)  # it has seen the first state
    epoch(store, 1, 1, 0.75)
    end(store, 1, 0.75)
    deadline = time.monotonic() + 20
    while "2 of 3 trials have ended" not in tab.run(read):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert tab.run("return document.getElementById('live').textContent") == "live"
    assert [e for e in tab.errors() if "favicon" not in e] == []
    asked = [u for u in tab.requests() if not u.startswith(("data:", "blob:", "chrome:"))]
    assert [url for url in asked if not url.startswith(f"http://127.0.0.1:{port}/")] == []
