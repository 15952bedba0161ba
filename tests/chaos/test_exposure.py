"""What other machines and pages in a browser reach of a private Ray, of ranks and ``watch``: nothing."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from bbam_ray import distributed
from bbam_ray.commands.watch import Watched, server_for
from bbam_ray.results.study import StudyRecord, describe_environment

ROOT = Path(__file__).parents[2]
SEARCH = ["--num-samples", "1", "--confirm-seeds", "0"]
TINY = {"scenes": 120, "test_scenes": 40, "labeled_fraction": 0.3, "warmup_passes": 1}


def listening(process: psutil.Process) -> set[tuple[str, str]]:
    """Name and address of whatever listens in a process and its descendants."""
    found = set()
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):
            name = member.name()
            for kind in ("tcp", "udp"):
                for end in member.net_connections(kind):
                    waits = end.status == psutil.CONN_LISTEN or (kind == "udp" and not end.raddr)
                    if waits and end.laddr:
                        found.add((name, end.laddr.ip))
    return found


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def seen_while(command: list[str], log: Path) -> set[tuple[str, str]]:
    """Whatever listened at any moment of a command, which must end well."""
    found: set[tuple[str, str]] = set()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=output, stderr=output
        )
    try:
        tree = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.Error):
                found |= listening(tree)
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, log.read_text()
    return found


def test_a_socket_for_everybody_would_be_seen() -> None:
    code = "import socket; s = socket.create_server(('', 0)); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout and child.stdout.readline()
        found = listening(psutil.Process())
        child.communicate(b"\n")
    assert [ip for _, ip in found if not is_loopback(ip)] == ["0.0.0.0"]
    assert is_loopback("::ffff:127.0.0.1") and is_loopback("::1") and not is_loopback("::")


PRIVATE = """
import json, os, urllib.error, urllib.request
from pathlib import Path
from bbam_ray.scale.cluster.connection import connected
from ray._private import ray_constants

def status(path, data=None):
    asked = urllib.request.Request(f"http://{url}{path}", data, {"Content-Type": "application/json"})
    try:
        return urllib.request.urlopen(asked, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code

before = dict(os.environ), ray_constants.ENABLE_RAY_CLUSTER
with connected("local") as url:
    assert "GLOO_SOCKET_IFNAME" not in os.environ and ray_constants.ENABLE_RAY_CLUSTER == before[1]
    codes = [status("/api/version"), status("/api/jobs/", b'{"entrypoint": "touch ran"}')]
    mode = (Path.home() / ".ray" / "auth_token").stat().st_mode & 0o777
    print(json.dumps([url, codes, oct(mode)]))
"""


@pytest.mark.ray
def test_a_private_ray_answers_those_who_have_the_token_which_is_the_users_own(
    tmp_path: Path,
) -> None:
    unset = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", PRIVATE],
        cwd=tmp_path,
        env=unset | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    url, codes, mode = json.loads(done.stdout.splitlines()[-1])
    assert url.startswith("127.0.0.1:") and codes == [401, 401] and mode == "0o600"
    assert not (tmp_path / "ran").exists()


@pytest.mark.ray
@pytest.mark.parametrize(
    ("script", "flags"),
    [
        pytest.param("tune", SEARCH, id="a gang"),
        pytest.param("train", [], id="Ray Train", marks=pytest.mark.slow),
        pytest.param(
            "tune",
            [*SEARCH, "--trial-runner", "train"],
            id="Ray Train in a trial",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_workers_and_their_private_ray_listen_on_loopback_alone(
    script: str, flags: list[str], tmp_path: Path
) -> None:
    command = [f"launch/{script}.py", "--workers", "2", "--results", str(tmp_path / "r")]
    command += ["--name", "x", "--epochs", "3", "--warmup-epochs", "1", *flags]
    for setting in TINY.items():
        command += ["--set", "{}={}".format(*setting)]
    found = seen_while(command, tmp_path / "log")
    assert {name for name, _ in found} >= {"gcs_server", "raylet", "ray::DashboardAgent"}
    assert [name for name, _ in found if "Worker" in name], found
    assert {(name, ip) for name, ip in found if not is_loopback(ip)} == set()


def test_the_store_by_which_ranks_meet_listens_where_it_was_told() -> None:
    before = listening(psutil.Process())
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    distributed.join(f"127.0.0.1:{port}", 0, 1, backend="gloo", timeout_s=20)
    try:
        added = {ip for _, ip in listening(psutil.Process()) - before}
        with socket.create_connection(("127.0.0.1", port), 5):
            pass
    finally:
        distributed.leave()
    assert "127.0.0.1" in added and "::" not in added and "0.0.0.0" not in added


@pytest.fixture()
def page(tmp_path: Path) -> Iterator[int]:
    """Port of a server for the live page of a study that has just begun."""
    space = {"metric": "val_map", "mode": "max", "parameters": {}}
    content = {"dataset": "digits", "method": "bbam", "space": space, "num_samples": 3}
    folder = tmp_path / "digits" / "live"
    StudyRecord.create(folder, content | {"environment": describe_environment(None)})
    server = server_for(Watched(folder), 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def answer(port: int, method: str, path: str, *hosts: str) -> http.client.HTTPResponse:
    """What a request gets that has exactly the given Host headers."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.putrequest(method, path, skip_host=True)
        for host in hosts:
            connection.putheader("Host", host)
        connection.endheaders()
        found = connection.getresponse()
        found.read()
        return found


def test_the_live_page_is_for_loopback_names_and_for_reading_alone(page: int) -> None:
    assert {ip for _, ip in listening(psutil.Process())} >= {"127.0.0.1"}
    for host in ("127.0.0.1", "localhost", f"127.0.0.1:{page}", f"localhost:{page}"):
        assert answer(page, "GET", "/", host).status == 200, host
    for hosts in (
        *((), ("evil.example",), (f"evil.example:{page}",), ("127.0.0.1.evil.example",)),
        *(("evil.example#@127.0.0.1",), ("localhost.",), ("0.0.0.0",), (f"192.0.2.1:{page}",)),
        ("127.0.0.1", "evil.example"),
        ("evil.example", "127.0.0.1"),
    ):
        assert answer(page, "GET", "/", *hosts).status == 403, hosts
        assert answer(page, "GET", "/state", *hosts).status == 403, hosts
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "HEAD"):
        assert answer(page, method, "/", "127.0.0.1").status == 501, method
    for path in ("/study.json", "/../study.json", "/state/..", "http://evil.example/"):
        assert answer(page, "GET", path, "127.0.0.1").status == 404, path


def test_the_live_page_tells_browsers_to_load_and_send_nothing_elsewhere(page: int) -> None:
    headers = answer(page, "GET", "/", "127.0.0.1").headers
    policy = headers["Content-Security-Policy"]
    for part in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"):
        assert part in policy
    assert "http" not in policy and "*" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"
    assert headers["Access-Control-Allow-Origin"] is None


def test_a_study_keeps_no_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-the-environment")
    described = json.dumps(describe_environment(None))
    values = [value for value in os.environ.values() if len(value) > 12]
    assert "canary-of-the-environment" in values
    assert not [value for value in values if value in described]
