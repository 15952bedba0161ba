"""Reading a named pipe instead of a file would block: it is refused at once, or ignored."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bbam_ray.data import DATASETS
from bbam_ray.data.formats.arff import ArffTable
from bbam_ray.data.formats.tables import read_text, read_user_table
from bbam_ray.engine.checkpoint import load_checkpoint
from bbam_ray.engine.checkpoint_folder import STATE, defect
from bbam_ray.engine.model_folder import read_description, read_weights
from bbam_ray.errors import UsageError
from bbam_ray.results.repair import repair_study
from bbam_ray.results.store import read_table as read_results
from bbam_ray.results.study import StudyRecord

pytestmark = pytest.mark.timeout(20)  # a reader that opens the pipe blocks


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("labels.txt", lambda path: read_text(path, "copy it again")),
        ("train.csv", read_user_table),
        ("train.jsonl", read_user_table),
        ("train.parquet", read_user_table),
        ("a.arff", ArffTable),
        ("trials.parquet", read_results),
        ("study.json", lambda path: StudyRecord.open(path.parent)),
        ("config.json", lambda path: read_description(path.parent)),
        ("model.safetensors", lambda path: read_weights(path.parent)),
        ("state.pt", load_checkpoint),
    ],
)
def test_readers_refuse_a_pipe(name: str, read: Callable[[Path], Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match=rf"{name}: is a pipe or a device; replace"):
        read(tmp_path / name)


def test_a_device_is_refused() -> None:
    with pytest.raises(UsageError, match="/dev/zero: is a pipe or a device"):
        read_text(Path("/dev/zero"), "copy it again")


def test_a_checkpoint_with_a_pipe_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "samples-0-of-1.pt").touch()
    os.mkfifo(tmp_path / STATE)
    assert "a pipe" in str(defect(tmp_path))


@pytest.mark.parametrize("named", [False, True])
def test_a_pipe_among_images_is_no_image(named: bool, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rows = ["file_name,labels"]
    for number in range(6):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(
            tmp_path / "images" / f"{number}.png"
        )
        rows.append(f"{number}.png,{'ab'[number % 2]}")
    os.mkfifo(tmp_path / "images" / "pipe.png")
    (tmp_path / "labels.csv").write_text("\n".join([*rows, *["pipe.png,a"] * named]))
    dataset = DATASETS["images"]
    if named:
        with pytest.raises(UsageError, match=r"there is no file .*pipe\.png"):
            dataset.check(dataset.Options(), tmp_path)
    else:
        dataset.check(dataset.Options(), tmp_path)


def test_a_study_with_a_pipe_does_not_block(tmp_path: Path) -> None:
    folder = tmp_path / "digits" / "s"
    StudyRecord.create(folder, {})
    os.mkfifo(folder / "trials.parquet")
    (message,) = repair_study(folder)
    assert "trials.parquet was damaged" in message
    shutil.rmtree(folder)
