"""Files of a list: each is looked at once, and nothing is read twice by one load."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trees import TREES

from bbam_ray.data import DATASETS
from bbam_ray.data.datasets import awa, voc2012
from bbam_ray.data.formats import image_layouts
from bbam_ray.data.formats.file_list import files_state, scan_files
from bbam_ray.errors import UsageError


@pytest.fixture()
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Names of the image files that were asked about with stat or lstat."""
    count: Counter[str] = Counter()

    def watch(function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(path: Any, *args: Any, **named: Any) -> Any:
            if isinstance(path, (str, Path)) and Path(path).suffix in (".png", ".jpg"):
                count[str(path)] += 1
            return function(path, *args, **named)

        return watched

    for name in ("stat", "lstat"):
        monkeypatch.setattr(os, name, watch(getattr(os, name)))
    return count


@pytest.mark.parametrize("name", ["awa", "voc2012", "coco2014", "images"])
@pytest.mark.parametrize("step", ["load", "state"])
def test_every_image_file_is_looked_at_once(
    name: str, step: str, calls: Counter[str], tmp_path: Path
) -> None:
    dataset, root = DATASETS[name], TREES[name](tmp_path / "tree")
    options = dataset.Options(image_size=32)
    count = sum(len(dataset.load(options, root, part).inputs) for part in ("train", "test"))
    calls.clear()
    if step == "load":
        dataset.load(options, root, "train")
    else:
        dataset.state(options, root)
    assert len(calls) == count
    listed = {path: times for path, times in calls.items() if "unlabeled" not in path}
    assert set(listed.values()) == {1}
    assert max(calls.values()) <= 2  # files that no table lists are searched for first


@pytest.mark.parametrize(
    ("name", "module", "reader", "files"),
    [
        ("awa", awa, "read_text", 5),
        ("voc2012", voc2012, "read_text", 42),
        ("images", image_layouts, "read_user_table", 1),
    ],
)
def test_every_list_and_table_is_read_once(
    name: str, module: Any, reader: str, files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, root = DATASETS[name], TREES[name](tmp_path / "tree")
    original, paths = getattr(module, reader), []

    def read(path: Path, *args: Any) -> Any:
        paths.append(path)
        return original(path, *args)

    monkeypatch.setattr(module, reader, read)
    dataset.load(dataset.Options(image_size=32), root, "train")
    assert len(paths) == len(set(paths)) == files


def test_the_state_follows_symlinks(tmp_path: Path) -> None:
    target, link = tmp_path / "a", tmp_path / "folder" / "b"
    target.write_text("one")
    link.parent.mkdir()
    link.symlink_to(target)
    assert files_state([link]) == files_state([target])
    (tmp_path / "other").symlink_to(link.parent)
    assert files_state([tmp_path / "other" / "b"]) == files_state([target])
    before = files_state([link])
    target.write_text("other")
    assert files_state([link]) != before


def test_what_is_no_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    names = ["file", "folder", "pipe", "loop", "dangling", "absent", "x" * 300, "null\0byte"]
    scan = scan_files([tmp_path / name for name in names], tmp_path)
    assert [path.name for path in scan.missing] == names[1:] and scan.outside is None
    assert scan_files([tmp_path / "null\0folder" / "x"], tmp_path).missing
    for name in names[3:]:
        with pytest.raises(UsageError, match=r"cannot be read \(.+\); restore or remove it"):
            files_state([tmp_path / name])


def test_only_direct_subfolders_may_be_symlinks(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for folder in (root / "plain", elsewhere / "deep"):
        folder.mkdir(parents=True)
    for path in (root / "plain" / "a", elsewhere / "b", elsewhere / "deep" / "c"):
        path.touch()
    (root / "layout").symlink_to(elsewhere)
    (root / "plain" / "inner").symlink_to(elsewhere)
    (root / "plain" / "link").symlink_to(elsewhere / "b")
    (root / "plain" / "same").symlink_to(root / "plain" / "a")

    def outside(name: str) -> bool:
        return scan_files([root / name], root).outside == root / name

    inside = ["plain/a", "plain/same", "layout/b", "layout/deep/c"]
    assert not any(map(outside, inside))
    beyond = ["plain/inner/b", "plain/link", "../elsewhere/b", "plain/../../elsewhere/b"]
    assert all(map(outside, beyond))
    assert scan_files([root / name for name in beyond]).outside is None
