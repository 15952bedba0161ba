"""The folder of a trained model: equal scores after loading, and never a mix of two models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bbam_ray.engine.model_folder import load_weights, read_thresholds, read_weights, save_model
from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import UsageError
from bbam_ray.methods import METHODS, run_config

Make = Callable[..., Trainer]
THRESHOLDS = [0.1 * k for k in range(10)]
FILES = {"model.safetensors", "config.json", "labels.json", "thresholds.json"}


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_model_gives_equal_scores(
    method: str, tiny_trainer: Make, run_to_end: Callable, tmp_path: Path
) -> None:
    trained, fresh = tiny_trainer(method=method), tiny_trainer(method=method)
    run_to_end(trained)
    rows = np.arange(60)
    expected = trained.score(trained.data.inputs, rows)
    assert not torch.equal(fresh.score(fresh.data.inputs, rows), expected)
    save_model(tmp_path / "a" / "model", trained, THRESHOLDS)
    load_weights(tmp_path / "a" / "model", fresh)
    assert torch.equal(fresh.score(fresh.data.inputs, rows), expected)


def test_the_folder_describes_how_to_build_and_read_the_model(
    tiny_trainer: Make, tmp_path: Path
) -> None:
    trainer = tiny_trainer(scale=11)
    save_model(tmp_path, trainer, THRESHOLDS)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    content = json.loads((tmp_path / "config.json").read_text())
    weights = (tmp_path / "model.safetensors").read_bytes()
    assert content.pop("weights_sha256") == hashlib.sha256(weights).hexdigest()
    assert content.pop("format") == 1
    assert content.pop("input_shape") == [1, 24, 24]
    assert content.pop("input_mean") == list(trainer.data.views.mean)
    assert content.pop("input_std") == list(trainer.data.views.std)
    assert run_config(content, "config.json").flat() == trainer.config.flat()
    assert content["scale"] == 11
    assert json.loads((tmp_path / "labels.json").read_text()) == [str(k) for k in range(10)]
    assert read_thresholds(tmp_path) == THRESHOLDS


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("rest", [b"", b"\0"], ids=["cut", "zeros follow"])
def test_torn_weights_are_refused(
    rest: bytes, share: float, tiny_trainer: Make, tmp_path: Path
) -> None:
    save_model(tmp_path, tiny_trainer(), THRESHOLDS)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    offset = int(share * len(whole))
    path.write_bytes(whole[:offset] + rest * (len(whole) - offset))
    with pytest.raises(UsageError, match=r"model\.safetensors: (cannot be read|not the weights)"):
        read_weights(tmp_path)
    path.write_bytes(whole)
    read_weights(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["weights_sha256"]  # of an older version
    (tmp_path / "config.json").write_text(json.dumps(config))
    read_weights(tmp_path)


def test_the_weights_are_those_of_the_averaged_network(tiny_trainer: Make, tmp_path: Path) -> None:
    trainer = tiny_trainer()
    trainer.run_epoch()
    save_model(tmp_path, trainer, THRESHOLDS)
    stored = load_file(tmp_path / "model.safetensors")
    averaged = trainer.average.module.state_dict()
    assert {name for name in stored if name.startswith("network.")} == {
        f"network.{name}" for name in averaged
    }
    for name, tensor in averaged.items():
        assert torch.equal(stored[f"network.{name}"], tensor)
    assert not torch.equal(stored["network.head.weight"], trainer.model.head.weight)


@pytest.fixture()
def broken_off(
    tiny_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, bytes]:
    """Save a model, then interrupt saving a later one; returns the files of the first."""
    trainer = tiny_trainer()
    save_model(tmp_path, trainer, THRESHOLDS)
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    trainer.run_epoch()

    def torn(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:4])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", torn)
        with pytest.raises(OSError):
            save_model(tmp_path, trainer, [-1.0] * 10)
    return old


def test_a_write_that_breaks_off_never_replaces_the_weights(
    broken_off: dict[str, bytes], tmp_path: Path
) -> None:
    assert (tmp_path / "model.safetensors").read_bytes() == broken_off["model.safetensors"]


def test_weights_and_thresholds_in_a_folder_are_always_of_one_model(
    broken_off: dict[str, bytes], tmp_path: Path
) -> None:
    """A run overwrites its model at every better epoch; scores and thresholds belong together."""
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == broken_off


def test_weights_of_another_network_are_refused(tiny_trainer: Make, tmp_path: Path) -> None:
    save_model(tmp_path, tiny_trainer(), THRESHOLDS)
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_weights(tmp_path, tiny_trainer(feature_dim=9))
