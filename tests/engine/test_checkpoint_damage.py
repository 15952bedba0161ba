"""A damaged checkpoint is refused with the reason, and the run resumes from the one before."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from bbam_ray.engine import checkpoint_folder as folders
from bbam_ray.errors import UsageError


@pytest.fixture()
def parent(checkpoints_of_two: Path, two: list[Any], tmp_path: Path) -> Path:
    """A copy of the checkpoints of epochs 3 and 4 of 2 ranks."""
    for epoch in (3, 4):
        name = folders.folder_name(epoch)
        shutil.copytree(checkpoints_of_two / name, tmp_path / name)
    return tmp_path


def refused(parent: Path, reason: str) -> None:
    """The newest checkpoint is refused for this reason, and the older one is used."""
    found = folders.defect(parent / "epoch-00004")
    assert found is not None and reason in found
    assert folders.latest_valid(parent) == (parent / "epoch-00003", [found])


def test_the_newest_valid_checkpoint_is_used(parent: Path) -> None:
    assert folders.defect(parent / "epoch-00004") is None
    assert folders.latest_valid(parent) == (parent / "epoch-00004", [])
    assert folders.latest_valid(parent / "nothing") == (None, [])
    (parent / "epoch-00100").mkdir()
    (parent / ".epoch-00200.new").mkdir()
    (parent / "epoch-7").mkdir()  # not the name of a checkpoint
    assert [p.name for p in folders.newest_first(parent)] == [
        *("epoch-00100", "epoch-00004", "epoch-00003")
    ]
    taken, defects = folders.latest_valid(parent)
    assert taken == parent / "epoch-00004" and "epoch-00100" in defects[0]


@pytest.mark.parametrize("name", ["state.pt", "samples-0-of-2.pt", "samples-1-of-2.pt"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99, 1.0])
def test_a_truncated_file_is_a_defect(name: str, share: float, parent: Path) -> None:
    path = parent / "epoch-00004" / name
    content = path.read_bytes()
    path.write_bytes(content[: min(int(share * len(content)), len(content) - 1)])
    refused(parent, name)


@pytest.mark.parametrize("name", ["state.pt", "samples-1-of-2.pt"])
def test_a_flipped_byte_is_a_defect_wherever_it_changes_what_is_loaded(
    name: str, parent: Path, identical: Callable
) -> None:
    path = parent / "epoch-00004" / name
    content = path.read_bytes()
    expected = torch.load(path)
    caught = 0
    for offset in range(0, len(content), len(content) // 150):
        path.write_bytes(content[:offset] + bytes([content[offset] ^ 0x41]) + content[offset + 1 :])
        found = folders.defect(parent / "epoch-00004")
        if found is None:
            assert identical(torch.load(path), expected), offset
        else:
            assert name in found
            caught += 1
    assert caught > 30


@pytest.mark.parametrize("name", ["state.pt", "samples-0-of-2.pt", "samples-1-of-2.pt"])
def test_a_missing_file_is_a_defect(
    name: str, parent: Path, rank_worker: ModuleType, rank_settings: dict[str, Any]
) -> None:
    (parent / "epoch-00004" / name).unlink()
    refused(parent, name)
    with pytest.raises(UsageError, match=name):
        folders.load(parent / "epoch-00004", rank_worker.make_trainer(rank_settings))


@pytest.mark.parametrize("backwards", [False, True], ids=["sorted", "backwards"])
@pytest.mark.parametrize("extra", ["samples-0-of-1.pt", "samples-2-of-3.pt", "samples-1-of-3.pt"])
def test_files_of_several_worker_counts_are_a_defect(
    extra: str, backwards: bool, parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any order in which the file system lists them."""
    folder = parent / "epoch-00004"
    shutil.copy(folder / "samples-1-of-2.pt", folder / extra)
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda p: iter(sorted(listed(p), reverse=backwards)))
    refused(parent, "worker counts")
