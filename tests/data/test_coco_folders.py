"""Folders with COCO annotations of their own: ids, names and layouts as programs write them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trees import coco, coco2014, first_marks, random_labels

from bbam_ray.data import DATASETS
from bbam_ray.data.datasets.base import Samples
from bbam_ray.data.datasets.coco import Coco, CocoFolderOptions
from bbam_ray.errors import UsageError

OPTIONS = CocoFolderOptions(image_size=32)
CASES = Path(__file__).parents[3] / "shared" / "cases"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return coco(tmp_path / "tree")


def load(root: Path, **options: object) -> tuple[Samples, Samples]:
    chosen = OPTIONS.model_copy(update=options)
    return Coco().load(chosen, root, "train"), Coco().load(chosen, root, "test")


def refused(root: Path, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        Coco().check(OPTIONS, root)
    assert "\n" not in str(caught.value)


def content(root: Path, part: str = "train") -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((root / "annotations" / f"{part}.json").read_text())
    return loaded


def change(root: Path, part: str = "train", **changes: Any) -> None:
    path = root / "annotations" / f"{part}.json"
    path.write_text(json.dumps(content(root, part) | changes))


def expected(count: int) -> np.ndarray:
    drawn = random_labels(count, 5, seed=count)
    drawn[3] = 0
    return drawn


def test_text_ids_subfolders_and_crowds_are_read(tree: Path) -> None:
    train, test = load(tree)
    assert train.label_names == tuple(f"thing {k}" for k in range(5))
    order = sorted(range(40), key=str)  # ids are texts
    np.testing.assert_array_equal(train.labels, expected(40)[order])
    np.testing.assert_array_equal(first_marks(train.inputs[:])[:, :5], train.labels.astype(bool))
    assert train.names is not None and train.names[1] == "images/train/day1/train001.png"
    np.testing.assert_array_equal(test.labels, expected(20)[sorted(range(20), key=str)])
    assert any("train.json: 40 training images, in images/train/" in n for n in train.notes)


@pytest.mark.parametrize(
    ("meaning", "counts", "labelled"),
    [("negative", (40, 20), 40), ("unlabeled", (40, 19), 39), ("skip", (39, 19), 39)],
)
def test_images_without_annotations_mean_what_the_setting_says(
    meaning: str, counts: tuple[int, int], labelled: int, tree: Path
) -> None:
    train, test = load(tree, unannotated=meaning)
    assert (len(train.inputs), len(test.inputs)) == counts
    known = len(train.labels) if train.is_labeled is None else int(train.is_labeled.sum())
    assert known == labelled and test.is_labeled is None
    assert any("2 images without annotations" in note for note in train.notes)


def moved(tree: Path, layout: str) -> Path:
    """The same data set in another layout."""
    root = tree.parent / "other"
    files = {part: tree / "annotations" / f"{part}.json" for part in ("train", "val")}
    folders = {part: tree / "images" / part for part in ("train", "val")}
    targets = {
        "published": ("annotations/instances_{}2017.json", "{}2017"),
        "roboflow": ("{}/_annotations.coco.json", "{}"),
        "beside": ("{}.json", "{}"),
        "one folder": ("annotations/instances_{}.json", "images"),
        "root": ("{}_annotations.json", "."),
    }[layout]
    for part, path in files.items():
        word = "valid" if (layout, part) == ("roboflow", "val") else part
        target = root / targets[0].format(word)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        shutil.copytree(folders[part], root / targets[1].format(word), dirs_exist_ok=True)
    return root


@pytest.mark.parametrize("layout", ["published", "roboflow", "beside", "one folder", "root"])
def test_every_common_layout_gives_the_same(layout: str, tree: Path) -> None:
    for ours, theirs in zip(load(tree), load(moved(tree, layout)), strict=True):
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_array_equal(ours.inputs[:], theirs.inputs[:])


def test_one_file_is_divided(tree: Path) -> None:
    (tree / "annotations" / "val.json").unlink()
    train, test = load(tree, test_fraction=0.25)
    assert (len(train.inputs), len(test.inputs)) == (30, 10)
    assert any("10 of the 40 labelled images are the test part" in note for note in train.notes)
    target = tree / "images" / "train" / "result.json"
    shutil.move(tree / "annotations" / "train.json", target)
    again, _ = load(target, test_fraction=0.25)
    np.testing.assert_array_equal(again.labels, train.labels)


def test_a_test_file_is_the_test_part_if_it_has_annotations(tree: Path) -> None:
    shutil.copy(tree / "annotations" / "val.json", tree / "annotations" / "test.json")
    refused(tree, r"test\.json: image day0/val000\.png is in none of test/, images/")
    shutil.copytree(tree / "images" / "val", tree / "images" / "test")
    train, test = load(tree)
    assert (len(train.inputs), len(test.inputs)) == (60, 20)
    assert test.names is not None and test.names[0].startswith("images/test/")
    names = [e | {"file_name": f"../test/{e['file_name']}"} for e in content(tree, "val")["images"]]
    change(tree, "val", images=names)
    refused(tree, "is not a plain file name")
    shutil.copy(tree / "annotations" / "test.json", tree / "annotations" / "val.json")
    change(tree, "test", annotations=[])
    train, test = load(tree)
    assert (len(train.inputs), len(test.inputs)) == (40, 20)
    assert "test.json: no annotations, so its images are not used" in train.notes


def test_other_json_files_are_named(tree: Path) -> None:
    (tree / "annotations" / "classes.json").write_text("{}")
    train, _ = load(tree)
    assert "not read: classes.json" in train.notes
    root = moved(tree, "published")
    (root / "annotations" / "captions_train2017.json").write_text("{}")
    train, _ = load(root)
    assert "not read: captions_train2017.json" in train.notes
    (root / "annotations" / "instances_train2014.json").write_text("{}")
    refused(root, "which annotation file is the training part is not clear")


def test_ids_are_the_same_as_number_text_or_float(tree: Path) -> None:
    entries = content(tree)["images"]
    want = load(tree)[0].labels
    for convert in (int, float, lambda text: f" {text} "):
        changed = [entry | {"id": convert(entry["id"])} for entry in entries]
        change(tree, images=changed)
        train, _ = load(tree)
        names = [entry["file_name"] for entry in entries]
        assert sorted(train.names or ()) == sorted(f"images/train/{name}" for name in names)
        rows = np.argsort(train.names or ())
        again = np.argsort([f"images/train/{names[int(n)]}" for n in sorted(map(str, range(40)))])
        np.testing.assert_array_equal(train.labels[rows], want[again])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"annotations": [{"image_id": 77, "category_id": "c1"}]},
            "annotation 1 has image_id 77, which is not in 'images'",
        ),
        (
            {"annotations": [{"image_id": 1, "category_id": "c9"}]},
            "annotation 1 has category_id c9, which is not in 'categories'",
        ),
        ({"images": [{"id": 1, "file_name": "a"}, {"id": "1", "file_name": "b"}]}, "occurs twice"),
        (
            {"images": [{"id": k, "file_name": "a"} for k in (1, 2)], "annotations": []},
            "a is listed twice",
        ),
        ({"images": [{"id": None, "file_name": "a"}]}, "neither a whole number nor a text"),
        ({"images": [{"id": 1.5, "file_name": "a"}]}, "neither a whole number nor a text"),
        ({"images": [{"id": True, "file_name": "a"}]}, "neither a whole number nor a text"),
        ({"images": [{"id": 1}], "annotations": []}, "KeyError"),
        ({"images": [{"id": 1, "file_name": "/etc/a"}], "annotations": []}, "not a plain file"),
        ({"images": [{"id": 1, "file_name": "C:\\a"}], "annotations": []}, "not a plain file"),
        ({"images": [{"id": 1, "file_name": "a/../b"}], "annotations": []}, "not a plain file"),
        ({"annotations": []}, "no image with an annotation"),
        ({"categories": [{"id": f"c{k}", "name": "x"} for k in range(5)]}, "x is listed twice"),
        (
            {"categories": [{"id": f"c{k}", "name": f"y{k}"} for k in range(5)]},
            r"categories differ from those of train\.json: 'thing 0' is only in val\.json",
        ),
    ],
)
def test_contradictions_are_named(changes: dict[str, Any], reason: str, tree: Path) -> None:
    change(tree, **changes)
    refused(tree, rf"(train|val)\.json: .*{reason}")


def test_windows_paths_are_read(tree: Path) -> None:
    entries = content(tree)["images"]
    changed = [e | {"file_name": ".\\" + e["file_name"].replace("/", "\\")} for e in entries]
    want = load(tree)[0]
    change(tree, images=changed)
    assert load(tree)[0].names == want.names


def test_what_is_missing_is_named(tree: Path, tmp_path: Path) -> None:
    (tree / "images" / "train" / "day0" / "train004.png").unlink()
    refused(tree, r"1 of 40 images of the train part are missing.*train004\.png")
    shutil.rmtree(tree / "images" / "train")
    refused(tree, r"image day0/train000\.png is in none of train/, images/")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no annotation file; expected")


def test_coco2014_is_a_folder_of_this_kind(tmp_path: Path) -> None:
    root = coco2014(tmp_path / "published")
    train, test = load(root, unannotated="skip")
    published = DATASETS["coco2014"].load(
        DATASETS["coco2014"].Options(image_size=32),  # type: ignore[call-arg]
        root,
        "train",
    )
    np.testing.assert_array_equal(train.labels, published.labels)
    assert train.names == published.names and len(test.labels) == 20
    assert any("2 without annotations are left out" in note for note in published.notes)


@pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases")
@pytest.mark.parametrize("name", ["coco", "coco2014"])
@pytest.mark.parametrize("case", ["coco_strid", "coco_subfolder", "coco_orphan"])
def test_the_cases(case: str, name: str) -> None:
    dataset = DATASETS[name]
    options = dataset.Options.build({"image_size": 32}, "test")
    if case == "coco_orphan":
        with pytest.raises(UsageError, match=r"instances_train2014\.json: .* image_id 99999"):
            dataset.load(options, CASES / case, "train")
        return
    train, test = (dataset.load(options, CASES / case, part) for part in ("train", "test"))
    assert train.label_names == ("person", "car", "toothbrush")
    assert train.labels.sum(axis=0).tolist() == [14, 9, 7]
    assert len(test.labels) == (12 if name == "coco" else int(test.labels.any(axis=1).sum()))
