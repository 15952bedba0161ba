"""What `data check` finds: every defect that can be put into a small tree."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trees import SMALL, TREES

from bbam_ray.data import DATASETS
from bbam_ray.data.cache.folder import cache_dir
from bbam_ray.data.inspection import Inspection, inspect


def inspected(name: str, folder: Path | None, **changes: Any) -> Inspection:
    dataset = DATASETS[name]
    small = {k: v for k, v in SMALL[name].items() if k in dataset.Options.model_fields}
    return inspect(dataset, dataset.Options.build(small | changes, "test"), folder)


def told(texts: list[str], words: str) -> bool:
    return any(words in text for text in texts)


@pytest.mark.parametrize("name", list(DATASETS))
def test_a_sound_data_set_has_no_error(name: str, tmp_path: Path) -> None:
    found = inspected(name, TREES[name](tmp_path / "tree"))
    assert found.errors == []
    assert found.counts["train"] > 0 and found.counts["test"] > 0
    assert {len(counts) for counts in found.positives.values()} == {len(found.label_names)}
    published = name in ("awa", "voc2012", "coco2014")
    assert told(found.warnings, "were published") == published


def test_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    found = inspected("voc2012", TREES["voc2012"](tmp_path))
    assert found.sizes == {"smallest": (50, 40), "median": (51, 40), "largest": (52, 40)}


@pytest.mark.parametrize("unreadable", ["error", "skip"])
def test_each_unreadable_image_is_listed(unreadable: str, tmp_path: Path) -> None:
    root = TREES["images"](tmp_path / "own")
    (root / "images" / "004.png").write_bytes(b"")
    (root / "images" / "005.png").write_text("text")
    found = inspected("images", root, unreadable=unreadable)
    texts = found.errors if unreadable == "error" else found.warnings
    assert told(texts, "images/004.png (train) cannot be read: empty")
    assert told(texts, "images/005.png (test) cannot be read")
    assert bool(found.errors) == (unreadable == "error")


def test_copies_are_found_within_and_across_parts(tmp_path: Path) -> None:
    root = TREES["voc2012"](tmp_path)
    folder = root / "JPEGImages"
    shutil.copy(folder / "2008_000002.jpg", folder / "2008_001004.jpg")
    shutil.copy(folder / "2008_000007.jpg", folder / "2008_000008.jpg")
    found = inspected("voc2012", root)
    assert told(found.warnings, "JPEGImages/2008_000002.jpg and JPEGImages/2008_001004.jpg")
    assert told(found.warnings, "samples of the train part are copies")


def test_labels_without_positives_are_named(tmp_path: Path) -> None:
    root = TREES["images"](tmp_path / "own")
    path = root / "labels.csv"
    lines = path.read_text().splitlines()
    changed = [lines[0]] + [
        line.rsplit(",", 1)[0] + ",0" if ",train," in line else line for line in lines[1:]
    ]
    path.write_text("\n".join(changed))
    found = inspected("images", root)
    assert told(found.warnings, "no positive in the train part for 'frog': cannot be learned")
    path.write_text(
        "\n".join([lines[0], *(",".join(line.split(",")[:2]) + ",0" * 5 for line in lines[1:])])
    )
    assert told(inspected("images", root).errors, "no positive label; label some")


def test_images_that_are_in_no_table_are_told(tmp_path: Path) -> None:
    root = TREES["images"](tmp_path / "own")
    shutil.copy(root / "images" / "001.png", root / "images" / "extra.png")
    assert told(inspected("images", root).warnings, "1 images are not in any table")


def test_damage_in_the_cache_is_found_and_mended(tmp_path: Path) -> None:
    root = TREES["voc2012"](tmp_path, 400)  # type: ignore[call-arg]
    before = DATASETS["voc2012"].Options.build({"image_size": 96}, "test")
    samples = DATASETS["voc2012"].load(before, root, "train")
    expected = np.asarray(samples.inputs)
    (path,) = [p for p in cache_dir().rglob("*.rows") if p.stat().st_size > 400 * 3 * 96 * 96]
    with path.open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"damage")
    found = inspected("voc2012", root, image_size=96)
    assert told(found.warnings, "have changed; the images were decoded again") and not found.errors
    again = DATASETS["voc2012"].load(before, root, "train")
    np.testing.assert_array_equal(np.asarray(again.inputs), expected)
