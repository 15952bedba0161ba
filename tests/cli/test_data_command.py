"""``data info``, ``check``, ``cache`` and ``extract`` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from trees import images, random_labels, voc2012
from typer.testing import CliRunner, Result

from bbam_ray.cli.main import app
from bbam_ray.data import DATASETS
from bbam_ray.data.datasets.features import FeaturesOptions


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BBAM_RAY_CACHE", str(tmp_path / "cache"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def own(root: Path) -> list[str]:
    return ["--dataset", "images", "--data-dir", str(images(root)), "--set", "image_size=32"]


def test_info_counts_samples_and_their_split(tmp_path: Path) -> None:
    ended = run("info", *own(tmp_path / "own"))
    assert ended.exit_code == 0, ended.output
    text = " ".join(ended.output.split())
    assert "46 training samples (34 with known labels), 16 test samples, 5 labels" in text
    assert "27 labelled, 7 validation and 12 unlabelled samples" in text
    for label in ("cat", "dog", "bird", "fish", "frog"):
        assert label in text


def test_info_as_json_has_every_label(tmp_path: Path) -> None:
    root = voc2012(tmp_path)
    given = ["--dataset", "voc2012", "--data-dir", str(root), "--labeled-fraction", "0.5"]
    ended = run("info", *given, "--set", "image_size=32", "--json")
    content = json.loads(ended.stdout)
    assert content["counts"]["train"] == 40 and content["counts"]["unlabeled"] == 20
    assert len(content["label_names"]) == len(content["positives"]["test"]) == 20
    expected = random_labels(22, 20, seed=22)
    expected[::10, 7] = 0
    assert content["positives"]["test"] == expected.sum(0).tolist()


def test_check_exits_with_0_or_2(tmp_path: Path) -> None:
    given = own(tmp_path / "own")
    ended = run("check", *given)
    assert ended.exit_code == 0 and "no problems" in ended.output
    (tmp_path / "own" / "images" / "003.png").write_bytes(b"")
    (tmp_path / "own" / "images" / "011.png").write_bytes(b"no image")
    ended = run("check", *given)
    assert ended.exit_code == 2
    assert "error: images/003.png (train) cannot be read: empty" in ended.output
    assert "error: images/011.png (test) cannot be read" in ended.output


def test_cache_decodes_once_and_can_be_emptied(tmp_path: Path) -> None:
    given = own(tmp_path / "own")
    first, second = run("cache", *given), run("cache", *given)
    assert first.exit_code == second.exit_code == 0
    assert "decoding the images of data set images" in first.output
    assert "decoding" not in second.output and "62 samples" in second.output
    removed = run("cache", *given, "--remove")
    assert removed.exit_code == 0 and "freed 0.2 MB" in removed.output
    assert not list((tmp_path / "cache").rglob("*.rows"))


def test_extracted_features_are_those_of_the_network_and_keep_labels(tmp_path: Path) -> None:
    out = tmp_path / "out" / "features.parquet"
    given = own(tmp_path / "own")
    network = ["--backbone", "squeezenet1_0", "--weights", "none"]
    refused = run("extract", *given, "--output", out, *network)
    assert refused.exit_code == 2 and "does not end with a linear layer" in refused.output
    ended = run("extract", *given, "--output", out, "--backbone", "resnet18", "--weights", "none")
    assert ended.exit_code == 0, ended.output
    assert "512 features per image" in ended.output
    rows = pq.read_table(out).to_pylist()
    assert [row["split"] for row in rows].count("unlabeled") == 12
    assert all(row["labels"] is None for row in rows if row["split"] == "unlabeled")
    assert rows[0]["file_name"] == "images/000.png"
    features, source = DATASETS["features"], DATASETS["images"]
    options = source.Options.build({"image_size": 32}, "test")
    for part in ("train", "test"):
        made = features.load(FeaturesOptions(), out, part)  # type: ignore[arg-type]
        original = source.load(options, tmp_path / "own", part)  # type: ignore[arg-type]
        order = [original.label_names.index(name) for name in made.label_names]
        np.testing.assert_array_equal(made.labels, original.labels[:, order])
        assert made.names == original.names and made.input_shape == (512,)
        assert np.isfinite(made.inputs[:]).all() and made.inputs[:].std() > 0


def test_extract_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("precious")
    ended = run("extract", *own(tmp_path / "own"), "--output", tmp_path / "x.parquet")
    assert ended.exit_code == 2 and "exists already" in ended.output
    assert (tmp_path / "x.parquet").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "--dataset", "imags"], "did you mean 'images'"),
        (["info", "--dataset", "images"], "needs --data-dir"),
        (["check", "--dataset", "awa", "--data-dir", "/nowhere"], "bbam-ray data download awa"),
        (["cache", "--dataset", "features", "--data-dir", "/nowhere"], "no such folder or file"),
        (["download", "awa3", "--to", "/nowhere"], "did you mean 'awa'"),
        (["extract", "--output", "x.csv"], "ends with .parquet"),
        (["extract", "--output", "x.parquet", "--backbone", "resnet"], "unknown backbone 'resnet'"),
        (["info", "--set", "image_size=9"], "unknown setting 'image_size'"),
    ],
)
def test_mistakes_are_named_in_one_sentence(arguments: list[str], words: str) -> None:
    ended = run(*arguments)
    assert ended.exit_code == 2 and words in ended.output.replace("\n", " ")
    assert ended.output.count("error:") == 1 and "Traceback" not in ended.output
