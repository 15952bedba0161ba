"""Atomic files and folders, locks, free space."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from bbam_ray import files
from bbam_ray.errors import UsageError
from bbam_ray.optional import check_installed, needed


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with files.atomic_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and names(tmp_path) == ["a.txt"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), files.atomic_file(path) as temporary:
        temporary.write_text("ne")
        raise OSError("disk full")
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_the_previous_version_is_kept_only_after_a_complete_write(tmp_path: Path) -> None:
    path, previous = tmp_path / "a.txt", tmp_path / files.PREVIOUS / "a.txt"

    def write(text: str) -> None:
        with files.atomic_file(path, keep_previous=True) as temporary:
            temporary.write_text(text)

    write("1")
    assert not previous.exists()
    write("2")
    with pytest.raises(OSError), files.atomic_file(path, keep_previous=True):
        raise OSError
    assert (path.read_text(), previous.read_text()) == ("2", "1")
    write("3")
    assert (path.read_text(), previous.read_text()) == ("3", "2")
    assert names(previous.parent) == ["a.txt"]


def test_unfinished_files_are_removed_by_their_exact_name(tmp_path: Path) -> None:
    for name in (".a[1].txt.77", ".a1.txt.77", "a[1].txt", ".a[1].txt"):
        (tmp_path / name).touch()
    files.remove_unfinished(tmp_path / "a[1].txt")
    assert names(tmp_path) == [".a1.txt.77", ".a[1].txt", "a[1].txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for content in ("old", "new"):
        with files.atomic_folder(folder) as new:
            new.mkdir()
            (new / content).write_text(content)
    assert names(folder) == ["new"] and names(tmp_path) == ["model"]
    with pytest.raises(OSError, match="full"), files.atomic_folder(folder) as new:
        new.mkdir()
        raise OSError("disk full")
    assert names(folder) == ["new"] and names(tmp_path) == ["model"]


def test_a_folder_that_cannot_be_renamed_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    (folder / "old").mkdir(parents=True)
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if self.name == ".model.new":
            raise OSError("refused")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match="refused"), files.atomic_folder(folder) as new:
        new.mkdir()
    assert names(folder) == ["old"] and names(tmp_path) == ["model"]


def test_a_lock_is_held_by_one_until_its_block_ends(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with files.locked(path), pytest.raises(BlockingIOError), files.locked(path):
        pass
    with files.locked(path, wait=True):
        pass


def test_a_file_system_without_locks_gets_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    with files.locked(tmp_path / ".lock"):
        assert "cannot be locked" in caplog.text


def test_free_space_is_that_of_the_nearest_existing_folder(tmp_path: Path) -> None:
    free = files.free_bytes(tmp_path / "not" / "yet")
    assert 0 < free <= shutil.disk_usage(tmp_path).total


def test_too_little_space_names_both_amounts_and_the_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2_500_000))
    files.check_free(tmp_path, 2_500_000, "it", "make space")
    with pytest.raises(UsageError) as caught:
        files.check_free(tmp_path, 3 * 10**9, "the file", "make space")
    assert str(caught.value) == f"{tmp_path}: the file needs 3.00 GB, 2.5 MB are free; make space"


def test_a_pipe_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "missing", Path(__file__)):
        files.check_regular(path)
    with pytest.raises(UsageError, match="pipe or a device"):
        files.check_regular(tmp_path / "pipe")


def test_an_optional_package_that_is_missing_names_its_extra() -> None:
    assert needed("json", "text", "it").dumps([]) == "[]"
    check_installed("json", "text", "it")
    message = r"^it needs the package no_such, .*; pip install 'bbam-ray\[text\]'$"
    for check in (needed, check_installed):
        with pytest.raises(UsageError, match=message):
            check("no_such", "text", "it")
