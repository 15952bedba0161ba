"""Folders in VOC's layout with labels of their own: VOC2007, lists, annotations, and clear refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from trees import first_marks, marked_image, random_labels, voc, voc2012, voc_xml

from bbam_ray.data.datasets.base import Samples
from bbam_ray.data.datasets.voc import Voc, VocFolderOptions
from bbam_ray.errors import UsageError

OPTIONS = VocFolderOptions(image_size=32)
CASE = Path(__file__).parents[3] / "shared" / "cases" / "voc_missing"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return voc(tmp_path / "tree")


def load(root: Path, **options: object) -> tuple[Samples, Samples]:
    chosen = OPTIONS.model_copy(update=options)
    return Voc().load(chosen, root, "train"), Voc().load(chosen, root, "test")


def refused(root: Path, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        Voc().check(OPTIONS, root)
    assert "\n" not in str(caught.value)


def main(root: Path, name: str) -> Path:
    return root / "ImageSets" / "Main" / f"{name}.txt"


def test_the_lists_of_voc2007_are_the_parts_and_annotations_the_labels(tree: Path) -> None:
    train, test = load(tree)
    assert train.label_names == tuple(f"cell {k}" for k in range(5))
    assert (len(train.inputs), len(test.inputs)) == (40, 20)
    expected = random_labels(40, 5, seed=7)
    assert train.is_labeled is not None and np.flatnonzero(~train.is_labeled).tolist() == [7]
    np.testing.assert_array_equal(first_marks(train.inputs[:])[:, :5], expected.astype(bool))
    expected[7] = 0
    np.testing.assert_array_equal(train.labels, expected)
    np.testing.assert_array_equal(test.labels, random_labels(20, 5, seed=8))
    assert any("training part: trainval.txt; test part: test.txt" in note for note in train.notes)
    assert any("1 images without annotation are not labelled" in note for note in train.notes)


def test_without_test_the_validation_list_is_the_test_part(tree: Path) -> None:
    main(tree, "test").unlink()
    (tree / "Annotations" / "000007.xml").write_text(voc_xml({}))
    train, test = load(tree)
    assert (len(train.inputs), len(test.inputs)) == (20, 20)
    assert train.names is not None and train.names[1] == "JPEGImages/000002.jpg"


def test_without_trainval_the_other_lists_are_joined(tree: Path) -> None:
    main(tree, "trainval").unlink()
    train, test = load(tree)
    assert (len(train.inputs), len(test.inputs)) == (40, 20)
    assert train.names is not None and train.names[1] == "JPEGImages/000002.jpg"


def test_a_test_list_without_labels_is_not_used_and_that_is_said(tree: Path) -> None:
    for path in (tree / "Annotations").glob("0005*.xml"):
        path.unlink()
    (tree / "Annotations" / "000007.xml").write_text(voc_xml({}))
    train, test = load(tree)
    assert (len(train.inputs), len(test.inputs)) == (20, 20)
    assert "test.txt is not used, as none of its images has labels" in train.notes


def test_without_lists_all_annotated_images_are_used(tree: Path) -> None:
    shutil.rmtree(tree / "ImageSets")
    train, test = load(tree, test_fraction=0.25)
    assert len(test.inputs) == round(0.25 * 59) and len(train.inputs) == 60 - len(test.inputs)
    assert any("15 of the 59 labelled images are the test part" in note for note in test.notes)
    assert test.is_labeled is None and train.is_labeled is not None
    again, _ = load(tree, test_fraction=0.25)
    assert again.names == train.names


def test_images_of_other_kinds_and_in_subfolders_are_found(tmp_path: Path) -> None:
    for row, name in enumerate(["a.png", "b.JPEG", "c.v2.jpg", "sub/d.bmp", "sub/e.jpg"]):
        path = tmp_path / "JPEGImages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        marked_image(np.array([row % 2, 1]), number=row).convert("RGB").save(
            path, "PNG" if name.endswith(("png", "bmp")) else "JPEG"
        )
        xml = tmp_path / "Annotations" / Path(name).with_suffix(".xml")
        xml.parent.mkdir(parents=True, exist_ok=True)
        xml.write_text(voc_xml({"x": 0} if row % 2 else {"y": 0, "x": 1}))
    (tmp_path / "Annotations" / "._a.xml").write_bytes(b"\0\5")
    (tmp_path / "JPEGImages" / "._a.jpg").write_bytes(b"\0\5")
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    main(tmp_path, "train").write_text("a.png\nb\nsub/e\n")
    main(tmp_path, "val").write_text("c.v2\nsub/d.bmp\n")
    train, test = load(tmp_path)
    assert train.names == ["JPEGImages/a.png", "JPEGImages/b.JPEG", "JPEGImages/sub/e.jpg"]
    assert train.label_names == ("x", "y")
    assert train.labels.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert test.labels.tolist() == [[0, 1], [1, 0]]
    train, _ = load(tmp_path, difficult="positive")
    assert train.labels.tolist() == [[1, 1], [1, 0], [1, 1]]


def test_names_of_annotation_tools_are_read(tree: Path) -> None:
    want, _ = load(tree)
    (tree / "JPEGImages").rename(tree / "images")
    (tree / "Annotations").rename(tree / "annotations")
    train, _ = load(tree)
    np.testing.assert_array_equal(train.labels, want.labels)
    assert train.names is not None and train.names[1] == "images/000001.jpg"


def test_a_label_is_present_if_one_of_its_objects_is_not_difficult(tree: Path) -> None:
    both = "<object><name> dog </name><difficult>{}</difficult></object>"
    for name, flags in (("000000", "10"), ("000001", "01"), ("000002", "11")):
        objects = "".join(both.format(flag) for flag in flags)
        (tree / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    train, _ = load(tree)
    column = train.label_names.index("dog")
    assert train.labels[:3, column].tolist() == [1, 1, 0]
    assert not {"head", "any.jpg"} & set(train.label_names)


def own_lists(root: Path, labels: tuple[str, ...] = ("train", "cat")) -> Path:
    """Lists of labels, one of which has the name of a list, and no annotations."""
    root = voc(root, labels=2)
    shutil.rmtree(root / "Annotations")
    for part, seed in (("trainval", 7), ("test", 8)):
        names = main(root, part).read_text().split()
        drawn = random_labels(len(names), 2, seed=seed)
        for column, label in enumerate(labels):
            lines = [
                f"{n} {2 * int(v) - 1:2d}\n" for n, v in zip(names, drawn[:, column], strict=True)
            ]
            main(root, f"{label}_{part}").write_text("".join(lines))
    return root


def test_lists_of_labels_are_enough(tmp_path: Path) -> None:
    root = own_lists(tmp_path / "lists")
    train, test = load(root)
    assert train.label_names == ("cat", "train") and train.is_labeled is None
    np.testing.assert_array_equal(train.labels[:, ::-1], random_labels(40, 2, seed=7))
    np.testing.assert_array_equal(test.labels[:, ::-1], random_labels(20, 2, seed=8))
    path = main(root, "cat_test")
    path.write_text(path.read_text().replace(" -1", "  0").replace("  1", " -1"))
    assert not load(root)[1].labels[:, 0].any()
    harder = load(root, difficult="positive")[1].labels[:, 0]
    np.testing.assert_array_equal(harder, 1 - random_labels(20, 2, seed=8)[:, 1])


def test_a_label_without_a_list_for_a_part_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    root = own_lists(tmp_path / "lists", ("dog", "cat"))
    main(root, "dog_test").unlink()
    train, _ = load(root)
    assert train.label_names == ("cat",)
    assert any("left out" in note and "dog" in note for note in train.notes)
    for name in main(root, "trainval").read_text().split() + main(root, "test").read_text().split():
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{name}.xml").write_text(voc_xml({"dog": int(name) % 2}))
    train, _ = load(root)
    assert train.label_names == ("dog",)
    assert any("no list of dog" in note for note in train.notes)


def test_voc2012_is_a_folder_of_this_kind(tmp_path: Path) -> None:
    root = voc2012(tmp_path)
    for folder in (root, root.parent, root.parents[1]):
        train, test = load(folder)
        assert (len(train.inputs), len(test.inputs)) == (40, 22)
        assert len(train.label_names) == 20


def test_two_folders_are_ambiguous(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        (tmp_path / "VOCdevkit" / year / "JPEGImages").mkdir(parents=True)
    refused(tmp_path, "contains VOC2007 and VOC2012; give one of them")
    refused(tmp_path / "VOCdevkit", "contains VOC2007 and VOC2012")


XML = "<annotation>{}</annotation>"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not valid XML"),
        ("<annotation><object>", "not valid XML"),
        ("<html/>", "<html>, not <annotation>"),
        (XML.format("<object/>"), "an <object> has no <name>"),
        (XML.format("<object><name> </name></object>"), "an <object> has no <name>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]>' + XML.format(""), "contains <!DOCTYPE"),
        (XML.format("a\0b"), "contains null bytes"),
    ],
)
def test_a_wrong_annotation_is_named(text: str, reason: str, tree: Path) -> None:
    (tree / "Annotations" / "000003.xml").write_text(text)
    refused(tree, rf"Annotations/000003\.xml: {reason}")


def test_what_is_missing_or_double_is_named(tree: Path) -> None:
    with pytest.raises(UsageError, match="needs --data-dir"):
        Voc().check(OPTIONS, None)
    (tree / "Annotations" / "000503.xml").unlink()
    refused(tree, r"test\.txt: no Annotations/000503\.xml, and none for 1 of its images")
    main(tree, "test").write_text("000500\n000001\n")
    refused(tree, r"image 000001 occurs twice in trainval\.txt and test\.txt")
    main(tree, "test").write_text("000500\n")
    (tree / "JPEGImages" / "000001.jpg").unlink()
    refused(tree, r"1 of 40 images of the train part are missing.*000001\.jpg")
    shutil.copy(tree / "JPEGImages" / "000002.jpg", tree / "JPEGImages" / "000002.png")
    refused(tree, r"000002\.png: 000002\.jpg has the same name")
    shutil.rmtree(tree / "JPEGImages")
    refused(tree, "no folder JPEGImages")


def test_names_that_do_not_fit_together_are_refused(tree: Path) -> None:
    shutil.rmtree(tree / "ImageSets")
    for path in list((tree / "Annotations").iterdir()):
        path.rename(path.with_name(f"x{path.name}"))
    refused(tree, "no image in JPEGImages/ has an annotation of its name")
    shutil.rmtree(tree / "Annotations")
    refused(tree, r"neither ImageSets/Main/LABEL_train\.txt nor Annotations/IMAGE\.xml")


def test_images_in_no_list_are_reported(tree: Path) -> None:
    marked_image(np.ones(2), number=999).save(tree / "JPEGImages" / "extra.jpg")
    assert Voc().unused(OPTIONS, tree) == [tree / "JPEGImages" / "extra.jpg"]


@pytest.mark.skipif(not CASE.is_dir(), reason="needs ../shared/cases")
def test_the_case_with_its_own_classes() -> None:
    train, test = load(CASE)
    assert (len(train.inputs), len(test.inputs)) == (30, 15)
    assert len(train.label_names) == 19 and "cow" not in train.label_names
    assert train.label_names[0] == "aeroplane" and train.labels[:6, 0].tolist() == [
        1,
        0,
        0,
        0,
        0,
        1,
    ]
