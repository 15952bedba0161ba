"""Checkpoints are written atomically, and read without executing code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from bbam_ray.engine import checkpoint
from bbam_ray.engine.checkpoint import load_checkpoint, save_checkpoint
from bbam_ray.errors import UsageError

STATE = {"epoch": 3, "weights": {"a": torch.arange(5.0)}, "best_map": float("-inf"), "none": None}


def test_a_loaded_state_equals_the_saved_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "state.pt"
    save_checkpoint(path, STATE)
    loaded = load_checkpoint(path)
    assert loaded.keys() == STATE.keys()
    assert loaded["epoch"] == 3 and loaded["best_map"] == float("-inf")
    assert torch.equal(loaded["weights"]["a"], STATE["weights"]["a"])
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("moment", ["while writing", "before the rename"])
def test_a_write_that_breaks_off_leaves_the_old_checkpoint(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.pt"
    save_checkpoint(path, STATE)
    old = path.read_bytes()

    def torn(content: Any, handle: Any) -> None:
        handle.write(b"half of a file")
        raise OSError(28, "No space left on device")

    def refused(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    if moment == "while writing":
        monkeypatch.setattr(checkpoint.torch, "save", torn)
    else:
        monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(OSError):
        save_checkpoint(path, {"epoch": 4})
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
    assert load_checkpoint(path)["epoch"] == 3


def test_the_file_is_flushed_to_disk_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, order = tmp_path / "state.pt", []
    fsync, replace = os.fsync, Path.replace

    def forced(descriptor: int) -> None:
        order.append("fsync")
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        order.append("rename")
        assert target == path
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", forced)
    monkeypatch.setattr(Path, "replace", renamed)
    save_checkpoint(path, STATE)
    assert order == ["fsync", "rename"]


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 99, "state": {}}, tmp_path / "state.pt")
    with pytest.raises(UsageError, match=r"state\.pt: checkpoint format 99, expected 1"):
        load_checkpoint(tmp_path / "state.pt")
    torch.save({"epoch": 3}, tmp_path / "state.pt")
    with pytest.raises(UsageError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / "state.pt")


def test_loading_runs_no_code_from_the_file(tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Harmful:
        def __reduce__(self) -> tuple:
            return (Path.touch, (mark,))

    torch.save({"format": 1, "state": Harmful()}, tmp_path / "state.pt")
    with pytest.raises(UsageError, match="something other than tensors and plain values"):
        load_checkpoint(tmp_path / "state.pt")
    assert not mark.exists()


@pytest.mark.parametrize("length", [0, 10, 200, -1])
def test_the_error_for_a_damaged_file_names_it_and_the_remedy(length: int, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_checkpoint(path, {"weights": torch.arange(50.0)})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UsageError, match=r"state\.pt: not a readable checkpoint .* move it away"):
        load_checkpoint(path)
