"""Results on object storage: a real server, two machines (two folders of copies), and one that is away."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyarrow import fs

from bbam_ray.errors import StorageError, UsageError
from bbam_ray.results import storage as storing
from bbam_ray.results.remote import address_of, local_copy
from bbam_ray.results.remote_files import RemoteFiles
from bbam_ray.results.storage import Storage
from bbam_ray.results.sync_state import STATE

Server = subprocess.Popen


@pytest.mark.parametrize(
    ("place", "uri"),
    [
        (Path("s3://bucket/results"), "s3://bucket/results"),
        ("gs://bucket/a/b/", "gs://bucket/a/b"),
        (Path("results"), None),
        ("/shared/results", None),
        (Path("C:/x"), None),
        ("", None),
    ],
)
def test_uris_are_told_from_paths(place: str | Path, uri: str | None) -> None:
    assert address_of(place) == uri


@pytest.fixture()
def uri(s3_server: Server) -> str:
    """A results folder of its own in the bucket."""
    return f"s3://results/{uuid.uuid4().hex}"


@contextmanager
def machine(name: str, tmp_path: Path) -> Iterator[None]:
    """What another machine is to the storage: other copies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BBAM_RAY_CACHE", str(tmp_path / name))
        yield


def stored(uri: str) -> dict[str, bytes]:
    """All files below a URI but those of the storage itself."""
    files, base = fs.FileSystem.from_uri(uri)
    found = {}
    for info in files.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True)):
        if info.type == fs.FileType.File and not info.base_name.startswith("."):
            with files.open_input_stream(info.path) as stream:
                found[info.path[len(base) + 1 :]] = stream.read()
    return found


def write(storage: Storage, **contents: str) -> Path:
    folder = storage.local / "digits" / "mine"
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_json", ".json").replace("_pq", ".parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def test_what_a_study_writes_is_there_when_it_ends(uri: str, tmp_path: Path) -> None:
    with machine("a", tmp_path):
        with Storage(uri) as storage:
            folder = write(storage, study_json="{}", checkpoints__x__model="m", trials_pq="1")
            (folder / ".trials.parquet.77").write_text("half of it")
            (folder / "checkpoints" / "trials").mkdir()
            (folder / "checkpoints" / "trials" / "big").write_text("only of use here")
        assert stored(uri) == {
            "digits/mine/study.json": b"{}",
            "digits/mine/trials.parquet": b"1",
            "digits/mine/checkpoints/x/model": b"m",
        }
        with Storage(uri) as storage:
            storage.fetch("mine")
            (folder / "checkpoints" / "x" / "model").unlink()
            write(storage, trials_pq="2")
        assert stored(uri) == {
            "digits/mine/study.json": b"{}",
            "digits/mine/trials.parquet": b"2",
        }


