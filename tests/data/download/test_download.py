"""Downloads from a server that drops connections, ignores ranges, lies and is out of order."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from bbam_ray.data.download.http import RemoteFile, fetch
from bbam_ray.errors import UsageError

BODY = random.Random(1).randbytes(1 << 20)  # as in conftest.py
SHA256, MD5 = hashlib.sha256(BODY).hexdigest(), hashlib.md5(BODY).hexdigest()
HALF = len(BODY) // 2


def remote(publisher: Any, size: int | None = len(BODY), sha256: str = SHA256) -> RemoteFile:
    return RemoteFile(publisher.url, "file.bin", size, sha256, MD5)


def refused(file: RemoteFile, folder: Path, match: str) -> str:
    with pytest.raises(UsageError, match=match) as caught:
        fetch(file, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def begun(folder: Path, content: bytes) -> Path:
    part = folder / "file.bin.part"
    part.write_bytes(content)
    return part


def only(folder: Path, content: bytes = BODY) -> bool:
    """Whether the folder holds the finished file and nothing else."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} == {"file.bin": content}


def test_a_file_arrives_whole_and_is_reported_on_the_way(publisher: Any, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch(
        remote(publisher), tmp_path / "new", lambda done, total: seen.append((done, total))
    )
    assert path == tmp_path / "new" / "file.bin"
    assert only(tmp_path / "new")
    assert seen[0] == (0, len(BODY)) and seen[-1] == (len(BODY), len(BODY)) and seen == sorted(seen)
    assert len(seen) > 3


def test_dropped_connections_are_resumed_and_no_byte_is_sent_twice(
    publisher: Any, tmp_path: Path
) -> None:
    publisher.cuts = [300_000, 1, 200_000, 50_000]  # more than there are waits: progress counts
    fetch(remote(publisher), tmp_path)
    assert only(tmp_path)
    assert publisher.sent == len(BODY)
    assert publisher.asked == [None, *(f"bytes={n}-" for n in (300000, 300001, 500001, 550001))]


def test_a_later_call_asks_for_the_rest_only(publisher: Any, tmp_path: Path) -> None:
    begun(tmp_path, BODY[:HALF])
    fetch(remote(publisher, size=None), tmp_path)
    assert only(tmp_path)
    assert (publisher.asked, publisher.sent) == ([f"bytes={HALF}-"], len(BODY) - HALF)


@pytest.mark.parametrize(
    ("spoilt", "requests"), [({"ranges": False}, 1), ({"shift": 7}, 2)], ids=["none", "another"]
)
def test_a_server_without_the_right_range_makes_it_start_again(
    spoilt: dict[str, int], requests: int, publisher: Any, tmp_path: Path
) -> None:
    vars(publisher).update(spoilt)
    begun(tmp_path, b"x" * HALF)  # would spoil the file if it were kept
    fetch(remote(publisher), tmp_path)
    assert only(tmp_path)
    assert len(publisher.asked) == requests


@pytest.mark.parametrize("size", [len(BODY), None])
def test_a_complete_partial_file_needs_no_byte_more(
    size: int | None, publisher: Any, tmp_path: Path
) -> None:
    begun(tmp_path, BODY)
    fetch(remote(publisher, size), tmp_path)
    assert only(tmp_path)
    assert publisher.sent == 0
    assert len(publisher.asked) == (0 if size else 1)


@pytest.mark.parametrize("size", [len(BODY), None])
def test_a_partial_file_that_is_too_long_is_started_again(
    size: int | None, publisher: Any, tmp_path: Path
) -> None:
    begun(tmp_path, BODY + b"x")
    fetch(remote(publisher, size), tmp_path)
    assert only(tmp_path)


def test_a_partial_file_that_is_all_the_server_has_is_not_taken_for_the_whole(
    publisher: Any, tmp_path: Path
) -> None:
    publisher.body = BODY[:-1]
    begun(tmp_path, BODY[:-1])
    refused(remote(publisher), tmp_path, f"announces {len(BODY) - 1} bytes instead of {len(BODY)}")


def test_the_digest_covers_what_an_earlier_run_has_stored(publisher: Any, tmp_path: Path) -> None:
    begun(tmp_path, b"x" + BODY[1:HALF])
    message = refused(remote(publisher), tmp_path, f"sha256 .* instead of {SHA256}")
    assert publisher.url in message and str(tmp_path.resolve()) in message
    assert list(tmp_path.iterdir()) == []
    refused(
        RemoteFile(publisher.url, "file.bin", md5="0" * 32), tmp_path, f"md5 {MD5} instead of 0"
    )


@pytest.mark.parametrize(
    ("spoilt", "size", "match"),
    [
        ({"body": BODY[:-1]}, len(BODY), f"{len(BODY) - 1} bytes instead of {len(BODY)}"),
        ({"length": False}, None, "no length"),
        (
            {"length": False, "body": BODY + b"x"},
            len(BODY),
            f"more than the expected {len(BODY)} bytes",
        ),
        ({"codes": [404]}, len(BODY), "responds 404 Not Found"),
        ({"codes": [204]}, len(BODY), "responds 204"),
        ({"codes": [503] * 3}, len(BODY), "responds 503"),
    ],
    ids=["short", "no length", "long", "missing", "empty", "out of order"],
)
def test_an_answer_that_does_not_fit_is_refused_with_the_way_out(
    spoilt: dict[str, object], size: int | None, match: str, publisher: Any, tmp_path: Path
) -> None:
    vars(publisher).update(spoilt)
    message = refused(remote(publisher, size), tmp_path, match)
    assert message.startswith(f"cannot download {publisher.url}")
    assert message.endswith(f"elsewhere and put it into {tmp_path.resolve()} as file.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_busy_for_a_moment_is_asked_again(publisher: Any, tmp_path: Path) -> None:
    publisher.codes = [503, 429]
    fetch(remote(publisher), tmp_path)
    assert only(tmp_path)
