"""Which checkpoints the unfinished trials of a resumed study use."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from ray import tune

from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.checkpoint import save_checkpoint
from bbam_ray.scale.workers.trial import Trial
from bbam_ray.scale.workers.trial_checkpoints import claim, collect


def write(trial: Path, epoch: int, step: int | None = None, content: str = "") -> Path:
    folder = trial / checkpoint_folder.folder_name(epoch, step)
    save_checkpoint(folder / "samples-0-of-1.pt", {"content": content})
    save_checkpoint(folder / "state.pt", {"content": content})
    (trial / "fingerprint").write_text("one")
    return folder


def names(parent: Path) -> list[str]:
    return sorted(path.relative_to(parent).as_posix() for path in parent.glob("*/*/*"))


def test_the_newest_checkpoint_of_each_trial_moves_to_the_new_run(tmp_path: Path) -> None:
    write(tmp_path / "b" / "t00001", 3)
    write(tmp_path / "a" / "t00001", 3, 12)
    write(tmp_path / "a" / "t00002", 9)
    write(tmp_path / "b" / "t00002", 10)
    (tmp_path / "b" / "t00004").mkdir()  # its process had just started
    collect(tmp_path, "new")
    assert names(tmp_path) == [
        "new/t00001/epoch-00003-step-00012",
        "new/t00001/fingerprint",
        "new/t00002/epoch-00010",
        "new/t00002/fingerprint",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_damaged_checkpoint_does_not_win(tmp_path: Path) -> None:
    write(tmp_path / "a" / "t00000", 2)
    damaged = write(tmp_path / "b" / "t00000", 5)
    path = damaged / "state.pt"
    path.write_bytes(path.read_bytes()[:100])
    collect(tmp_path, "new")
    assert names(tmp_path) == ["new/t00000/epoch-00002", "new/t00000/fingerprint"]


def test_what_a_process_of_a_killed_run_writes_after_the_move_is_not_used(tmp_path: Path) -> None:
    write(tmp_path / "a" / "t00000", 2)
    collect(tmp_path, "new")
    write(tmp_path / "a" / "t00000", 9)
    (tmp_path / "a" / "t00000" / "fingerprint").unlink()
    write(tmp_path / "new" / "t00000", 3)
    collect(tmp_path, "newest")
    assert names(tmp_path) == [
        "newest/t00000/epoch-00002",
        "newest/t00000/epoch-00003",
        "newest/t00000/fingerprint",
    ]


def test_the_later_fold_of_a_trial_under_ray_train_is_the_newest(tmp_path: Path) -> None:
    for run, fold, epoch in (("a", 0, 9), ("b", 1, 2), ("c", 1, 1)):
        write(tmp_path / run / "t00000" / f"fold-{fold}", epoch)
        claim(tmp_path / run / "t00000", "one")
        write(tmp_path / run / "t00000" / f"fold-{fold}", epoch)
    collect(tmp_path, "new")
    assert [p.name for p in tmp_path.glob("new/t00000/fold-*/epoch-*")] == ["epoch-00002"]


@pytest.mark.parametrize("exists", [False, True])
def test_without_checkpoints_nothing_is_left(exists: bool, tmp_path: Path) -> None:
    parent = tmp_path / "trials"
    if exists:
        (parent / "old").mkdir(parents=True)
    collect(parent, "new")
    assert not parent.exists() or not list(parent.iterdir())


def test_a_checkpoint_of_another_configuration_is_deleted(tmp_path: Path) -> None:
    trial = tmp_path / "t00000"
    claim(trial, "one")
    checkpoint = write(trial, 1)
    claim(trial, "one")
    assert checkpoint.is_dir()
    claim(trial, "two")
    assert not checkpoint.exists() and trial.is_dir()
    write(trial, 1)
    (trial / "fingerprint").unlink()
    claim(trial, "two")
    assert not checkpoint.exists()


def test_damage_to_the_records_of_a_trial_is_noticed(tmp_path: Path) -> None:
    """The file that only a trial of a search has is checked as well."""
    folder = write(tmp_path / "t00000", 1)
    save_checkpoint(folder / "folds.pt", {"records": []})
    assert checkpoint_folder.defect(folder) is None
    path = folder / "folds.pt"
    path.write_bytes(path.read_bytes()[:50])
    assert "folds.pt" in str(checkpoint_folder.defect(folder))


def test_a_trial_has_no_attribute_that_tune_sets_itself() -> None:
    """Tune sets private attributes of its base class at any time."""
    source = inspect.getsource(tune.Trainable)
    own = set(re.findall(r"self\.(_\w+)\s*(?::[^=\n]+)?=[^=]", inspect.getsource(Trial)))
    assert own and not own & set(re.findall(r"\b(_[a-z]\w+)\b", source))
