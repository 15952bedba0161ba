"""Temporary folders and Ray's session folders do not pile up, whoever was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bbam_ray.errors import UsageError
from bbam_ray.scale.cluster.connection import connected
from bbam_ray.scale.cluster.scratch import KEPT_SESSIONS, Scratch, kept_session
from stress.disks import fill, small_disk

_KILLED = """
import os, signal
from bbam_ray.scale.cluster.scratch import Scratch
mine = Scratch()
print(mine.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture()
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder


def age(folder: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(folder, (moment, moment))


def killed() -> Path:
    """The folder that a killed process has left, some time ago."""
    done = subprocess.run([sys.executable, "-c", _KILLED], capture_output=True, text=True)
    folder = Path(done.stdout.strip())
    assert folder.is_dir()
    age(folder, 100)
    return folder


def test_a_folder_goes_with_its_owner(temporary: Path) -> None:
    with Scratch() as folder:
        (folder / "a").write_text("x")
        assert folder.parent == temporary
    kept = Scratch()
    kept.remove()
    kept.remove()
    assert not list(temporary.iterdir())


def test_what_a_killed_process_has_left_goes_when_the_next_one_begins(temporary: Path) -> None:
    left = killed()
    with Scratch() as mine:
        assert not left.exists() and mine.exists()


def test_folders_in_use_young_ones_and_those_of_others_stay(temporary: Path) -> None:
    used = Scratch()
    age(used.folder, 100)
    young = killed()
    age(young, 1)
    foreign = temporary / "bbam-ray-notes"  # without our lock
    foreign.mkdir()
    age(foreign, 100)
    link = temporary / "bbam-ray-link"
    link.symlink_to(young)
    with Scratch():
        assert used.folder.exists() and young.exists() and foreign.exists() and link.exists()
    used.remove()


def sessions(parent: Path, count: int) -> list[Path]:
    """Sessions that failed, the oldest first."""
    found = []
    for number in range(count):
        folder = parent / f"session_{number}"
        folder.mkdir(parents=True)
        with pytest.raises(RuntimeError), kept_session(folder):
            raise RuntimeError("failed")
        age(folder, 1000 - number)
        found.append(folder)
    return found


def test_of_failed_sessions_the_newest_stay(tmp_path: Path) -> None:
    failed = sessions(tmp_path / "ray", KEPT_SESSIONS + 2)
    foreign = tmp_path / "ray" / "session_x"
    foreign.mkdir()
    age(foreign, 5000)
    mine = tmp_path / "ray" / "session_mine"
    mine.mkdir()
    dead, alive = (tmp_path / "ray" / name for name in ("session_latest", "prometheus.json"))
    dead.symlink_to(mine)
    alive.symlink_to(foreign)
    with kept_session(mine):
        assert not any(folder.exists() for folder in failed[:2])
        assert all(folder.exists() for folder in failed[2:])
        assert foreign.exists()
    assert not mine.exists()
    assert not dead.is_symlink() and alive.exists()


@pytest.mark.ray
def test_a_private_ray_leaves_its_folder_only_where_something_failed() -> None:
    def folder() -> Path:
        import ray

        return Path(ray.get_runtime_context().worker.node.get_session_dir_path())

    with connected("local", dashboard=False):
        went_well = folder()
        assert went_well.is_dir()
    assert not went_well.exists()
    with pytest.raises(RuntimeError, match="mine"), connected("local", dashboard=False):
        failed = folder()
        raise RuntimeError("mine")
    assert (failed / "logs").is_dir()


@pytest.mark.ray
def test_a_temporary_folder_too_deep_for_sockets_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 60)
    monkeypatch.setenv("RAY_TMPDIR", str(deep))
    with (
        pytest.raises(UsageError, match=r"xxx.*set RAY_TMPDIR to a shorter one"),
        connected("local", dashboard=False),
    ):
        pass


def test_a_full_disk_under_rays_folder_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray would try to start for half a minute and end with a traceback."""
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(tmp_path / "disk"))
        except OSError as error:
            pytest.skip(str(error))
        fill(disk)
        monkeypatch.setenv("RAY_TMPDIR", str(disk))
        sentence = r"disk: Ray's temporary folder needs .* 0.0 MB are free; .*set RAY_TMPDIR"
        with pytest.raises(UsageError, match=sentence), connected("local", dashboard=False):
            pass
        assert [path.name for path in disk.iterdir()] == ["ballast"]
