"""Samples to be scored: every form gives the same samples, in order, and tells what cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trees import png

from bbam_ray.data.prediction.chunks import Batch
from bbam_ray.data.prediction.inputs import find_chunks
from bbam_ray.errors import UsageError

SHAPE, N = (1, 24, 24), 50
RNG = np.random.default_rng(3)
IMAGES = RNG.integers(0, 256, (N, *SHAPE)).astype(np.uint8)
VECTORS = RNG.normal(size=(N, 7)).astype(np.float32)


def read(source: Path, shape: tuple[int, ...], size: int = 8) -> Batch:
    """All samples of a source, and a check that batches have the requested size."""
    names, blocks, problems = [], [], []
    for chunk in find_chunks(source, shape, ["a", "b"]):
        batches = list(chunk.batches(size))
        assert all(len(batch.names) == size for batch in batches[:-1])
        assert sum(len(batch.names) for batch in batches) == chunk.count
        for batch in batches:
            names += batch.names
            blocks.append(batch.inputs)
            problems += batch.problems
    return Batch(names, np.concatenate(blocks), problems)


def test_a_folder_of_images(tmp_path: Path) -> None:
    for row in range(N):
        path = tmp_path / f"part{row % 3}" / f"{row:02}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(IMAGES[row, 0]))
    (tmp_path / "notes.txt").write_text("no image")
    found = read(tmp_path, SHAPE)
    order = sorted(range(N), key=lambda row: f"part{row % 3}/{row:02}.png")
    assert found.names == [f"part{row % 3}/{row:02}.png" for row in order]
    assert np.array_equal(found.inputs, IMAGES[order]) and found.problems == [None] * N


@pytest.mark.parametrize("groups", [7, 1000])
@pytest.mark.parametrize("named", [True, False])
def test_parquet_with_images(groups: int, named: bool, tmp_path: Path) -> None:
    blobs = [png(image[0]) for image in IMAGES]
    columns = {"image": [{"bytes": blob, "path": None} for blob in blobs] if named else blobs}
    if named:
        columns["file_name"] = [f"n{row}" for row in range(N)]
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=groups)
    found = read(tmp_path / "x.parquet", SHAPE)
    assert np.array_equal(found.inputs, IMAGES) and found.problems == [None] * N
    assert found.names == [f"n{row}" if named else f"row {row + 1}" for row in range(N)]


@pytest.mark.parametrize("fixed", [True, False])
def test_parquet_with_features(fixed: bool, tmp_path: Path) -> None:
    kind = pa.list_(pa.float32(), 7) if fixed else pa.list_(pa.float64())
    column = pa.array(VECTORS.tolist(), kind)
    pq.write_table(pa.table({"features": column}), tmp_path / "x.parquet", row_group_size=20)
    found = read(tmp_path / "x.parquet", (7,))
    assert found.inputs.dtype == np.float32 and np.array_equal(found.inputs, VECTORS)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("rows", [16, 8192])
def test_npz(save: object, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bbam_ray.data.prediction.inputs._ROWS", rows)
    save(
        tmp_path / "x.npz",
        images=IMAGES,
        features=VECTORS.astype(np.float64),
        label_names=["a", "b"],
    )
    assert np.array_equal(read(tmp_path / "x.npz", SHAPE).inputs, IMAGES)
    found = read(tmp_path / "x.npz", (7,))
    assert np.array_equal(found.inputs, VECTORS)
    assert found.names == [f"row {row + 1}" for row in range(N)]


@pytest.mark.parametrize("rows", [16, 8192])
def test_npz_in_fortran_order(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bbam_ray.data.prediction.inputs._ROWS", rows)
    np.savez(
        tmp_path / "x.npz",
        features=np.asfortranarray(VECTORS),
        images=np.asfortranarray(IMAGES),
    )
    assert np.array_equal(read(tmp_path / "x.npz", (7,)).inputs, VECTORS)
    assert np.array_equal(read(tmp_path / "x.npz", SHAPE).inputs, IMAGES)


def test_bad_images_among_good_ones_are_reported(tmp_path: Path) -> None:
    good = png(IMAGES[0, 0])
    for name, content in {"a": good, "b": b"", "c": b"junk", "d": good[:60], "e": good}.items():
        (tmp_path / f"{name}.png").write_bytes(content)
    found = read(tmp_path, SHAPE)
    assert [problem is None for problem in found.problems] == [True, False, False, False, True]
    assert found.problems[1] == "empty" and "identify" in found.problems[2]
    assert not found.inputs[1:4].any() and np.array_equal(found.inputs[4], IMAGES[0])


def test_bad_vectors_among_good_ones_are_reported(tmp_path: Path) -> None:
    rows = [VECTORS[0].tolist(), None, [1.0] * 6, [float("nan")] * 7, [1, 2, None, 4, 5, 6, 7.0]]
    pq.write_table(pa.table({"features": rows}), tmp_path / "x.parquet")
    found = read(tmp_path / "x.parquet", (7,))
    assert found.problems == [
        None,
        "missing; the model expects 7 features",
        "6 features; the model expects 7 features",
        "feature 1 is nan",
        "feature 3 is nan",
    ]
    assert np.isfinite(found.inputs).all()
    spoiled = VECTORS.copy()
    spoiled[4, 2] = np.inf
    np.savez(tmp_path / "x.npz", features=spoiled)
    found = read(tmp_path / "x.npz", (7,))
    assert [row for row, p in enumerate(found.problems) if p] == [4]
    assert found.problems[4] == "feature 3 is inf"


class TestRefused:
    def refused(self, source: Path, shape: tuple[int, ...], words: str) -> None:
        with pytest.raises(UsageError, match=words):
            find_chunks(source, shape, ["a", "b"])

    def test_missing_inputs(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "none", SHAPE, "no such file or folder")
        self.refused(tmp_path, SHAPE, "no image in this folder")
        self.refused(tmp_path, (7,), r"expects feature vectors; give a \.parquet or \.npz file")

    def test_other_kinds_of_files(self, tmp_path: Path) -> None:
        for name in ("x.csv", "x.parquet", "x.npz"):
            (tmp_path / name).write_text("something else")
        self.refused(tmp_path / "x.csv", (7,), "expected a folder of images")
        self.refused(tmp_path / "x.parquet", (7,), "not a complete Parquet file")
        self.refused(tmp_path / "x.npz", (7,), "cannot be read")

    def test_samples_of_another_shape(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", images=IMAGES, features=VECTORS)
        self.refused(tmp_path / "x.npz", (6,), r"features is float32 \(50, 7\); .* \(N, 6\)")
        self.refused(tmp_path / "x.npz", (3, 24, 24), r"images is uint8 .* \(N, 3, 24, 24\)")
        column = pa.array(VECTORS.tolist(), pa.list_(pa.float32(), 7))
        pq.write_table(pa.table({"features": column}), tmp_path / "x.parquet")
        self.refused(tmp_path / "x.parquet", (6,), "7 features per row; the model expects 6")

    def test_files_without_what_the_model_takes(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", features=VECTORS)
        self.refused(tmp_path / "x.npz", SHAPE, r"no array 'images'.*\(arrays: features\)")
        pq.write_table(pa.table({"image": [b""]}), tmp_path / "x.parquet")
        self.refused(tmp_path / "x.parquet", (7,), r"no column 'features'.*\(columns: image\)")

    def test_labels_of_another_model(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", features=VECTORS, label_names=["a", "c"])
        self.refused(tmp_path / "x.npz", (7,), r"label_names differ from those of the model \(c\)")

    def test_objects_are_refused_with_the_name_of_the_array(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "y.npz", features=np.array([[object()]], dtype=object))
        self.refused(tmp_path / "y.npz", (1,), "array 'features': contains Python objects")