def test_changes_arrive_while_the_study_runs(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "_SECONDS", 0.05)
    with machine("a", tmp_path), Storage(uri) as storage:
        for content in ("1", "2"):
            write(storage, study_json=content)
            deadline = time.monotonic() + 20
            while stored(uri).get("digits/mine/study.json") != content.encode():
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_only_what_changed_is_uploaded(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    real = RemoteFiles.write

    def counted(self: RemoteFiles, path: str, content: object) -> None:
        sent.append(path.rsplit("/", 1)[-1])
        real(self, path, content)

    monkeypatch.setattr(RemoteFiles, "write", counted)
    with machine("a", tmp_path):
        with Storage(uri) as storage:
            write(storage, study_json="{}", trials_pq="1", model="m", history_pq="h")
        assert sent[0] == STATE  # whose it is comes first, trials and their state last
        assert sent[1:] == ["model", "history.parquet", "trials.parquet", "study.json"]
        sent.clear()
        with Storage(uri) as storage:
            storage.fetch("mine")
            write(storage, trials_pq="12")
        assert sent == ["trials.parquet"]


def test_a_trial_never_arrives_without_its_history(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next trial ends while the first one's files are on their way."""
    real = RemoteFiles.write

    def slowly(self: RemoteFiles, path: str, content: object) -> None:
        real(self, path, content)
        if path.endswith("history.parquet"):
            for name in ("history", "trials"):
                new = storage.local / "digits" / "mine" / f".{name}"
                new.write_text("2nd")
                new.replace(new.with_name(f"{name}.parquet"))

    with machine("a", tmp_path):
        storage = Storage(uri)
        write(storage, history_pq="1", trials_pq="1")
        monkeypatch.setattr(RemoteFiles, "write", slowly)
        storage._push_all()
        assert stored(uri)["digits/mine/trials.parquet"] == b"1"
        storage._push_all()
        assert stored(uri)["digits/mine/trials.parquet"] == b"2nd"


def test_another_machine_goes_on_and_the_first_one_notices(uri: str, tmp_path: Path) -> None:
    with machine("a", tmp_path), Storage(uri) as storage:
        write(storage, study_json="a", trials_pq="1")
    with machine("b", tmp_path), Storage(uri) as storage:
        storage.fetch("mine")
        folder = storage.local / "digits" / "mine"
        assert (folder / "trials.parquet").read_text() == "1"
        write(storage, trials_pq="12")
    with machine("a", tmp_path):
        storage = Storage(uri)
        storage.fetch("mine")
        assert (storage.local / "digits" / "mine" / "trials.parquet").read_text() == "12"


def test_a_killed_driver_goes_on_with_what_its_disk_has(uri: str, tmp_path: Path) -> None:
    with machine("a", tmp_path):
        with Storage(uri) as storage:
            write(storage, study_json="{}", trials_pq="1")
        write(storage, trials_pq="12")  # and no upload any more
        with Storage(uri) as storage:
            storage.fetch("mine")
        assert stored(uri)["digits/mine/trials.parquet"] == b"12"


def test_two_machines_at_one_study_are_noticed(uri: str, tmp_path: Path) -> None:
    with machine("a", tmp_path), Storage(uri) as storage:
        write(storage, study_json="{}", trials_pq="1")
    with machine("a", tmp_path):
        first = Storage(uri)
        first.fetch("mine")
    with machine("b", tmp_path), Storage(uri) as second:
        second.fetch("mine")
        write(second, trials_pq="of b")
    elsewhere = "is also being run elsewhere; the results of this machine"
    with pytest.raises(StorageError, match=elsewhere), first:
        write(first, trials_pq="of a, longer")
    assert stored(uri)["digits/mine/trials.parquet"] == b"of b"
    assert (first.local / "digits" / "mine" / "trials.parquet").read_text() == "of a, longer"


def test_readers_take_nothing_over(uri: str, tmp_path: Path) -> None:
    with machine("a", tmp_path), Storage(uri) as running:
        folder = write(running, study_json='{"status": "RUNNING"}', trials_pq="1")
        running._push_all()
        with machine("b", tmp_path):
            copy = local_copy(Path(f"{uri}/digits/mine"))
            assert (copy / "trials.parquet").read_text() == "1"
            assert local_copy(f"{uri}/digits/mine/checkpoints/x") == copy / "checkpoints" / "x"
            with Storage(uri, reads=True) as reader:
                reader.fetch("mine")
                (copy / "report.html").write_text("r")
        write(running, trials_pq="12")
        assert folder.exists()
    assert stored(uri)["digits/mine/trials.parquet"] == b"12"
    assert stored(uri)["digits/mine/report.html"] == b"r"
    with machine("b", tmp_path):  # and see what is new
        assert (local_copy(f"{uri}/digits/mine") / "trials.parquet").read_text() == "12"


def test_a_reader_fetches_what_has_changed_and_nothing_else(uri: str, tmp_path: Path) -> None:
    """The live page looks every ten seconds, and draws anew when a file is another one."""
    with machine("a", tmp_path), Storage(uri) as running:
        write(running, study_json="{}", trials_pq="1", checkpoints__x__model="large", old_pq="o")
        running._push_all()
        with machine("b", tmp_path):
            copy = local_copy(f"{uri}/digits/mine")
            files = [path for path in copy.rglob("*") if path.is_file()]
            before = {path: path.stat().st_mtime_ns for path in files}
            local_copy(f"{uri}/digits/mine")
            assert {path: path.stat().st_mtime_ns for path in files} == before
        (write(running, trials_pq="12") / "old.parquet").unlink()
        running._push_all()
        with machine("b", tmp_path):
            local_copy(f"{uri}/digits/mine")
            changed = {p.name for p in files if not p.exists() or p.stat().st_mtime_ns != before[p]}
            assert changed == {"trials.parquet", "old.parquet", STATE}
            assert (copy / "trials.parquet").read_text() == "12"
            assert not (copy / "old.parquet").exists()


def test_a_reader_removes_nothing_there(uri: str, tmp_path: Path) -> None:
    with machine("a", tmp_path), Storage(uri) as running:
        write(running, study_json="{}", trials_pq="1")
    with machine("b", tmp_path), Storage(uri, reads=True) as reader:
        reader.fetch("mine")
        (reader.local / "digits" / "mine" / "trials.parquet").unlink()
    assert stored(uri)["digits/mine/trials.parquet"] == b"1"


def test_a_server_that_is_away_for_a_while_loses_nothing(
    uri: str, s3_server: Server, tmp_path: Path
) -> None:
    with machine("a", tmp_path), Storage(uri) as storage:
        write(storage, study_json="{}", trials_pq="1")
        storage._push_all()
        os.kill(s3_server.pid, signal.SIGSTOP)
        threading.Timer(8, os.kill, (s3_server.pid, signal.SIGCONT)).start()
        for count in range(2, 20):
            write(storage, trials_pq="1" * count)
            time.sleep(0.1)
    assert stored(uri)["digits/mine/trials.parquet"] == b"1" * 19


def test_a_server_that_stays_away_is_told_and_the_copy_kept(
    uri: str, s3_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "patience_s", lambda: 0.0)
    with machine("a", tmp_path):
        storage = Storage(uri)
        with pytest.raises(StorageError, match=r"does not answer.*--resume to upload"), storage:
            monkeypatch.setattr(RemoteFiles, "write", _refused)
            folder = write(storage, study_json="{}")
        assert (folder / "study.json").read_text() == "{}"


def _refused(*_: object) -> None:
    raise OSError("When putting an object: connection refused")


def test_what_cannot_be_reached_or_written_is_said_at_once(s3_server: Server) -> None:
    with pytest.raises(UsageError, match="s4://x/y: cannot be reached"):
        Storage("s4://x/y")
    with pytest.raises(UsageError, match="--results s3://none-such/y: cannot be written"):
        Storage("s3://none-such/y").check_writable()
    with pytest.raises(UsageError, match="there is no study"):
        local_copy("s3://results/none/digits/mine")


def test_a_study_that_was_removed_there_does_not_come_back(uri: str, tmp_path: Path) -> None:
    with machine("a", tmp_path):
        with Storage(uri) as storage:
            write(storage, study_json="{}")
        files, base = fs.FileSystem.from_uri(uri)
        files.delete_dir(f"{base}/digits/mine")
        with pytest.raises(UsageError, match=r"no longer in s3://.*remove it"):
            Storage(uri).fetch("mine")
