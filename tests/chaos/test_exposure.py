"""Other machines and web pages cannot reach a private Ray, the ranks of a gang, or ``watch``."""

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
SEARCH = ["--num-samples", "1", "--confirm-seeds", "0", "--folds", "1"]
TINY = {"scenes": 120, "test_scenes": 40, "labeled_fraction": 0.3, "warmup_passes": 1}


def listening(process: psutil.Process) -> set[tuple[str, str]]:
    """Process name and address of each listening socket of a process and its descendants."""
    sockets = set()
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):
            name = member.name()
            for kind in ("tcp", "udp"):
                for end in member.net_connections(kind):
                    listens = end.status == psutil.CONN_LISTEN or (kind == "udp" and not end.raddr)
                    if listens and end.laddr:
                        sockets.add((name, end.laddr.ip))
    return sockets


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def listening_during(command: list[str], log: Path) -> set[tuple[str, str]]:
    """All sockets that listened at any time of a command, which must succeed."""
    sockets: set[tuple[str, str]] = set()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=output, stderr=output
        )
    try:
        tree = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.Error):
                sockets |= listening(tree)
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, log.read_text()
    return sockets


def test_a_socket_on_all_addresses_is_detected() -> None:
    code = "import socket; s = socket.create_server(('', 0)); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout and child.stdout.readline()
        sockets = listening(psutil.Process())
        child.communicate(b"\n")
    assert [ip for _, ip in sockets if not is_loopback(ip)] == ["0.0.0.0"]
    assert is_loopback("::ffff:127.0.0.1") and is_loopback("::1") and not is_loopback("::")


PRIVATE = """
import json, os, urllib.error, urllib.request
from pathlib import Path
from bbam_ray.scale.cluster.connection import connected
from ray._private import ray_constants

def status(path, data=None):
    request = urllib.request.Request(f"http://{url}{path}", data, {"Content-Type": "application/json"})
    try:
        return urllib.request.urlopen(request, timeout=20).status
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
def test_a_private_ray_requires_a_token_that_only_its_user_can_read(
    tmp_path: Path,
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ended = subprocess.run(
        [sys.executable, "-c", PRIVATE],
        cwd=tmp_path,
        env=environment | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    url, codes, mode = json.loads(ended.stdout.splitlines()[-1])
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
def test_two_workers_and_their_private_ray_listen_only_on_loopback(
    script: str, flags: list[str], tmp_path: Path
) -> None:
    command = [f"launch/{script}.py", "--workers", "2", "--results", str(tmp_path / "r")]
    command += ["--name", "x", "--epochs", "3", "--warmup-epochs", "1", *flags]
    for setting in TINY.items():
        command += ["--set", "{}={}".format(*setting)]
    sockets = listening_during(command, tmp_path / "log")
    assert {name for name, _ in sockets} >= {"gcs_server", "raylet", "ray::DashboardAgent"}
    assert [name for name, _ in sockets if "Worker" in name], sockets
    assert {(name, ip) for name, ip in sockets if not is_loopback(ip)} == set()


def test_the_rendezvous_store_listens_only_on_its_given_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    distributed.join(f"127.0.0.1:{port}", 0, 1, backend="gloo", timeout_s=20)
    try:
        sockets = psutil.Process().net_connections("tcp")
        listening = (s.laddr for s in sockets if s.status == psutil.CONN_LISTEN)
        addresses = {address.ip for address in listening if address.port == port}
        with socket.create_connection(("127.0.0.1", port), 5):
            pass
    finally:
        distributed.leave()
    assert addresses == {"127.0.0.1"}


@pytest.fixture()
def page(tmp_path: Path) -> Iterator[int]:
    """Port of a server for the live page of a study that has just started."""
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


def request(port: int, method: str, path: str, *hosts: str) -> http.client.HTTPResponse:
    """The response to a request with exactly these Host headers."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.putrequest(method, path, skip_host=True)
        for host in hosts:
            connection.putheader("Host", host)
        connection.endheaders()
        response = connection.getresponse()
        response.read()
        return response


def test_the_live_page_is_read_only_and_served_only_for_loopback_names(page: int) -> None:
    assert {ip for _, ip in listening(psutil.Process())} >= {"127.0.0.1"}
    for host in ("127.0.0.1", "localhost", f"127.0.0.1:{page}", f"localhost:{page}"):
        assert request(page, "GET", "/", host).status == 200, host
    for hosts in (
        *((), ("evil.example",), (f"evil.example:{page}",), ("127.0.0.1.evil.example",)),
        *(("evil.example#@127.0.0.1",), ("localhost.",), ("0.0.0.0",), (f"192.0.2.1:{page}",)),
        ("127.0.0.1", "evil.example"),
        ("evil.example", "127.0.0.1"),
    ):
        assert request(page, "GET", "/", *hosts).status == 403, hosts
        assert request(page, "GET", "/state", *hosts).status == 403, hosts
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "HEAD"):
        assert request(page, method, "/", "127.0.0.1").status == 501, method
    for path in ("/study.json", "/../study.json", "/state/..", "http://evil.example/"):
        assert request(page, "GET", path, "127.0.0.1").status == 404, path


def test_the_live_page_forbids_browsers_to_contact_other_hosts(page: int) -> None:
    headers = request(page, "GET", "/", "127.0.0.1").headers
    policy = headers["Content-Security-Policy"]
    for part in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"):
        assert part in policy
    assert "http" not in policy and "*" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"
    assert headers["Access-Control-Allow-Origin"] is None


def test_a_study_stores_no_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-the-environment")
    described = json.dumps(describe_environment(None))
    values = [value for value in os.environ.values() if len(value) > 12]
    assert "canary-of-the-environment" in values
    assert not [value for value in values if value in described]
