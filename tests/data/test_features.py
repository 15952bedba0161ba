"""Feature vectors from .npz, Parquet and Mulan: the same samples, and each mistake named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trees import features, random_labels

from bbam_ray.data.datasets.base import Samples
from bbam_ray.data.datasets.features import Features, FeaturesOptions
from bbam_ray.data.formats.feature_files import feature_files
from bbam_ray.errors import UsageError

MULAN = Path(__file__).parents[3] / "shared" / "data" / "mulan"
NAMES = ["a", "b", "c"]
LABELS = random_labels(30, 3, seed=1)
VECTORS = np.random.default_rng(2).normal(5, [1, 10, 100, 0], (30, 4)).astype(np.float32)


def load(path: Path | None, part: Any = "train", **options: Any) -> Samples:
    chosen = FeaturesOptions(**options)
    Features().check(chosen, path)
    return Features().load(chosen, path, part)


def refused(path: Path | None, match: str, **options: Any) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value)


def npz(folder: Path, **changes: Any) -> Path:
    arrays: dict[str, Any] = {
        "features": VECTORS[:20],
        "labels": LABELS[:20],
        "test_features": VECTORS[20:],
        "test_labels": LABELS[20:],
        "label_names": np.array(NAMES),
    }
    arrays |= changes
    np.savez(folder / "some.npz", **{k: v for k, v in arrays.items() if v is not None})
    return folder / "some.npz"


def lists(rows: slice) -> list[list[str]]:
    return [[n for n, present in zip(NAMES, row, strict=True) if present] for row in LABELS[rows]]


def parquet(folder: Path) -> Path:
    split = ["train"] * 20 + ["test"] * 10
    names = [f"sample {row}" for row in range(30)]
    columns = {"name": names, "features": VECTORS.tolist(), "labels": lists(slice(None))}
    pq.write_table(pa.table({**columns, "split": split}), folder / "some.parquet")
    return folder / "some.parquet"


def parquet_folder(folder: Path) -> Path:
    for name, rows in (("train-0", slice(8)), ("train-1", slice(8, 20)), ("test", slice(20, 30))):
        fixed = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS[rows].reshape(-1)), 4)
        wide = {n: LABELS[rows][:, k] for k, n in enumerate(NAMES)}
        pq.write_table(pa.table({"features": fixed, **wide}), folder / f"{name}.parquet")
    return folder


def mulan(folder: Path) -> Path:
    attributes = "".join(f"@attribute x{k} numeric\n" for k in range(4))
    attributes += "".join(f"@attribute {name} {{0,1}}\n" for name in NAMES)
    for part, rows in (("train", range(20)), ("test", range(20, 30))):
        lines = [",".join([*map(repr, VECTORS[r].tolist()), *map(str, LABELS[r])]) for r in rows]
        text = f"@relation x\n{attributes}@data\n" + "\n".join(lines) + "\n"
        (folder / f"x-{part}.arff").write_text(text)
    tags = "".join(f'<label name="{name}"></label>' for name in NAMES)
    (folder / "x.xml").write_text(f"<labels>{tags}</labels>")
    return folder


@pytest.mark.parametrize("form", [npz, parquet, parquet_folder, mulan])
def test_every_form_gives_the_same_samples(form: Any, tmp_path: Path) -> None:
    path = form(tmp_path)
    train, test = load(path), load(path, "test")
    np.testing.assert_array_equal(train.inputs[:], VECTORS[:20])
    np.testing.assert_array_equal(test.inputs[:], VECTORS[20:])
    np.testing.assert_array_equal(train.labels, LABELS[:20])
    np.testing.assert_array_equal(test.labels, LABELS[20:])
    assert train.label_names == tuple(NAMES) and train.is_labeled is None


def test_the_scale_is_that_of_the_training_part(tmp_path: Path) -> None:
    views = load(npz(tmp_path)).views
    np.testing.assert_allclose(views.mean, VECTORS[:20].mean(0), rtol=1e-5)
    np.testing.assert_allclose(views.std[:3], VECTORS[:20, :3].std(0), rtol=1e-4)
    assert views.std[3] == 1  # a feature that never changes
    assert load(npz(tmp_path), "test").views == views
    assert load(npz(tmp_path), standardize=False).views.mean == (0.0,)


def test_unlabelled_vectors_have_no_labels(tmp_path: Path) -> None:
    train = load(npz(tmp_path, unlabeled_features=VECTORS[:7] + 1))
    assert train.is_labeled is not None and list(train.is_labeled) == [True] * 20 + [False] * 7
    assert not train.labels[20:].any()


def test_without_a_test_part_a_share_becomes_one(tmp_path: Path) -> None:
    path = npz(tmp_path, test_features=None, test_labels=None)
    train, test = load(path, test_fraction=0.25), load(path, "test", test_fraction=0.25)
    assert (len(train.labels), len(test.labels)) == (15, 5)
    together = np.concatenate([train.inputs[:], test.inputs[:]])
    assert sorted(map(tuple, together)) == sorted(map(tuple, VECTORS[:20]))


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    load(npz(tmp_path))
    assert load(npz(tmp_path, features=VECTORS[:20] + 9)).inputs[0][3] == VECTORS[0, 3] + 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "no array 'labels'"),
        ({"feature": VECTORS}, "unknown array 'feature'; did you mean 'features'"),
        ({"labels": LABELS[:19]}, r"labels is \(19, 3\) for 20 rows"),
        ({"labels": LABELS[:20] * 2}, r"labels\[\d+, \d+\] = 2 is neither 0 nor 1"),
        ({"test_features": VECTORS[20:, :3]}, r"test_features is float32 \(10, 3\)"),
        ({"test_labels": None}, "found only one of test_features"),
        ({"features": VECTORS[:20].astype(str)}, "features is <U"),
        ({"label_names": np.array(["a", "a", "b"])}, "2 different names for 3 labels"),
        (
            {"features": np.where(VECTORS[:20] == VECTORS[4, 2], np.nan, VECTORS[:20])},
            "row 5 is nan",
        ),
        ({"features": np.array([{}], dtype=object)}, "not an .npz file of plain arrays"),
    ],
)
def test_arrays_that_make_no_sense_are_named(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    refused(npz(tmp_path, **changes), rf"some\.npz: .*{message}")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"labels": [["a"]] * 3}, "no column 'features'"),
        ({"features": [1.0, 2.0, 3.0], "labels": [["a"]] * 3}, "expected a list of numbers"),
        (
            {"features": [[1.0], [2.0, 3.0], [4.0]], "labels": [["a"]] * 3},
            "row 2: 2 features, but",
        ),
        ({"features": [[1.0], None, [4.0]], "labels": [["a"]] * 3}, "row 2: no features"),
        (
            {"features": [[1.0], [np.inf], [2.0]], "labels": [["a"]] * 3},
            "feature 1 of row 2 is inf",
        ),
        ({"features": [[1.0]] * 3}, "no labels; label some"),
        ({"features": [[1.0]] * 3, "labels": [["a"]] * 3, "split": ["test"] * 2 + ["x"]}, "row 3"),
        ({"features": [["x"]] * 3, "labels": [["a"]] * 3}, "expected a list of numbers"),
    ],
)
def test_columns_that_make_no_sense_are_named(
    columns: dict[str, Any], message: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "some.parquet")
    refused(tmp_path / "some.parquet", rf"some\.parquet.*{message}", test_fraction=0.5)


@pytest.mark.parametrize("name", ["train.parquet", "test-features.parquet", "unlabeled.parquet"])
def test_the_name_of_a_single_file_moves_no_row_to_another_part(name: str, tmp_path: Path) -> None:
    path = parquet(tmp_path).rename(tmp_path / name)
    train, test = load(path), load(path, "test")
    np.testing.assert_array_equal(train.inputs[:], VECTORS[:20])
    np.testing.assert_array_equal(test.inputs[:], VECTORS[20:])


def test_changed_label_names_are_read_anew(tmp_path: Path) -> None:
    path = parquet(tmp_path)
    before = Features().state(FeaturesOptions(), path)
    assert load(path).label_names == ("a", "b", "c")
    (tmp_path / "labels.txt").write_text("c\nb\na\nd\n")
    assert load(path).label_names == ("c", "b", "a", "d")
    assert Features().state(FeaturesOptions(), path) != before


def test_files_of_different_widths_are_refused(tmp_path: Path) -> None:
    parquet_folder(tmp_path)
    table = pa.table({"features": [[1.0, 2.0]], "a": [1], "b": [0], "c": [0]})
    pq.write_table(table, tmp_path / "test-2.parquet")
    refused(tmp_path, r"test-2\.parquet: 2 features per row, but train-0\.parquet has 4")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "needs --data-dir"),
        ("nowhere", "no such"),
        ("x.arff", "give their folder"),
        (".", "Mulan"),
    ],
)
def test_a_place_without_features_is_refused(
    name: str | None, message: str, tmp_path: Path
) -> None:
    (tmp_path / "x.arff").touch()
    refused(None if name is None else tmp_path / name, message)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    refused(path, r"some\.npz: not an \.npz file")


@pytest.mark.skipif(not MULAN.is_dir(), reason="the Mulan data sets are not beside the checkout")
@pytest.mark.parametrize(
    ("name", "rows", "width", "labels"),
    [
        ("emotions", (391, 202), 72, 6),
        ("scene", (1211, 1196), 294, 6),
        ("yeast", (1500, 917), 103, 14),
    ],
)
def test_real_data_sets_of_mulan_are_read(
    name: str, rows: tuple[int, int], width: int, labels: int
) -> None:
    parts = [load(MULAN / name, part) for part in ("train", "test")]
    assert tuple(len(part.labels) for part in parts) == rows
    assert all(part.inputs.shape[1:] == (width,) for part in parts)
    assert all(len(part.label_names) == labels and part.labels.any(axis=0).all() for part in parts)


def test_a_folder_with_a_single_file_stands_for_the_file(tmp_path: Path) -> None:
    path = features(tmp_path, 40)
    (tmp_path / "._copy.npz").write_bytes(b"of macOS")
    assert feature_files(tmp_path) == [path] == feature_files(path)
    path.with_name("other.npz").write_bytes(path.read_bytes())
    with pytest.raises(
        UsageError, match=r"single .npz or .parquet file.*other.npz and vectors.npz"
    ):
        feature_files(tmp_path)
