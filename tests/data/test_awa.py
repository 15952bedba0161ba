"""Animals with Attributes 2 from a small tree in its published layout, and its clear refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from bbam_ray.data.datasets.awa import TABLES, Awa
from bbam_ray.data.datasets.base import Part
from bbam_ray.data.datasets.image_base import ImageOptions
from bbam_ray.errors import UsageError

OPTIONS = ImageOptions(image_size=32)
# As in conftest.py: the part's classes in the order of its list, with (images, attributes, colour).
CONTENT = {
    "train": [(4, (0, 0, 1), (250, 250, 0)), (3, (0, 1, 1), (250, 0, 0))],  # beaver, antelope
    "test": [(2, (1, 1, 0), (0, 0, 250)), (1, (1, 0, 1), (0, 250, 0))],  # whale, bear
}


def refused(root: Path, match: str) -> str:
    with pytest.raises(UsageError, match=match) as caught:
        Awa().check(OPTIONS, root)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("part", ["train", "test"])
def test_every_image_carries_the_attributes_of_its_class(part: Part, awa_tree: Path) -> None:
    Awa().check(OPTIONS, awa_tree)
    samples = Awa().load(OPTIONS, awa_tree, part)
    assert samples.label_names == ("black", "white", "furry")
    expected = [attributes for count, attributes, _ in CONTENT[part] for _ in range(count)]
    np.testing.assert_array_equal(samples.labels, expected)
    assert samples.inputs.shape == (len(expected), 3, 32, 32)
    colours = [colour for count, _, colour in CONTENT[part] for _ in range(count)]
    np.testing.assert_allclose(np.asarray(samples.inputs).mean(axis=(2, 3)), colours, atol=6)


@pytest.mark.parametrize("missing", [*TABLES, "JPEGImages"])
def test_a_missing_file_is_named_with_the_ways_out(missing: str, awa_tree: Path) -> None:
    target = awa_tree / missing
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    message = refused(awa_tree, f"missing: {missing}")
    for word in (str(awa_tree.resolve()), "--data-dir", "digits", "13 GB"):
        assert word in message


def test_a_missing_folder_is_named_whether_given_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refused(tmp_path / "nowhere", "nowhere")
    assert all(table in message for table in TABLES)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--data-dir"):
        Awa().check(OPTIONS, None)


@pytest.mark.parametrize(
    "text",
    ["0 1 1\n1 0 1\n1 1 0\n", "0 1\n1 0\n1 1\n0 0\n", "0 1 1\n1 0 1\n1 1\n0 0 1\n", ""],
    ids=["row missing", "column missing", "ragged", "empty"],
)
def test_a_matrix_of_another_size_is_refused(text: str, awa_tree: Path) -> None:
    (awa_tree / "predicate-matrix-binary.txt").write_text(text)
    refused(awa_tree, r"predicate-matrix-binary.txt: expected 4 rows of 3 numbers")


@pytest.mark.parametrize("value", ["2", "-1", "0.5", "x"])
def test_a_matrix_that_is_not_binary_is_refused(value: str, awa_tree: Path) -> None:
    (awa_tree / "predicate-matrix-binary.txt").write_text(f"0 1 1\n1 0 1\n1 {value} 0\n0 0 1\n")
    refused(awa_tree, r"predicate-matrix-binary.txt: .*0 and 1")


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_that_is_not_listed_is_named(part: str, awa_tree: Path) -> None:
    (awa_tree / f"{part}classes.txt").write_text("antelope\nunicorn\n")
    refused(awa_tree, r"'unicorn' is not in classes.txt")


def test_a_class_without_a_folder_is_named(awa_tree: Path) -> None:
    shutil.rmtree(awa_tree / "JPEGImages" / "killer+whale")
    refused(awa_tree, r"killer\+whale: no such folder.*testclasses.txt")


def test_classes_without_any_image_are_refused(awa_tree: Path) -> None:
    for name in ("killer+whale", "grizzly+bear"):
        for image in (awa_tree / "JPEGImages" / name).iterdir():
            image.unlink()
    for part in ("train", "test"):
        with pytest.raises(UsageError, match=r"JPEGImages: no .jpg file.*testclasses.txt"):
            Awa().load(OPTIONS, awa_tree, part)


@pytest.mark.parametrize("content", ["text", "torn", "empty"])
def test_an_unreadable_image_is_named_or_left_out(content: str, awa_tree: Path) -> None:
    bad = awa_tree / "JPEGImages" / "beaver" / "beaver_10002.jpg"
    whole = bad.read_bytes()
    bad.write_bytes(
        {"text": b"not an image", "torn": whole[: len(whole) // 2], "empty": b""}[content]
    )
    with pytest.raises(UsageError, match=r"1 of 7 images cannot be read: .*beaver_10002.jpg"):
        Awa().load(OPTIONS, awa_tree, "train")
    kept = Awa().load(ImageOptions(image_size=32, unreadable="skip"), awa_tree, "train")
    assert len(kept.inputs) == len(kept.labels) == 6
    assert "JPEGImages/beaver/beaver_10002.jpg" not in kept.names


def test_options_name_a_size_that_is_impossible() -> None:
    with pytest.raises(UsageError, match="image_size"):
        ImageOptions.build({"image_size": 8}, "--set")
