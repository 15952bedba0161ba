"""COCO 2014 from a small tree in its published layout, and its clear refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trees import coco2014, first_marks, random_labels

from bbam_ray.data.datasets import coco2014 as coco
from bbam_ray.data.datasets.coco2014 import Coco2014, CocoOptions
from bbam_ray.errors import UsageError

OPTIONS = CocoOptions(image_size=32)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return coco2014(tmp_path / "tree")


def change(root: Path, **changes: Any) -> None:
    path = root / "annotations" / "instances_train2014.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(root: Path, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        Coco2014().check(OPTIONS, root)
    assert "\n" not in str(caught.value)


def test_an_image_has_the_categories_of_its_objects(tree: Path) -> None:
    samples = Coco2014().load(OPTIONS, tree, "train")
    expected = np.delete(random_labels(40, 80, seed=40), [3, 5], axis=0)
    np.testing.assert_array_equal(samples.labels, expected)
    assert samples.label_names == tuple(f"category {k}" for k in range(80))
    assert samples.names is not None
    assert samples.names[3] == "train2014/COCO_train2014_000000000005.jpg"
    np.testing.assert_array_equal(first_marks(samples.inputs[:]), expected[:, :10].astype(bool))


def test_images_without_objects_can_be_kept(tree: Path) -> None:
    kept = Coco2014().load(CocoOptions(image_size=32, keep_unannotated=True), tree, "train")
    assert len(kept.inputs) == 40 and not kept.labels[[3, 5]].any()


def test_annotations_are_parsed_once_and_again_when_they_change(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    parse = coco._parse

    def counted(path: Path) -> Any:
        parsed.append(path.name)
        return parse(path)

    monkeypatch.setattr(coco, "_parse", counted)
    for _ in range(3):
        Coco2014().load(OPTIONS, tree, "train")
    assert parsed == ["instances_train2014.json", "instances_val2014.json"]
    change(tree, info={"year": 2014})
    Coco2014().load(OPTIONS, tree, "train")
    assert len(parsed) == 3


def test_what_is_missing_is_named(tree: Path) -> None:
    shutil.rmtree(tree / "val2014")
    refused(tree, r"missing: val2014.*bbam-ray data download coco2014")


def test_a_missing_image_is_named(tree: Path) -> None:
    (tree / "train2014" / "COCO_train2014_000000000008.jpg").unlink()
    refused(tree, r"1 of 38 images of the train part are missing.*000000000008\.jpg")


@pytest.mark.parametrize(
    "changes",
    [
        {"annotations": [{"image_id": 999, "category_id": 1}]},
        {"annotations": [{"image_id": 1, "category_id": 999}]},
        {"annotations": [{}]},
        {"images": 7},
        {"categories": [["a"]]},
    ],
    ids=["unknown image", "unknown category", "empty entry", "no list", "no mapping"],
)
def test_annotations_that_make_no_sense_are_refused(changes: dict[str, Any], tree: Path) -> None:
    change(tree, **changes)
    refused(tree, r"instances_train2014\.json: not an annotation file")


def test_a_torn_annotation_file_is_refused(tree: Path) -> None:
    path = tree / "annotations" / "instances_val2014.json"
    path.write_text(path.read_text()[:-5])
    refused(tree, r"instances_val2014\.json: not an annotation file")


def test_an_image_outside_its_folder_is_refused(tree: Path) -> None:
    change(tree, images=[{"id": 1, "file_name": "../../secret.jpg"}], annotations=[])
    refused(tree, r"image '\.\./\.\./secret\.jpg' is not a plain file name")


def test_other_categories_in_the_test_part_are_refused(tree: Path) -> None:
    change(tree, categories=[{"id": 1, "name": "other"}], annotations=[])
    with pytest.raises(UsageError, match="no image with an annotation"):
        Coco2014().check(OPTIONS, tree)
    path = tree / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    change(tree, annotations=[{"image_id": content["images"][0]["id"], "category_id": 1}])
    refused(tree, r"instances_val2014\.json: its categories differ from those of")
