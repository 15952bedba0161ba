"""A study's folder and its study.json."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bbam_ray.errors import StorageError, UsageError
from bbam_ray.results.schemas import SCHEMA_VERSION
from bbam_ray.results.study import (
    COMPLETE,
    PACKAGES,
    RUNNING,
    StudyRecord,
    check_folder,
    default_name,
    describe_environment,
)


def test_a_new_study_gets_its_folder_and_a_first_state(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "digits" / "mine"
    record = StudyRecord.create(folder, {"seed": 3, "high": float("inf")})
    stored = json.loads((folder / "study.json").read_text())
    assert stored["schema_version"] == SCHEMA_VERSION
    assert (stored["study"], stored["status"], stored["ended_at"]) == ("mine", RUNNING, None)
    assert (stored["seed"], stored["high"]) == (3, "inf")
    assert stored["command"]
    started = datetime.fromisoformat(stored["started_at"])
    assert started.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - started) < timedelta(minutes=1)
    record.end(COMPLETE)
    again = StudyRecord.open(folder).content
    assert again["status"] == COMPLETE
    assert again["ended_at"] >= again["started_at"]
    assert again["seed"] == 3


def test_a_study_that_exists_is_not_created_again(tmp_path: Path) -> None:
    StudyRecord.create(tmp_path / "mine", {"seed": 1})
    before = (tmp_path / "mine" / "study.json").read_bytes()
    with pytest.raises(UsageError, match="mine"):
        StudyRecord.create(tmp_path / "mine", {"seed": 2})
    assert (tmp_path / "mine" / "study.json").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file"):
        StudyRecord.create(tmp_path / "file" / "mine", {})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        '{"schema_version": 99}',
        '{"schema_version": "new"}',
        '{"schema_version": null}',
    ],
)
def test_a_study_json_that_cannot_be_understood_is_wrong_usage(
    content: str, tmp_path: Path
) -> None:
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(UsageError, match=r"study\.json"):
        StudyRecord.open(tmp_path)


def test_a_folder_without_a_study_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"study\.json"):
        StudyRecord.open(tmp_path)


def test_an_update_that_breaks_off_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = StudyRecord.create(tmp_path / "mine", {})

    def refused(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refused)
        patch.setenv("BBAM_RAY_PATIENCE", "0")
        with pytest.raises(StorageError, match="No space left on device"):
            record.end(COMPLETE)
    assert StudyRecord.open(tmp_path / "mine").content["status"] == RUNNING
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"study.json", ".previous"}


# ------------------------------------------------------------------ check_folder


def test_a_free_name_is_accepted_and_nothing_is_created(tmp_path: Path) -> None:
    folder = check_folder(tmp_path / "results", "digits", "my.study-1_a", resume=False)
    assert folder == tmp_path / "results" / "digits" / "my.study-1_a"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-x", "a b", "ä", "a\n", "x" * 101])
def test_a_name_that_is_no_file_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="study name"):
        check_folder(tmp_path, "digits", name, resume=False)


def test_an_existing_study_needs_resume_and_resume_an_existing_study(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--resume: there is no study"):
        check_folder(tmp_path, "digits", "mine", resume=True)
    StudyRecord.create(tmp_path / "digits" / "mine", {})
    with pytest.raises(UsageError, match=r"'mine' exists already.*--resume"):
        check_folder(tmp_path, "digits", "mine", resume=False)
    folder = check_folder(tmp_path, "digits", "mine", resume=True)
    assert StudyRecord.open(folder).content["study"] == "mine"


def test_a_folder_that_holds_no_study_is_neither_used_nor_resumed(tmp_path: Path) -> None:
    (tmp_path / "digits" / "other").mkdir(parents=True)
    (tmp_path / "digits" / "other" / "notes.txt").touch()
    with pytest.raises(UsageError, match="exists already"):
        check_folder(tmp_path, "digits", "other", resume=False)
    with pytest.raises(UsageError, match="no study"):
        check_folder(tmp_path, "digits", "other", resume=True)


@pytest.mark.parametrize("below", ["file", "file/deeper", "file/deeper/still"])
def test_results_that_cannot_be_written_are_refused(below: str, tmp_path: Path) -> None:
    """Below a regular file nobody can write, not even the superuser that a container runs as."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot be written.*--results"):
        check_folder(tmp_path / below, "digits", "mine", resume=False)


# ------------------------------------------------------------------ the rest


def test_the_default_name_is_a_possible_name(tmp_path: Path) -> None:
    name = default_name("bbam")
    assert name.startswith("bbam-")
    check_folder(tmp_path, "digits", name, resume=False)


def test_the_environment_names_versions_and_host() -> None:
    environment = describe_environment("some GPU")
    assert set(environment["packages"]) == set(PACKAGES)
    assert environment["packages"]["torch"] and environment["packages"]["pyarrow"]
    assert environment["gpu"] == "some GPU"
    assert environment["python"].startswith("3.")
    assert environment["cpu_count"] >= 1
    json.dumps(environment)
