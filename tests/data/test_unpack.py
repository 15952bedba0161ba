"""Unpacking of real archives: whole, hostile, damaged, interrupted and unpacked before."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bbam_ray import files
from bbam_ray.data.download import unpack as archives
from bbam_ray.data.download.unpack import extract
from bbam_ray.errors import UsageError

FILES = {"top/a.txt": b"a" * 3000, "top/deep/b.bin": os.urandom(5000), "beside/c.txt": b""}
KINDS = ("x.zip", "x.tar", "x.tar.gz")
CHILD = """
import sys, time
from pathlib import Path
from bbam_ray.data.download.unpack import extract
show = lambda done, total: (print(done, flush=True), time.sleep(60))
extract(Path(sys.argv[1]), Path(sys.argv[2]), max_bytes=10**6, progress=show)
"""


def packed(path: Path, entries: list[tuple[Any, bytes]]) -> Path:
    if path.suffix == ".zip":
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
            warnings.simplefilter("ignore")  # of a name twice
            for entry, content in entries:
                pack.writestr(entry, content)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for entry, content in entries:
            info = entry if isinstance(entry, tarfile.TarInfo) else tarfile.TarInfo(str(entry))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def good(path: Path) -> Path:
    return packed(path, list(FILES.items()))


def tree(folder: Path) -> dict[str, bytes | None]:
    """Content of all files by name; None for folders."""
    paths = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): None if p.is_dir() else p.read_bytes() for p in paths}


def content(folder: Path) -> dict[str, bytes | None]:
    return {name: stored for name, stored in tree(folder).items() if stored is not None}


def refused(archive: Path, folder: Path, match: str, **limits: float) -> None:
    before = tree(folder)
    with pytest.raises(UsageError, match=match) as caught:
        extract(archive, folder, **{"max_bytes": 10**6, **limits})
    assert "\n" not in str(caught.value)
    assert tree(folder) == before


@pytest.mark.parametrize("name", KINDS)
def test_every_file_is_unpacked_and_reported(name: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    archive, target = good(tmp_path / name), tmp_path / "new" / "target"
    extract(
        archive, target, max_bytes=8000, progress=lambda done, total: seen.append((done, total))
    )
    assert content(target) == FILES
    assert sorted(os.listdir(target)) == ["beside", "top"]
    assert seen == [(3000, 8000), (8000, 8000)]


@pytest.mark.parametrize("name", KINDS)
def test_a_name_that_leads_out_of_the_folder_writes_nothing_anywhere(
    name: str, tmp_path: Path
) -> None:
    archive = packed(tmp_path / name, [("top/a", b"1"), ("top/../../out", b"2")])
    refused(archive, tmp_path / "in" / "target", "'top/../../out' points outside the folder")
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_a_bomb_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    archive = packed(tmp_path / name, [("top/a", b"1"), ("top/zeros", bytes(9 * 10**5))])
    refused(archive, tmp_path / "target", "more than 200 times its own size")
    refused(archive, tmp_path / "target", "more than the 900000 bytes", max_bytes=900_000)
    extract(archive, tmp_path / "target", max_bytes=900_001, max_ratio=1000)
    assert (tmp_path / "target" / "top" / "zeros").stat().st_size == 9 * 10**5


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    refused(good(tmp_path / "x.zip"), tmp_path / "target", "contains more than 2 files")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("second", "match"),
    [("top/a", "duplicate file 'top/a'"), ("top/a/b", "as a file and as a folder")],
)
def test_a_name_that_stands_for_two_things_is_refused(
    second: str, match: str, name: str, tmp_path: Path
) -> None:
    archive = packed(tmp_path / name, [("top/a", b"1"), (second, b"2")])
    refused(archive, tmp_path / "target", match)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.8])
def test_a_truncated_archive_is_refused(share: float, name: str, tmp_path: Path) -> None:
    archive = good(tmp_path / name)
    whole = archive.read_bytes()
    size = len(whole) if name != "x.tar" else 11_776  # without the zeros at its end
    archive.write_bytes(whole[: int(size * share)])
    refused(archive, tmp_path / "target", f"{name}: damaged.*download it again")


def test_a_file_that_was_changed_or_is_longer_than_declared_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as pack:
        pack.writestr("top/a", b"abcdefgh" * 100)
    whole = archive.read_bytes()
    at = whole.index(b"abcdefgh")
    archive.write_bytes(whole[:at] + b"X" + whole[at + 1 :])
    refused(archive, tmp_path / "target", "damaged.*CRC")
    place = whole.index(b"PK\x01\x02") + 24  # the size in the directory of the archive
    archive.write_bytes(whole[:place] + (10).to_bytes(4, "little") + whole[place + 4 :])
    refused(archive, tmp_path / "target", "damaged")


@pytest.mark.parametrize(
    ("size", "match"), [(2, "'top/a' is longer than"), (9, "damaged.*'top/a' is shorter than")]
)
def test_bytes_are_counted_again_while_they_are_written(
    size: int, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = packed(tmp_path / "x.zip", [("top/a", b"12345")])
    member = archives.Member(("top", "a"), size, lambda: io.BytesIO(b"12345"))
    monkeypatch.setattr(archives, "read_members", lambda archive, stack: iter([member]))
    (tmp_path / "target").mkdir()
    refused(archive, tmp_path / "target", match)


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "none.zip", tmp_path / "target", "none.zip: no such file")
    for name in ("x.rar", *KINDS):
        (tmp_path / name).write_bytes(b"something else" * 100)
        refused(tmp_path / name, tmp_path / "target", f"{name}: (only .tar|damaged)")
    refused(packed(tmp_path / "e.zip", [("top/", b"")]), tmp_path / "target", "contains no file")


@pytest.mark.parametrize("name", KINDS)
def test_what_is_there_completely_stays_and_the_rest_is_added(name: str, tmp_path: Path) -> None:
    archive, target = good(tmp_path / name), tmp_path / "target"
    extract(archive, target, max_bytes=10**6)
    (target / "beside" / "c.txt").unlink()
    (target / "beside").rmdir()  # as if killed between two entries
    kept = (target / "top" / "a.txt").stat()
    for _ in range(2):
        extract(archive, target, max_bytes=10**6)
        assert content(target) == FILES
    again = (target / "top" / "a.txt").stat()
    assert (again.st_ino, again.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)


@pytest.mark.parametrize("there", ["top/a.txt", "top", "top/other"])
def test_anything_else_of_the_same_name_is_not_touched(there: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (target / there).parent.mkdir(parents=True)
    (target / there).write_bytes(b"the user's")
    refused(good(tmp_path / "x.zip"), target, f"{target / 'top'} exists already.*move it away")


def test_a_file_of_another_size_is_not_taken_for_the_right_one(tmp_path: Path) -> None:
    archive, target = good(tmp_path / "x.zip"), tmp_path / "target"
    extract(archive, target, max_bytes=10**6)
    (target / "top" / "a.txt").write_bytes(FILES["top/a.txt"][1:])
    refused(archive, target, "top exists already and differs from x.zip")


def test_what_appears_while_an_archive_is_unpacked_is_not_overwritten(tmp_path: Path) -> None:
    archive, target = good(tmp_path / "x.zip"), tmp_path / "target"

    def appear(done: int, total: int) -> None:
        (target / "beside").write_bytes(b"the user's")

    with pytest.raises(UsageError, match="beside exists already"):
        extract(archive, target, max_bytes=10**6, progress=appear)
    assert (target / "beside").read_bytes() == b"the user's"
    assert sorted(os.listdir(target)) == ["beside", "top"]


def test_a_full_disk_is_noticed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 7999})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: usage)
    (tmp_path / "target").mkdir()
    refused(good(tmp_path / "x.zip"), tmp_path / "target", "make space or choose another folder")


def test_a_kill_leaves_nothing_under_a_real_name(tmp_path: Path) -> None:
    archive, target = good(tmp_path / "x.tar"), tmp_path / "target"
    arguments = [sys.executable, "-c", CHILD, str(archive), str(target)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == b"3000\n"
            refused(archive, target, "x.tar.unpacking is being written by another process")
        finally:
            child.send_signal(signal.SIGKILL)
    assert os.listdir(target) == [".x.tar.unpacking"]
    assert list(content(target)) == [".x.tar.unpacking/top/a.txt"]
    extract(archive, target, max_bytes=10**6)
    assert content(target) == FILES
