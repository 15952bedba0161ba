"""PASCAL VOC 2012 from a small tree in its published layout, and its clear refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from trees import first_marks, random_labels, voc2012

from bbam_ray.data.datasets.voc2012 import LABELS, Voc2012, VocOptions
from bbam_ray.errors import UsageError

OPTIONS = VocOptions(image_size=32)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return voc2012(tmp_path / "tree")


def refused(root: Path, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        Voc2012().check(OPTIONS, root)
    assert "\n" not in str(caught.value)


def main(root: Path, name: str) -> Path:
    return root / "ImageSets" / "Main" / f"{name}.txt"


def test_the_lists_say_what_an_image_shows(tree: Path) -> None:
    train, test = (Voc2012().load(OPTIONS, tree, part) for part in ("train", "test"))
    assert train.label_names == LABELS and len(LABELS) == 20
    assert (len(train.inputs), len(test.inputs)) == (40, 22)
    expected = random_labels(40, 20, seed=40)
    expected[::10, 7] = 0
    np.testing.assert_array_equal(train.labels, expected)
    np.testing.assert_array_equal(first_marks(train.inputs[:]), expected[:, :10].astype(bool))


def test_difficult_counts_as_the_option_says(tree: Path) -> None:
    positive = VocOptions(image_size=32, difficult="positive")
    harder = Voc2012().load(positive, tree, "train").labels
    assert harder[::10, 7].all()
    usual = Voc2012().load(OPTIONS, tree, "train").labels
    assert harder.sum() - usual.sum() == 4


def test_the_folder_around_it_is_as_good(tree: Path) -> None:
    for root in (tree, tree.parent, tree.parents[1]):
        Voc2012().check(OPTIONS, root)
        assert len(Voc2012().load(OPTIONS, root, "test").labels) == 22


def test_what_is_missing_is_named(tree: Path) -> None:
    main(tree, "cow_val").unlink()
    refused(tree, r"cow_val\.txt: no such file")
    shutil.rmtree(tree / "JPEGImages")
    refused(tree, r"missing: JPEGImages.*bbam-ray data download voc2012")


def test_a_missing_image_is_named(tree: Path) -> None:
    (tree / "JPEGImages" / "2008_000003.jpg").unlink()
    refused(tree, r"1 of 40 images of the train part are missing.*2008_000003\.jpg")


@pytest.mark.parametrize(
    "line", ["2008_000001", "2008_000001 2", "2008_999999 1", "2008_000001 1 1", "2008_000001 x"]
)
def test_a_wrong_line_is_named(line: str, tree: Path) -> None:
    path = main(tree, "dog_train")
    path.write_text("\n" + line + "\n" + path.read_text())
    refused(tree, r"dog_train\.txt line 2: '" + line)


def test_an_image_that_a_list_leaves_out_is_named(tree: Path) -> None:
    path = main(tree, "dog_train")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    refused(tree, r"dog_train\.txt: no line for 2 images of train\.txt.*2008_000039")


@pytest.mark.parametrize(("text", "why"), [("", "is empty"), ("a\nb\na\n", "duplicate")])
def test_an_impossible_image_list_is_refused(text: str, why: str, tree: Path) -> None:
    main(tree, "train").write_text(text)
    refused(tree, rf"train\.txt: .*{why}")
