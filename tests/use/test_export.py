"""``export``: a self-contained folder, checked against the original on real samples."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from bbam_ray import load_model
from bbam_ray.cli.main import app
from bbam_ray.engine import export as exporting
from bbam_ray.engine.trainer import Trainer

Stored = tuple[Trainer, Path]
FILES = {"model.safetensors", "config.json", "labels.json", "thresholds.json", "README.md"}


def run(*arguments: object) -> str:
    ended = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_an_exported_model_scores_as_in_training(
    digits_model: Stored, scenes: np.ndarray, tmp_path: Path
) -> None:
    trainer, folder = digits_model
    printed = run("--model", folder, "--output", tmp_path / "out", "--license", "CC0-1.0")
    assert "differ by at most 0" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    model = load_model(tmp_path / "out")
    expected = trainer.score(trainer.data.inputs, np.arange(100)).numpy()
    assert np.abs(model.logits(scenes) - expected).max() <= 1e-5
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'license: "CC0-1.0"' in card and "# digits: 10 labels by bbam" in card
    assert "No metrics on test data are recorded" in card


@pytest.mark.parametrize("which", ["digits_model", "features_model"])
def test_other_runtimes_give_the_same_scores(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    trainer, folder = request.getfixturevalue(which)
    run(
        *("--model", folder, "--output", tmp_path / "out"),
        *("--format", "onnx", "--format", "torch.export"),
    )
    inputs = torch.from_numpy(np.asarray(trainer.data.inputs[np.arange(37)])).float()
    expected = trainer.score(trainer.data.inputs, np.arange(37)).numpy()
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    for size in (1, 5, 37):
        (found,) = session.run(["logits"], {"inputs": inputs[:size].numpy()})
        assert found.shape == (size, expected.shape[1])
        assert np.abs(found - expected[:size]).max() <= 1e-4
        program = torch.export.load(tmp_path / "out" / "model.pt2").module()
        with torch.no_grad():
            assert np.abs(program(inputs[:size]).numpy() - expected[:size]).max() <= 1e-4


def test_the_path_of_the_data_stays_at_home(features_model: Stored, tmp_path: Path) -> None:
    run("--model", features_model[1], "--output", tmp_path / "out")
    for path in (tmp_path / "out").glob("*.*"):
        assert str(features_model[1].parent).encode() not in path.read_bytes(), path.name
    assert json.loads((tmp_path / "out" / "config.json").read_text())["data_dir"] is None
    load_model(tmp_path / "out")


def test_without_its_data_it_is_checked_with_given_samples(
    features_model: Stored, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(features_model[1], tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"data_dir": str(tmp_path / "gone")}))
    ended = CliRunner().invoke(
        app, ["export", "--model", str(folder), "--output", str(tmp_path / "out")]
    )
    assert ended.exit_code == 2 and "--input" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1 and not (tmp_path / "out").exists()
    np.savez(tmp_path / "x.npz", features=np.random.default_rng(0).normal(size=(5, 400)))
    printed = run("--model", folder, "--output", tmp_path / "out", "--input", tmp_path / "x.npz")
    assert "checked with 5 samples" in printed


def test_an_export_with_other_scores_is_not_written(
    digits_model: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the copy: a weight of one label arrives a little larger, and no checksum tells."""
    model = tmp_path / "model"
    shutil.copytree(digits_model[1], model)
    config = json.loads((model / "config.json").read_text())
    del config["weights_sha256"]
    (model / "config.json").write_text(json.dumps(config))
    real = shutil.copyfile

    def faulty(source: Path, target: Path) -> None:
        real(source, target)
        if Path(target).name == "model.safetensors":
            tensors = load_file(target)
            tensors["network.head.weight"][3, -1] += 0.01
            save_file(tensors, target)

    monkeypatch.setattr(exporting.shutil, "copyfile", faulty)
    ended = CliRunner().invoke(
        app, ["export", "--model", str(model), "--output", str(tmp_path / "out")]
    )
    assert ended.exit_code == 1 and "differs from the original's by" in ended.output
    assert list(tmp_path.iterdir()) == [model]


def test_nothing_is_overwritten(digits_model: Stored, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    ended = CliRunner().invoke(
        app, ["export", "--model", str(digits_model[1]), "--output", str(tmp_path)]
    )
    assert ended.exit_code == 2 and "exists already" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
