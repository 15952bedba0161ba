"""A user's own images in each layout: the same content, and each mistake named."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trees import first_marks, images, marked_image, parquet_images, random_labels

from bbam_ray.data.datasets.base import Samples
from bbam_ray.data.datasets.images import Images, ImagesOptions
from bbam_ray.errors import UsageError

NAMES = ("cat", "dog", "bird", "fish", "frog")
LABELS = random_labels(12, 5, seed=9)


def options(**changes: Any) -> ImagesOptions:
    return ImagesOptions(image_size=32, **changes)


def load(root: Path, part: Any = "train", **changes: Any) -> Samples:
    Images().check(options(**changes), root)
    return Images().load(options(**changes), root, part)


def refused(root: Path, match: str, **changes: Any) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        load(root, **changes)
    assert "\n" not in str(caught.value)


def pictures(folder: Path, rows: range = range(12)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        marked_image(LABELS[row]).save(folder / f"{row:02d}.png")


def shown(row: int) -> list[str]:
    return [name for name, present in zip(NAMES, LABELS[row], strict=True) if present]


def test_rows_labels_parts_and_unlabelled_images_come_out_right(tmp_path: Path) -> None:
    root = images(tmp_path / "own")
    train, test = load(root), load(root, "test")
    expected = random_labels(50, 5, seed=3)
    is_test = np.arange(50) % 3 == 2
    np.testing.assert_array_equal(test.labels, expected[is_test])
    np.testing.assert_array_equal(train.labels[: (~is_test).sum()], expected[~is_test])
    assert train.label_names == NAMES and test.is_labeled is None and train.is_labeled is not None
    assert train.is_labeled.sum() == (~is_test).sum() and not train.is_labeled[-12:].any()
    assert not train.labels[-12:].any()
    assert train.names is not None and train.names[-1] == "unlabeled/u011.png"
    marks = first_marks(train.inputs[:])[:, :5]
    np.testing.assert_array_equal(
        marks[train.is_labeled], train.labels[train.is_labeled].astype(bool)
    )
    np.testing.assert_array_equal(marks[-12:], random_labels(12, 5, seed=4).astype(bool))


def wide_csv(root: Path) -> Path:
    pictures(root / "images")
    rows = [f"{row:02d}.png," + ",".join(map(str, LABELS[row])) for row in range(12)]
    (root / "labels.csv").write_text("file_name," + ",".join(NAMES) + "\n" + "\n".join(rows))
    return root


def list_csv(root: Path) -> Path:
    pictures(root / "images")
    rows = [f"{row:02d}.png,{'|'.join(shown(row))}" for row in range(12)]
    (root / "labels.csv").write_text("﻿file_name,labels\n" + "\r\n".join(rows), encoding="utf-8")
    return root


def json_lines(root: Path) -> Path:
    pictures(root)
    rows = [{"file_name": f"{row:02d}.png", "labels": shown(row)} for row in range(12)]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def metadata_parquet(root: Path) -> Path:
    pictures(root / "some" / "where")
    names = [f"some/where/{row:02d}.png" for row in range(12)]
    table = pa.table({"file_name": names, "labels": [shown(row) for row in range(12)]})
    pq.write_table(table, root / "metadata.parquet")
    return root


def image_bytes(root: Path) -> Path:
    content = []
    for row in range(12):
        buffer = io.BytesIO()
        marked_image(LABELS[row]).save(buffer, "PNG")
        content.append(buffer.getvalue())
    root.mkdir()
    table = pa.table({"image": content, "labels": [shown(row) for row in range(12)]})
    pq.write_table(table, root / "mine.parquet", row_group_size=5)
    return root / "mine.parquet"


LAYOUTS = [wide_csv, list_csv, json_lines, metadata_parquet, image_bytes]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_samples(layout: Any, tmp_path: Path) -> None:
    root = layout(tmp_path / "own")
    order = sorted(NAMES) if layout is not wide_csv else list(NAMES)
    columns = [NAMES.index(name) for name in order]
    parts = [load(root, part, test_fraction=0.25) for part in ("train", "test")]
    assert [len(part.labels) for part in parts] == [9, 3]
    for part in parts:
        assert part.label_names == tuple(order)
        marks = first_marks(part.inputs[:])[:, columns]
        np.testing.assert_array_equal(marks, part.labels.astype(bool))


def test_hugging_face_folders_say_their_parts(tmp_path: Path) -> None:
    for part, rows in (("train", range(8)), ("test", range(8, 12))):
        pictures(tmp_path / part, rows)
        lines = [{"file_name": f"{row:02d}.png", "labels": shown(row)} for row in rows]
        (tmp_path / part / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pictures(tmp_path / "unlabeled" / "deep", range(3))
    train, test = load(tmp_path), load(tmp_path, "test")
    assert (len(train.labels), len(test.labels)) == (11, 4)
    assert train.is_labeled is not None and train.is_labeled.sum() == 8
    np.testing.assert_array_equal(
        first_marks(test.inputs[:])[:, [NAMES.index(n) for n in test.label_names]], test.labels == 1
    )


def test_several_parquet_files_make_one_data_set(tmp_path: Path) -> None:
    for name, seed in (("train-00000-of-00002", 1), ("train-00001-of-00002", 2), ("test-0", 3)):
        source = pq.read_table(parquet_images(tmp_path / "source.parquet", 6 + seed))
        (tmp_path / "own" / "data").mkdir(parents=True, exist_ok=True)
        table = source.drop_columns(["split"])
        pq.write_table(table, tmp_path / "own" / "data" / f"{name}.parquet")
    pq.write_table(
        table.drop_columns(["labels"]), tmp_path / "own" / "data" / "unlabeled-0.parquet"
    )
    train, test = load(tmp_path / "own"), load(tmp_path / "own", "test")
    assert len(train.labels) == 7 + 8 + 9 and len(test.labels) == 9
    assert train.is_labeled is not None and train.is_labeled.sum() == 15
    assert train.names is not None and train.names[7] == "train-00001-of-00002.parquet row 1"
    marks = first_marks(train.inputs[:])[:, [NAMES.index(n) for n in train.label_names]]
    np.testing.assert_array_equal(marks[train.is_labeled], train.labels[train.is_labeled] == 1)


def test_numbered_labels_get_the_names_that_hugging_face_keeps(tmp_path: Path) -> None:
    image_bytes(tmp_path / "own")
    table = pq.read_table(tmp_path / "own" / "mine.parquet")
    numbers = [[NAMES.index(name) for name in shown(row)] for row in range(12)]
    info = {"info": {"features": {"labels": {"feature": {"names": NAMES, "_type": "ClassLabel"}}}}}
    named = pa.table({"image": table["image"], "labels": numbers})
    named = named.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(named, tmp_path / "mine.parquet")
    assert load(tmp_path / "mine.parquet").label_names == NAMES


def test_the_test_part_does_not_follow_a_seed_and_keeps_every_label(tmp_path: Path) -> None:
    root = wide_csv(tmp_path / "own")
    first, second = load(root, "test"), load(root, "test")
    assert first.names == second.names
    assert load(root).labels.any(axis=0).all()


def test_mirroring_can_be_switched_off(tmp_path: Path) -> None:
    root = wide_csv(tmp_path / "own")
    assert load(root).views.flip and not load(root, flip=False).views.flip


def test_files_that_no_table_names_are_told(tmp_path: Path) -> None:
    root = images(tmp_path / "own")
    assert Images().unused(options(), root) == []
    pictures(root / "images" / "more", range(2))
    assert [path.name for path in Images().unused(options(), root)] == ["00.png", "01.png"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("99.png,1,0,0,0,0", r"line 14: there is no file .*99\.png"),
        ("00.png,1,0,0,0,0", r"line 14: duplicate file '00\.png', already listed in .*line 2"),
        ("../../x.png,1,0,0,0,0", r"line 14: file '\.\./\.\./x\.png' is not a path inside"),
        ("/etc/x.png,1,0,0,0,0", r"line 14: file '/etc/x\.png' is not a path inside"),
        ("C:\\x.png,1,0,0,0,0", r"line 14: file 'C:\\x\.png' is not a path inside"),
        ("12.png,1,0,2,0,0", r"line 14: label 'bird' is '2', neither 0 nor 1"),
        ("12.png,1,0,,0,0", r"line 14: label 'bird' is blank"),
        ("12.png,,,,,", r"line 14: all labels are blank.*blank=unlabeled .*--set blank=negative"),
        ("12.png,1,0,0", r"line 14: 4 values for 6 columns"),
        ('12.png,"1,0,0,0,0', r"line 14: not valid CSV"),
    ],
)
def test_a_wrong_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    root = wide_csv(tmp_path / "own")
    marked_image(LABELS[0]).save(root / "images" / "12.png")
    path = root / "labels.csv"
    path.write_text(path.read_text() + "\n" + line)
    refused(root, r"labels\.csv " + message)


def test_a_blank_row_means_what_the_option_says(tmp_path: Path) -> None:
    root = wide_csv(tmp_path / "own")
    marked_image(LABELS[0]).save(root / "images" / "12.png")
    path = root / "labels.csv"
    path.write_text(path.read_text() + "\n12.png,,,,,")
    train = load(root, blank="unlabeled")
    assert train.is_labeled is not None and list(np.flatnonzero(~train.is_labeled)) == [
        len(train.is_labeled) - 1
    ]
    both = [load(root, part, blank="negative") for part in ("train", "test")]
    assert both[0].is_labeled is None and sum(len(part.labels) for part in both) == 13
    assert sum(int((~part.labels.any(axis=1)).sum()) for part in both) == 1


def test_null_and_an_empty_list_are_two_things(tmp_path: Path) -> None:
    root = json_lines(tmp_path / "own")
    lines = (root / "metadata.jsonl").read_text().splitlines()
    lines[0] = json.dumps({"file_name": "00.png", "labels": None})
    lines[1] = json.dumps({"file_name": "01.png", "labels": []})
    lines[2] = json.dumps({"file_name": "02.png"})
    (root / "metadata.jsonl").write_text("\n".join(lines))
    parts = [load(root, part) for part in ("train", "test")]
    unknown = [np.array(p.names)[~p.is_labeled] for p in parts if p.is_labeled is not None]
    assert sorted(np.concatenate(unknown)) == ["00.png", "02.png"]
    none = [
        np.array(p.names)[~p.labels.any(axis=1) & (True if p.is_labeled is None else p.is_labeled)]
        for p in parts
    ]
    assert list(np.concatenate(none)) == ["01.png"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: (r / "labels.csv").write_text(""), "has no rows"),
        (lambda r: (r / "labels.csv").write_text("file_name,cat\n"), "has no rows"),
        (lambda r: (r / "labels.csv").write_bytes(b"\xff\xfe\x00x"), "not UTF-8"),
        (lambda r: (r / "labels.csv").write_text("name,cat\n00.png,1"), "no column of file names"),
        (lambda r: (r / "labels.csv").write_text("file,cat,cat\n00.png,1,1"), "duplicate name"),
        (lambda r: (r / "labels.csv").write_text("file,cat,\n00.png,1,1"), "column 3 has no name"),
        (lambda r: (r / "labels.csv").unlink(), "no table of images"),
        (lambda r: json_lines(r), "both labels.csv and metadata.jsonl"),
        (lambda r: (r / "labels.txt").write_text("cat\ncat\n"), "duplicate label 'cat'"),
        (lambda r: (r / "labels.txt").write_text("cats\ndog\n"), "unknown label .*; did you mean"),
        (lambda r: (r / "labels.csv").write_text("file,labels\n00.png,a|b;c"), "label_separator"),
        (
            lambda r: (r / "labels.csv").write_text("file,labels\n00.png,a||b"),
            "is blank; fill it in",
        ),
        (
            lambda r: (r / "labels.csv").write_text("file,labels,split\n00.png,a,val"),
            "split = 'val'",
        ),
        (
            lambda r: (r / "labels.csv").write_text("file,a,b\n00.png,1,\n01.png,0,\n"),
            "label 'b' is blank",
        ),
    ],
)
def test_a_folder_that_makes_no_sense_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    root = wide_csv(tmp_path / "own")
    change(root)
    refused(root, message)


@pytest.mark.parametrize("content", [b"", b"text", b"cut"])
def test_an_unreadable_image_is_named_or_left_out(content: bytes, tmp_path: Path) -> None:
    root = wide_csv(tmp_path / "own")
    path = root / "images" / "04.png"
    path.write_bytes(path.read_bytes()[:60] if content == b"cut" else content)
    refused(root, r"1 of \d+ images cannot be read: images/04\.png \(.+\).*unreadable=skip")
    parts = [load(root, part, unreadable="skip") for part in ("train", "test")]
    assert sum(len(part.labels) for part in parts) == 11
    for part in parts:
        np.testing.assert_array_equal(first_marks(part.inputs[:])[:, :5], part.labels.astype(bool))


def test_a_broken_image_inside_parquet_is_named_by_its_row(tmp_path: Path) -> None:
    path = image_bytes(tmp_path / "own")
    table = pq.read_table(path)
    content = table["image"].to_pylist()
    content[6] = None
    table = table.set_column(0, "image", pa.array(content, pa.binary()))
    pq.write_table(table, path)
    refused(path, r"mine\.parquet row 7 \(empty\)")


@pytest.mark.parametrize("name", ["labels.csv", "nowhere", None])
def test_a_place_that_is_no_folder_is_refused(name: str | None, tmp_path: Path) -> None:
    root = wide_csv(tmp_path / "own")
    with pytest.raises(UsageError, match="--data-dir"):
        Images().check(options(), None if name is None else root / name)


def test_a_parquet_file_without_images_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", "no column 'image'")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    refused(tmp_path / "b.parquet", "not a Parquet file")


@pytest.mark.parametrize("layout", [wide_csv, image_bytes])
def test_label_names_beside_the_data_are_part_of_its_state(layout: Any, tmp_path: Path) -> None:
    root = layout(tmp_path / "own")
    before = Images().state(options(), root)
    names = (root.parent if root.is_file() else root) / "labels.txt"
    names.write_text("\n".join([*NAMES, "more"]))
    assert Images().state(options(), root) != before
    assert load(root).label_names == (*NAMES, "more")


def test_a_link_to_a_large_disk_is_no_way_out_of_the_folder(tmp_path: Path) -> None:
    root = wide_csv(tmp_path / "own")
    shutil.move(root / "images", tmp_path / "elsewhere")
    (root / "images").symlink_to(tmp_path / "elsewhere")
    assert len(load(root).labels) == 10
