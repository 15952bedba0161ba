"""``predict``: one row a sample in input order, the same bytes on any number of workers, flat memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bbam_ray import load_model
from bbam_ray.cli.main import app
from bbam_ray.engine.prediction import check_output, prediction_file, prediction_schema
from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import UsageError

ROOT = Path(__file__).parents[2]
Stored = tuple[Trainer, Path]


def run(*arguments: object) -> str:
    ended = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_scores_and_labels_are_those_of_the_model(
    digits_model: Stored, scenes: np.ndarray, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", images=scenes)
    common = ("--model", digits_model[1], "--input", tmp_path / "x.npz", "--output")
    printed = run(*common, tmp_path / "deep" / "o.parquet")
    assert "100 samples" in printed and "could not" not in printed
    table = pq.read_table(tmp_path / "deep" / "o.parquet").to_pandas()
    model = load_model(digits_model[1])
    assert table.columns.tolist() == ["name", "error", "labels", *(f"score_{k}" for k in range(10))]
    scores = table.filter(like="score_").to_numpy()
    assert np.allclose(scores, model.predict_proba(scenes), rtol=0, atol=1e-6)
    expected = [[str(k) for k in np.flatnonzero(row)] for row in model.predict(scenes)]
    assert table["labels"].map(list).tolist() == expected
    assert table["name"].tolist() == [f"row {row + 1}" for row in range(100)]
    run(*common, tmp_path / "o.csv", "--scores", "logit")
    found = pd.read_csv(tmp_path / "o.csv", dtype={"labels": str}, keep_default_na=False)
    logits = found.filter(like="score_").to_numpy(dtype=float)
    assert np.allclose(logits, model.logits(scenes), rtol=0, atol=1e-4)
    assert [text.split("|") if text else [] for text in found["labels"]] == expected


def test_what_cannot_be_read_has_a_row_with_an_error(
    digits_model: Stored, scenes: np.ndarray, tmp_path: Path
) -> None:
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for row in range(4):
        Image.fromarray(scenes[row, 0]).save(folder / f"{row}.png")
    (folder / "2.png").write_bytes(b"junk")
    printed = run("--model", digits_model[1], "--input", folder, "--output", tmp_path / "o.parquet")
    assert "1 of 4 samples could not be read" in printed
    rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    assert [row["error"] is None for row in rows] == [True, True, False, True]
    assert rows[2]["labels"] is None and rows[2]["score_0"] is None
    assert rows[3]["score_0"] == pytest.approx(
        load_model(digits_model[1]).predict_proba(scenes[3:4])[0, 0], abs=1e-6
    )


def test_an_image_that_is_not_plain_has_a_note(
    digits_model: Stored, scenes: np.ndarray, tmp_path: Path
) -> None:
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(scenes[0, 0]).save(folder / "8.png")
    Image.fromarray(scenes[0, 0].astype(np.uint16) * 257).save(folder / "16.png")
    Image.fromarray(scenes[0, 0].astype(np.float32)).save(folder / "float.tif")
    (folder / "._8.png").write_bytes(b"of a Mac")
    for name in ("o.parquet", "o.csv"):
        printed = run("--model", digits_model[1], "--input", folder, "--output", tmp_path / name)
        assert "1 of 3 images are not 8-bit grey or RGB; column 'note'" in printed
    rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    assert [row["name"] for row in rows] == ["16.png", "8.png", "float.tif"]
    assert list(rows[0])[-1] == "note" and "outside the range 0 to 1" in rows[2]["error"]
    assert rows[0].pop("note") == "16-bit grey, 0 to 65535 became 0 to 255"
    assert rows[1].pop("note") is None and rows[2]["note"] is None
    assert rows[0] | {"name": "8.png"} == rows[1]


@pytest.mark.ray
def test_two_workers_write_the_same_bytes_as_one(
    digits_model: Stored, scenes: np.ndarray, tmp_path: Path
) -> None:
    many = np.random.default_rng(0).permutation(np.tile(scenes, (201, 1, 1, 1)))[:20_000]
    np.savez(tmp_path / "x.npz", images=many)
    common = ["--model", digits_model[1], "--input", tmp_path / "x.npz", "--output"]
    run(*common, tmp_path / "one.parquet")
    command = ["launch/predict.py", *common, tmp_path / "two.parquet", "--workers", "2"]
    ended = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not ended.stderr, "Ray has something to say"
    first, second = ((tmp_path / f"{n}.parquet").read_bytes() for n in ("one", "two"))
    assert first == second
    assert pq.read_metadata(tmp_path / "two.parquet").num_rows == 20_000


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_memory_does_not_grow_with_the_inputs(
    kind: str, features_model: Stored, tmp_path: Path
) -> None:
    """The second run has 160 MB of vectors more; peaks of equal runs differ by up to 25 MB."""
    import pyarrow as pa

    width = features_model[0].data.input_shape[0]
    peaks = []
    for count in (20_000, 120_000):
        values = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
        source = tmp_path / f"{count}.{kind}"
        if kind == "npz":
            np.savez(source, features=values)
        else:
            column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width)
            pq.write_table(pa.table({"features": column}), source, row_group_size=count)
        script = (
            "import pathlib, sys; from bbam_ray.cli.main import app\n"
            "try: app(sys.argv[1:])\n"
            "finally: print(pathlib.Path('/proc/self/status').read_text())"
        )
        arguments = ["predict", "--model", features_model[1], "--input", source]
        arguments += ["--output", tmp_path / f"{count}-{kind}.parquet", "--quiet"]
        ended = subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        peaks.append(int(ended.stdout.split("VmHWM:")[1].split()[0]) / 1024)
    assert pq.read_metadata(tmp_path / f"120000-{kind}.parquet").num_rows == 120_000
    assert peaks[1] - peaks[0] < 50, f"MB: {peaks}"


def test_a_prediction_that_breaks_off_leaves_no_file(tmp_path: Path) -> None:
    schema = prediction_schema(["a"])
    with pytest.raises(KeyboardInterrupt), prediction_file(tmp_path / "o.parquet", schema) as file:
        file.write(schema.empty_table())
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_file_does_not_depend_on_the_size_of_its_portions(tmp_path: Path) -> None:
    schema = prediction_schema(["a"])
    rng = np.random.default_rng(0)
    count = 20_000
    columns = [[f"n{k}" for k in range(count)], [None] * count, [["a"]] * count, rng.random(count)]
    import pyarrow as pa

    table = pa.Table.from_arrays(
        [pa.array(c, t) for c, t in zip(columns, schema.types, strict=True)], schema=schema
    )
    for name, step in (("a", 20_000), ("b", 37)):
        with prediction_file(tmp_path / f"{name}.parquet", schema) as file:
            for start in range(0, count, step):
                file.write(table.slice(start, step))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert pq.read_table(tmp_path / "a.parquet").equals(table)


def test_outputs_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("precious")
    with pytest.raises(UsageError, match=r"s3://b/o\.csv: must be a local path"):
        check_output(Path("s3://b/o.csv"), ["a"])
    for name, words in (("o.txt", r"\.parquet or \.csv"), ("there.csv", "exists already")):
        with pytest.raises(UsageError, match=words):
            check_output(tmp_path / name, ["a"])
    with pytest.raises(UsageError, match=r"label 'a\|b' contains"):
        check_output(tmp_path / "o.csv", ["x", "a|b"])
    check_output(tmp_path / "o.parquet", ["a|b"])


def test_wrong_usage_ends_with_2_and_one_sentence(digits_model: Stored, tmp_path: Path) -> None:
    common = ["predict", "--model", str(digits_model[1]), "--output", str(tmp_path / "o.csv")]
    for more, words in (
        (["--input", str(tmp_path / "none")], "no such file"),
        (["--input", str(tmp_path), "--workers", "99"], "--workers 99"),
        (["--input", str(tmp_path), "--address", "here"], "--address here"),
    ):
        ended = CliRunner().invoke(app, [*common, *more])
        assert ended.exit_code == 2 and words in ended.stderr, ended.output
        assert len(ended.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
