"""Downloads that are killed, stalled, run twice at once, kept, redirected or have no room."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bbam_ray import files
from bbam_ray.data.download import http as download
from bbam_ray.data.download.http import BLOCK, RemoteFile, fetch
from bbam_ray.data.download.secure_http import refuse_insecure
from bbam_ray.errors import UsageError

BODY = random.Random(1).randbytes(1 << 20)  # as in conftest.py
CHILD = """
import sys
from pathlib import Path
from bbam_ray.data.download.http import RemoteFile, fetch
fetch(RemoteFile(sys.argv[1], "file.bin", 1 << 20), Path(sys.argv[2]))
"""


def remote(publisher: Any) -> RemoteFile:
    return RemoteFile(publisher.url, "file.bin", len(BODY), hashlib.sha256(BODY).hexdigest())


def refused(file: RemoteFile, folder: Path, match: str) -> str:
    with pytest.raises(UsageError, match=match) as caught:
        fetch(file, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def stored(folder: Path) -> int:
    part = folder / "file.bin.part"
    return part.stat().st_size if part.exists() else 0


def test_a_killed_download_goes_on_where_it_was(publisher: Any, tmp_path: Path) -> None:
    publisher.stall_at = 2 * BLOCK + BLOCK // 2
    child = subprocess.Popen([sys.executable, "-c", CHILD, publisher.url, str(tmp_path)])
    try:
        wait_until(lambda: stored(tmp_path) == 2 * BLOCK or child.poll() is not None)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert child.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == ["file.bin.part"]

    publisher.stall_at = None
    publisher.go_on.set()
    assert fetch(remote(publisher), tmp_path).read_bytes() == BODY
    assert publisher.asked == [None, f"bytes={2 * BLOCK}-"]
    assert os.listdir(tmp_path) == ["file.bin"]


def test_a_second_download_into_the_same_folder_is_refused(publisher: Any, tmp_path: Path) -> None:
    publisher.stall_at = BLOCK
    first = threading.Thread(target=fetch, args=(remote(publisher), tmp_path))
    first.start()
    try:
        wait_until(lambda: stored(tmp_path) == BLOCK)
        refused(remote(publisher), tmp_path, "file.bin.part is being written by another process")
        assert stored(tmp_path) == BLOCK
    finally:
        publisher.go_on.set()
        first.join()
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert len(publisher.asked) == 1


def test_a_file_that_another_process_finished_meanwhile_is_taken(
    publisher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_lock(path: Path, descriptor: int) -> None:
        (tmp_path / "file.bin").write_bytes(BODY)

    monkeypatch.setattr(download, "lock", slow_lock)
    assert fetch(remote(publisher), tmp_path) == tmp_path / "file.bin"
    assert publisher.asked == []
    assert os.listdir(tmp_path) == ["file.bin"]


def test_a_partial_file_that_its_owner_renames_while_it_is_opened_is_not_written(
    publisher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def renamed(path: Path, descriptor: int) -> None:
        path.rename(tmp_path / "file.bin")
        lock(path, descriptor)

    lock = download.lock
    monkeypatch.setattr(download, "lock", renamed)
    refused(remote(publisher), tmp_path, "just finished by another process; run the command again")
    assert (tmp_path / "file.bin").read_bytes() == b""
    assert publisher.asked == []


def test_a_file_that_is_there_is_kept_if_it_is_right_and_named_if_not(
    publisher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "lock", lambda *args: pytest.fail("wrote into the folder"))
    target = tmp_path / "file.bin"
    for wrong, match in ((BODY[1:], "has 1048575 bytes"), (b"x" + BODY[1:], "has sha256")):
        target.write_bytes(wrong)
        refused(remote(publisher), tmp_path, rf"file.bin: {match}.*move it away")
        assert target.read_bytes() == wrong
    target.write_bytes(BODY)
    assert fetch(remote(publisher), tmp_path) == target
    assert publisher.asked == []


def test_a_server_that_falls_silent_is_given_up_and_what_came_is_kept(
    publisher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.stall_at = BLOCK
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    begin = time.monotonic()
    message = refused(remote(publisher), tmp_path, "no response for 0.2 seconds")
    assert time.monotonic() - begin < 10
    assert f"run the command again to resume at byte {BLOCK}, or download it" in message
    assert stored(tmp_path) == BLOCK


def test_a_server_that_cannot_be_reached_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/a.zip"
        message = refused(RemoteFile(closed, "a.zip"), tmp_path, "Connection refused")
    assert closed in message and f"put it into {tmp_path.resolve()} as a.zip" in message

    def no_names(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("tried again"))
    refused(RemoteFile("https://nowhere.invalid/a.zip", "a.zip"), tmp_path, "not known.*elsewhere")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["http://example.com/a", "http://10.0.0.1/a", "ftp://localhost/a", "file:///etc/passwd"]
)
def test_only_https_is_used_also_after_a_redirect(url: str, publisher: Any, tmp_path: Path) -> None:
    refused(RemoteFile(url, "a"), tmp_path, "require https")
    publisher.redirect = url
    refused(remote(publisher), tmp_path, f"{publisher.url} .*{url}.*(require https|not allowed)")
    assert list(tmp_path.iterdir()) == []


def test_https_is_not_left_even_for_this_machine() -> None:
    refuse_insecure("http://localhost/a")
    refuse_insecure("https://example.com/a", redirected_from="https://example.com/b")
    with pytest.raises(UsageError, match="require https"):
        refuse_insecure("http://localhost/a", redirected_from="https://example.com/b")


def test_a_redirect_is_followed_with_the_range(publisher: Any, tmp_path: Path) -> None:
    publisher.redirect = "/elsewhere.bin"
    (tmp_path / "file.bin.part").write_bytes(BODY[:1000])
    assert fetch(remote(publisher), tmp_path).read_bytes() == BODY
    assert publisher.asked == ["bytes=1000-"] * 2
    assert publisher.sent == len(BODY) - 1000


def test_a_redirect_in_circles_ends_in_one_sentence(publisher: Any, tmp_path: Path) -> None:
    publisher.redirect = "/file.bin"
    refused(remote(publisher), tmp_path, "responds 302 .*infinite loop.*elsewhere")


def test_a_disk_without_room_is_noticed_before_the_first_byte(
    publisher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": len(BODY) - 1})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: usage)
    message = refused(remote(publisher), tmp_path, "make space or choose another folder")
    assert str(tmp_path.resolve()) in message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(publisher: Any, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    refused(remote(publisher), tmp_path / "taken", "taken/file.bin.part: .*another folder")
    assert publisher.asked == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a/"])
def test_a_name_that_leads_to_another_folder_is_not_accepted(name: str) -> None:
    with pytest.raises(ValueError, match="not a plain file name"):
        RemoteFile("https://example.com/a", name)
