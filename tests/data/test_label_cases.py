"""Data sets as people have them: what ``bbam-ray data check`` says about each; no case is silent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from label_inputs import write_table
from trees import marked_image
from typer.testing import CliRunner

from bbam_ray.cli.main import app
from bbam_ray.commands import data as command
from bbam_ray.data.inspection import Inspection
from bbam_ray.engine.task import load_part
from bbam_ray.errors import UsageError
from bbam_ray.methods import run_config

SHARED = Path(__file__).parents[3] / "shared" / "cases"
ROWS = 24
LISTS = [[["cat"], ["cat", "dog"], ["dog"], []][row % 4] for row in range(ROWS)]
WIDE = {"cat": [int("cat" in row) for row in LISTS], "dog": [int("dog" in row) for row in LISTS]}
TEXTS = [f"some words {row} of a text" for row in range(ROWS)]
VECTORS = np.random.default_rng(0).normal(size=(ROWS, 3)).tolist()


def check(dataset: str, folder: Path, **settings: Any) -> Inspection:
    small = {"images": {"image_size": 32}, "text": {"vocabulary": 300}, "features": {}}[dataset]
    values = {"data_dir": str(folder), "labeled_fraction": 0.5, **small, **settings}
    return command.check(dataset, values)


def refused(dataset: str, folder: Path, match: str, **settings: Any) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        check(dataset, folder, **settings)
    assert "\n" not in str(caught.value)


def some(columns: dict[str, Any], rows: slice | None) -> dict[str, Any]:
    return {name: values[rows or slice(None)] for name, values in columns.items()}


def texts(folder: Path, name: str, labels: dict[str, Any], rows: slice | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    write_table(folder / name, some({"text": TEXTS, **labels}, rows))
    return folder


def features(folder: Path, name: str, labels: dict[str, Any], rows: slice | None = None) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    write_table(folder / name, some({"features": VECTORS, **labels}, rows))
    return folder


def pictures(folder: Path, labels: dict[str, Any], name: str, rows: slice | None = None) -> Path:
    files = [f"{row:02d}.png" for row in range(ROWS)][rows or slice(None)]
    (folder / "images" if name == "labels.csv" else folder).mkdir(exist_ok=True, parents=True)
    for number, file in enumerate(files):
        place = folder / "images" if name == "labels.csv" else folder
        marked_image(np.eye(10, dtype=np.uint8)[number % 10], number=number).save(place / file)
    write_table(folder / name, {"file_name": files, **some(labels, rows)})
    return folder


BARS = {"labels": ["|".join(row) or "none" for row in LISTS]}


@pytest.mark.parametrize("part", ["dev", "validation", "val", "valid", "val-00000-of-00001"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_validation_file_of_texts_is_the_validation_part(
    part: str, suffix: str, tmp_path: Path
) -> None:
    texts(tmp_path, f"train{suffix}", BARS, slice(0, 12))
    texts(tmp_path, f"{part}{suffix}", BARS, slice(12, 18))
    texts(tmp_path, f"test{suffix}", BARS, slice(18, 24))
    seen = check("text", tmp_path)
    assert seen.counts | {"train": 18, "test": 6, "validation": 6, "labeled": 6} == seen.counts
    assert any("6 rows are the validation part" in note for note in seen.warnings)
    assert any("validation_fraction and folds do not apply" in note for note in seen.warnings)


def test_a_validation_part_of_features_and_images(tmp_path: Path) -> None:
    for name, rows in (("train", slice(0, 12)), ("dev", slice(12, 18)), ("test", slice(18, 24))):
        features(tmp_path / "f", f"{name}.parquet", WIDE, rows)
        pictures(tmp_path / "i" / name, WIDE, "metadata.csv", rows)
    for dataset, folder in (("features", "f"), ("images", "i")):
        counts = check(dataset, tmp_path / folder).counts
        assert (counts["validation"], counts["labeled"], counts["test"]) == (6, 6, 6)
    folder = pictures(
        tmp_path / "s", {**WIDE, "split": (["train", "val", "test"] * 8)}, "labels.csv"
    )
    counts = check("images", folder).counts
    assert (counts["validation"], counts["labeled"], counts["test"]) == (8, 4, 8)


def test_tables_that_are_not_used_are_named(tmp_path: Path) -> None:
    texts(tmp_path, "train.csv", BARS)
    (tmp_path / "sample_submission.csv").write_text("id,labels\n")
    (tmp_path / "._train.csv").write_bytes(b"\x00\x05\x16\x07")
    seen = check("text", tmp_path)
    assert any("not used: sample_submission.csv" in note for note in seen.warnings)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_more_texts_without_labels_are_unlabelled_and_a_test_part_is_refused(
    suffix: str, tmp_path: Path
) -> None:
    texts(tmp_path, f"train{suffix}", WIDE)
    texts(tmp_path, f"train_extra{suffix}", {})
    seen = check("text", tmp_path)
    assert seen.counts["known"] < ROWS < seen.counts["train"]
    assert any("has no label column: its 24 rows are not labelled" in n for n in seen.warnings)
    texts(tmp_path, f"test{suffix}", {})
    refused("text", tmp_path, rf"test{suffix}: no label column")


def test_a_test_part_of_features_or_images_without_labels_is_refused(tmp_path: Path) -> None:
    features(tmp_path / "f", "train.parquet", WIDE)
    features(tmp_path / "f", "test.parquet", {}, slice(0, 5))
    refused("features", tmp_path / "f", r"test\.parquet: no label column")
    pictures(tmp_path / "i" / "train", WIDE, "metadata.csv", slice(0, 12))
    pictures(tmp_path / "i" / "test", {}, "metadata.csv", slice(12, 24))
    refused("images", tmp_path / "i", r"metadata\.csv: no label column")


def test_training_needs_no_labels_of_the_test_part(tmp_path: Path) -> None:
    features(tmp_path, "train.parquet", WIDE)
    features(tmp_path, "test.parquet", {}, slice(0, 5))
    data = ["--dataset", "features", "--data-dir", str(tmp_path)]
    labeled = ["--labeled-fraction", "0.5"]
    dry = CliRunner().invoke(app, ["tune", *data, *labeled, "--dry-run", "--folds", "1"])
    assert dry.exit_code == 0, dry.output
    said = " ".join(dry.output.split())
    assert "nothing is measured on the test part" in said
    assert "test.parquet has no label column: only validation figures are reported" in said
    compared = CliRunner().invoke(app, ["compare", *data, "--labeled-fractions", "0.5"])
    assert compared.exit_code == 2
    assert "test.parquet: no label column" in compared.output
    config = run_config(
        {"dataset": "features", "data_dir": tmp_path, "labeled_fraction": 0.5}, "test"
    )
    assert len(load_part(config, "train").labels) == ROWS
    with pytest.raises(UsageError, match=r"test.parquet: no label column"):
        load_part(config, "test")


@pytest.mark.parametrize("column", ["split", "part", "subset"])
def test_partitions_by_split_are_read_and_all_others_refused(column: str, tmp_path: Path) -> None:
    features(tmp_path / f"{column}=train", "part-0.parquet", WIDE, slice(0, 16))
    features(tmp_path / f"{column}=test", "part-0.parquet", WIDE, slice(16, 24))
    counts = check("features", tmp_path).counts
    assert (counts["train"], counts["test"]) == (16, 8)
    features(tmp_path / "year=2020", "part-0.parquet", WIDE)
    refused("features", tmp_path, "the folder 'year=2020' is a partition that names no part")


def test_a_table_without_header_and_numbers_of_classes(tmp_path: Path) -> None:
    lines = [f"{text}\t{['0,1', '27', '3'][row % 3]}\ted{row}" for row, text in enumerate(TEXTS)]
    (tmp_path / "train.tsv").write_text("\n".join(lines))
    refused("text", tmp_path, "no column 'text'.*--set column_names=text,labels")
    (tmp_path / "labels.txt").write_text("\n".join(f"feeling {k}" for k in range(28)))
    seen = check("text", tmp_path, column_names="text,labels,id")
    assert seen.label_names[27] == "feeling 27" and sum(seen.positives["train"]) > 0
    assert "numbers from 0, 28 names from labels.txt" in seen.understood


def test_a_kaggle_folder_works_by_settings_alone(tmp_path: Path) -> None:
    (tmp_path / "Images").mkdir()
    for row in range(ROWS):
        marked_image(np.eye(10, dtype=np.uint8)[row % 10], number=row).save(
            tmp_path / "Images" / f"tt{row}.jpg"
        )
    columns = {"Id": [f"tt{row}" for row in range(ROWS)], "Genre": [str(row) for row in LISTS]}
    write_table(tmp_path / "train.csv", {**columns, **WIDE, "empty": [""] * ROWS})
    chosen = {"file_column": "Id", "file_template": "Images/{}.jpg"}
    refused("images", tmp_path, "no column of file names; .*file_column")
    refused("images", tmp_path, "label 'Genre' is .*ignore_columns=Genre", **chosen)
    refused(
        "images", tmp_path, "'empty' is blank in all rows.*ignore_columns=empty",
        ignore_columns="Genre", **chosen,
    )  # fmt: skip
    seen = check("images", tmp_path, ignore_columns="Genre,empty", **chosen)
    assert seen.label_names == ("cat", "dog") and not seen.errors
    seen = check("images", tmp_path, label_columns="Genre", **chosen)
    assert seen.label_names == ("cat", "dog") and "lists written as text" in seen.understood
    assert any("not used: columns 'cat', 'dog', 'empty'" in note for note in seen.warnings)


def test_a_column_of_texts_is_chosen_by_name(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", {"comment": TEXTS, **WIDE})
    refused("text", tmp_path, "no column 'text'.*--set text_column=")
    assert check("text", tmp_path, text_column="comment").label_names == ("cat", "dog")


def hugging_face_images(folder: Path, paths: list[str | None]) -> Path:
    folder.mkdir()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": None, "path": path} for path in paths]
    table = pa.table({"image": pa.array(cells, kind), "labels": LISTS[: len(paths)]})
    pq.write_table(table, folder / "train.parquet")
    return folder


def test_paths_without_bytes_are_followed_inside_the_folder(tmp_path: Path) -> None:
    files = [f"sub/{row:02d}.png" for row in range(ROWS)]
    folder = hugging_face_images(tmp_path / "a", list(files))
    refused(
        "images", folder, r"train\.parquet row 2: there is no file .*holds paths, not the bytes"
    )
    pictures(folder / "sub", {}, "unused.csv")
    (folder / "sub" / "unused.csv").unlink()
    assert check("images", folder).counts["known"] + check("images", folder).counts["test"] == ROWS
    one = check("images", folder / "train.parquet")
    assert one.counts == check("images", folder).counts
    folder = hugging_face_images(tmp_path / "b", ["/home/x/1.jpg", None])
    refused("images", folder, "'/home/x/1.jpg' is not a path inside")


def test_hidden_files_are_skipped(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "a", WIDE, "labels.csv")
    for name in (
        "unlabeled/x.png",
        "unlabeled/._x.png",
        "unlabeled/__MACOSX/._x.png",
        "images/._0.png",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\x00\x05\x16\x07")
    marked_image(np.ones(10)).save(folder / "unlabeled" / "x.png")
    seen = check("images", folder)
    assert not seen.errors and seen.counts["train"] + seen.counts["test"] == ROWS + 1


def test_labels_for_prediction_and_training_may_be_in_fortran_order(tmp_path: Path) -> None:
    arrays = {
        "features": np.asfortranarray(VECTORS),
        "labels": np.asfortranarray(list(WIDE.values())).T,
    }
    np.savez(tmp_path / "f.npz", **arrays)
    seen = check("features", tmp_path / "f.npz")
    assert seen.counts["train"] + seen.counts["test"] == ROWS
    assert "array `labels` of 0 and 1, 2 names from their positions" in seen.understood


@pytest.mark.parametrize("name", ["label_names", "features", "labels"])
def test_an_array_of_objects_is_named(name: str, tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"features": VECTORS, "labels": list(zip(*WIDE.values(), strict=True))}
    arrays["label_names"] = ["cat", "dog"]
    arrays[name] = np.array(arrays[name], dtype=object)
    np.savez(tmp_path / "f.npz", **arrays)
    refused(
        "features", tmp_path / "f.npz", f"array '{name}': contains Python objects; save it with"
    )


def test_check_says_what_was_understood_and_shows_three_rows(tmp_path: Path) -> None:
    seen = check(
        "text", texts(tmp_path, "train.csv", {"labels": [json.dumps(row) for row in LISTS]})
    )
    assert seen.understood == (
        "labels: column `labels`, lists written as text, 2 names; 24 of 24 rows labelled"
    )
    assert seen.first_rows == [
        "train.csv line 2: cat",
        "train.csv line 3: cat, dog",
        "train.csv line 4: dog",
    ]


REFUSED = {
    "jsonl_multihot_int": ("images", "vector of 3 zeros and ones, and the names .* unknown"),
    "pq_multihot": ("features", "vector of 3 zeros and ones, and the names .* unknown"),
    "jsonl_nested": ("images", "which is a list, inside a list"),
    "txt_labels_bracket_semicolon": ("text", r"'\[Drama; Comedy\]' begins and ends like a list"),
    "pq_test_nolabels": ("features", "test.parquet: no label column"),
    "hf_test_somecol": ("images", "metadata.csv: no label column"),
    "txt_cols_differ": ("text", "test.csv: no label column 'obscene'"),
    "txt_labels_single_name": ("text", "column 'labels' or in the 0/1 columns 'toxic'"),
    "pq_split_bool": ("features", "column 'is_test' looks like"),
    "npz_objnames": ("features", "array 'label_names': contains Python objects"),
    "hfimg_path_only": ("images", "holds paths, not the bytes"),
    "txt_goemotions": ("text", "no column 'text'.*column_names"),
}
READ = {
    "csv_python_list": ("images", "lists written as text, 3 names"),
    "csv_json_list": ("images", "lists written as text, 3 names"),
    "jsonl_string_list": ("images", "lists written as text, 3 names"),
    "txt_train2_nolabels": ("text", "train_extra.csv has no label column"),
    "csv_space_tags": ("images", "lists separated by blanks, 3 names"),
    "pq_hf_two_classlabels": ("features", "3 names from the file's ClassLabel names"),
    "hfimg_two_classlabels": ("images", "3 names from the file's ClassLabel names"),
    "jsonl_nan": ("images", "15 of 20 rows labelled"),
    "txt_label_nan": ("text", "'None' and 'nan' are labels"),
    "txt_tsv_quote": ("text", "40 of 40 rows labelled"),
    "txt_dev": ("text", "18 rows are the validation part"),
    "txt_nfc_nfd": ("text", "2 names"),
    "txt_case_dup": ("text", "differ only in case"),
    "txt_long": ("text", "40 of 40 rows labelled"),
    "pq_index": ("features", "the row index of pandas"),
    "pq_hive": ("features", "120 of 120 rows labelled"),
    "img_appledouble_unlabeled": ("images", "20 of 20 rows labelled"),
}


def shared(name: str, folder: Path) -> Path:
    source = SHARED / name
    single = [path for path in source.iterdir() if path.stem == "f"]
    if single:
        shutil.copy(single[0], folder)
        return folder / single[0].name
    shutil.copytree(source, folder / name)
    return folder / name


@pytest.mark.skipif(not SHARED.is_dir(), reason="the cases are not beside the checkout")
@pytest.mark.parametrize("name", [*REFUSED, *READ])
def test_every_case_is_read_right_or_refused(name: str, tmp_path: Path) -> None:
    if name in REFUSED:
        dataset, match = REFUSED[name]
        refused(dataset, shared(name, tmp_path), match)
        return
    dataset, said_text = READ[name]
    seen = check(dataset, shared(name, tmp_path))
    assert not seen.errors
    assert said_text in "; ".join([seen.understood, *seen.warnings])
