"""An ensemble folder scores as the formula says, and is refused when its parts do not belong together."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from bbam_ray import load_model
from bbam_ray.cli.main import app
from bbam_ray.core.calibration import Calibration
from bbam_ray.core.ensembles import Standardization, standardization
from bbam_ray.engine.ensemble_folder import EnsembleMember, save_ensemble
from bbam_ray.engine.model import find_model
from bbam_ray.engine.model_folder import save_model
from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import UsageError

Stored = tuple[Trainer, Path]
THRESHOLDS = [0.1 * k - 0.4 for k in range(10)]
CALIBRATION = Calibration(
    torch.linspace(0.5, 3, 10, dtype=torch.float64), torch.linspace(-2, 1, 10, dtype=torch.float64)
)


@pytest.fixture(scope="module")
def members(
    digits_model: Stored,
    tiny_trainer: Callable[..., Trainer],
    run_to_end: Callable,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Path]:
    """bbam, and a supervised model with a wider network."""
    trainer = tiny_trainer(method="supervised", hidden_dim=24, feature_dim=12, seed=3)
    run_to_end(trainer)
    folder = tmp_path_factory.mktemp("member") / "model"
    save_model(folder, trainer, [0.0] * 10)
    return [digits_model[1], folder]


@pytest.fixture(scope="module")
def moments(members: list[Path], scenes: np.ndarray) -> list[Standardization]:
    logits = [load_model(folder, "cpu").logits(scenes) for folder in members]
    return [standardization(torch.from_numpy(z)) for z in logits]


@pytest.fixture()
def folder(members: list[Path], moments: list[Standardization], tmp_path: Path) -> Path:
    parts = [
        EnsembleMember(members[0], 0.75, moments[0]),
        EnsembleMember(
            {path.name: path.read_bytes() for path in members[1].iterdir()}, 0.25, moments[1]
        ),
    ]
    save_ensemble(tmp_path / "ensemble", parts, THRESHOLDS, CALIBRATION)
    return tmp_path / "ensemble"


def expected_logits(
    members: list[Path], moments: list[Standardization], inputs: np.ndarray
) -> np.ndarray:
    total = np.zeros((len(inputs), 10))
    for path, weight, (mean, std) in zip(members, [0.75, 0.25], moments, strict=True):
        z = load_model(path, "cpu").logits(inputs).astype(np.float64)
        total += weight * (z - mean.numpy()) / std.numpy()
    return total


def test_it_is_the_weighted_sum_of_standardised_logits(
    folder: Path, members: list[Path], moments: list[Standardization], scenes: np.ndarray
) -> None:
    model = load_model(folder, "cpu")
    expected = expected_logits(members, moments, scenes)
    logits = model.logits(scenes)
    assert logits.dtype == np.float32 and np.abs(logits - expected).max() < 1e-4
    assert model.networks == 2 and model.label_names == [str(k) for k in range(10)]
    assert np.array_equal(model.predict(scenes), logits > np.float32(THRESHOLDS))
    assert model.logits(scenes[:0]).shape == (0, 10)


def test_probabilities_are_calibrated(folder: Path, scenes: np.ndarray) -> None:
    model = load_model(folder, "cpu")
    z = model.logits(scenes).astype(np.float64)
    odds = CALIBRATION.slope.numpy() * z + CALIBRATION.offset.numpy()
    assert model.is_calibrated
    assert np.allclose(model.predict_proba(scenes), 1 / (1 + np.exp(-odds)), atol=1e-12)


def test_a_single_model_may_be_calibrated_too(digits_model: Stored, tmp_path: Path) -> None:
    trainer, folder = digits_model
    save_model(tmp_path / "m", trainer, [0.0] * 10, CALIBRATION)
    inputs = np.asarray(trainer.data.inputs)[:20]
    calibrated, plain = load_model(tmp_path / "m", "cpu"), load_model(folder, "cpu")
    z = plain.logits(inputs)
    assert np.array_equal(calibrated.logits(inputs), z)
    assert calibrated.is_calibrated and not plain.is_calibrated
    assert calibrated.networks == plain.networks == 1
    odds = CALIBRATION.log_odds(torch.from_numpy(z))
    assert np.allclose(calibrated.predict_proba(inputs), odds.sigmoid().numpy(), atol=1e-12)


def test_it_is_one_model_of_a_run(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "run" / "checkpoints" / "model")
    assert find_model(tmp_path / "run") == tmp_path / "run" / "checkpoints" / "model"


def run(*arguments: object) -> str:
    ended = CliRunner().invoke(app, [*map(str, arguments)])
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_predict_writes_calibrated_probabilities_and_states_the_cost(
    folder: Path, scenes: np.ndarray, tmp_path: Path
) -> None:
    np.savez(tmp_path / "new.npz", images=scenes[:9])
    printed = run(
        *("predict", "--model", folder, "--input", tmp_path / "new.npz"),
        *("--output", tmp_path / "scores.parquet"),
    )
    assert "2 networks per sample" in printed
    table = pq.read_table(tmp_path / "scores.parquet")
    chances = load_model(folder, "cpu").predict_proba(scenes[:9])
    for k in range(10):
        assert np.allclose(table[f"score_{k}"].to_numpy(), chances[:, k], atol=1e-6)


def test_an_exported_ensemble_scores_the_same_in_every_format(
    folder: Path, scenes: np.ndarray, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    output = tmp_path / "out"
    printed = run(
        *("export", "--model", folder, "--output", output),
        *("--format", "onnx", "--format", "torch.export"),
    )
    assert "2 networks per prediction" in printed and "ensemble.json: checked with" in printed
    for config in [output / "config.json", *output.glob("members/*/config.json")]:
        assert json.loads(config.read_text())["data_dir"] is None
    shutil.move(folder, tmp_path / "elsewhere")
    copy = load_model(output, "cpu")
    expected = load_model(tmp_path / "elsewhere", "cpu").logits(scenes)
    assert copy.is_calibrated and copy.networks == 2
    assert np.abs(copy.logits(scenes) - expected).max() <= 1e-5
    session = onnxruntime.InferenceSession(output / "model.onnx")
    inputs = scenes.astype(np.float32)
    (logits,) = session.run(["logits"], {"inputs": inputs})
    assert np.abs(logits - expected).max() <= 1e-4
    program = torch.export.load(output / "model.pt2").module()
    with torch.no_grad():
        assert np.abs(program(torch.from_numpy(inputs)).numpy() - expected).max() <= 1e-4
    card = (output / "README.md").read_text()
    assert "a prediction costs 2 networks" in card and "Probabilities are calibrated" in card


class TestDamage:
    def _rewrite(self, folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
        """Change ensemble.json and its checksum, as a forged ensemble could."""
        content = json.loads((folder / "ensemble.json").read_text())
        change(content)
        (folder / "ensemble.json").write_text(json.dumps(content))
        config = json.loads((folder / "config.json").read_text())
        digest = hashlib.sha256((folder / "ensemble.json").read_bytes()).hexdigest()
        (folder / "config.json").write_text(json.dumps(config | {"ensemble_sha256": digest}))

    @pytest.mark.parametrize(
        "name",
        [
            *("config.json", "labels.json", "thresholds.json", "members/01/model.safetensors"),
            *("members/00/config.json", "members/01/labels.json"),
        ],
    )
    def test_a_missing_file_is_named(self, name: str, folder: Path) -> None:
        (folder / name).unlink()
        with pytest.raises(UsageError, match=name):
            load_model(folder)

    @pytest.mark.parametrize(
        "name", ["ensemble.json", "calibration.json", "members/01/model.safetensors"]
    )
    def test_a_damaged_file_is_named(self, name: str, folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(UsageError, match=name):
            load_model(folder)

    def test_a_changed_weight_is_noticed(self, folder: Path) -> None:
        text = (folder / "ensemble.json").read_text()
        (folder / "ensemble.json").write_text(text.replace("0.75", "0.70"))
        with pytest.raises(UsageError, match=r"ensemble\.json: not the ensemble.*checksum"):
            load_model(folder)

    def test_a_replaced_member_is_noticed(self, folder: Path, members: list[Path]) -> None:
        shutil.rmtree(folder / "members" / "00")
        shutil.copytree(members[1], folder / "members" / "00")
        with pytest.raises(UsageError, match=r"00/model\.safetensors: not the weights"):
            load_model(folder)

    def test_weights_that_are_not_finite_are_refused(
        self, folder: Path, members: list[Path]
    ) -> None:
        path = folder / "members" / "00" / "model.safetensors"
        tensors = load_file(path)
        tensors["network.projector.0.bias"][3] = float("nan")
        save_file(tensors, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        config = json.loads((path.parent / "config.json").read_text())
        (path.parent / "config.json").write_text(json.dumps(config | {"weights_sha256": digest}))
        self._rewrite(folder, lambda c: c["members"][0].update(weights_sha256=digest))
        with pytest.raises(UsageError, match=r"projector\.0\.bias holds numbers that are not"):
            load_model(folder)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"weight": -1}, "weight -1 of member 01 is not a positive number"),
            ({"weight": float("nan")}, "of member 01 is not a positive number"),
            ({"mean": [0.0] * 9}, "'mean' of member 01 is not a list of 10 numbers"),
            ({"std": [0.0] * 10}, "'std' of member 01 is not a list of 10 positive numbers"),
            ({"folder": "../../model"}, r"'\.\./\.\./model' is not a member"),
        ],
    )
    def test_wrong_entries_are_refused(
        self, change: dict[str, Any], words: str, folder: Path
    ) -> None:
        self._rewrite(folder, lambda content: content["members"][1].update(change))
        with pytest.raises(UsageError, match=words):
            load_model(folder)

    def test_a_newer_format_and_no_members_are_refused(self, folder: Path) -> None:
        self._rewrite(folder, lambda content: content.update(members=[]))
        with pytest.raises(UsageError, match="names no members"):
            load_model(folder)
        self._rewrite(folder, lambda content: content.update(format=2))
        with pytest.raises(UsageError, match=r"format 2 is from a newer version"):
            load_model(folder)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ({"slope": [1.0] * 10}, r"calibration\.json: 'offset' is not a list of 10 numbers"),
            ({"slope": [0.0] * 10, "offset": [0.0] * 10}, "'slope' is not a list of 10 positive"),
        ],
    )
    def test_a_wrong_calibration_is_refused(
        self, content: dict[str, Any], words: str, folder: Path
    ) -> None:
        (folder / "calibration.json").write_text(json.dumps(content))
        with pytest.raises(UsageError, match=words):
            load_model(folder)


class TestSaving:
    def test_members_for_other_samples_are_refused_and_nothing_is_written(
        self,
        members: list[Path],
        features_model: Stored,
        moments: list[Standardization],
        tmp_path: Path,
    ) -> None:
        three = Standardization(*(part[:3] for part in moments[0]))
        parts = [
            EnsembleMember(members[0], 1, moments[0]),
            EnsembleMember(features_model[1], 1, three),
        ]
        with pytest.raises(UsageError, match=r"e/members/01: its labels differ"):
            save_ensemble(tmp_path / "e", parts, THRESHOLDS)
        assert list(tmp_path.iterdir()) == []

    def test_wrong_arguments_are_refused(
        self, members: list[Path], moments: list[Standardization], folder: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match="at least one member"):
            save_ensemble(tmp_path / "e", [], THRESHOLDS)
        with pytest.raises(UsageError, match="is itself an ensemble"):
            save_ensemble(tmp_path / "e", [EnsembleMember(folder, 1, moments[0])], THRESHOLDS)
        one = EnsembleMember(members[0], 0, moments[0])
        with pytest.raises(UsageError, match=r"weight 0\.0 of member 00"):
            save_ensemble(tmp_path / "e", [one], THRESHOLDS)
        one = EnsembleMember(members[0], 1, moments[0])
        with pytest.raises(UsageError, match="9 thresholds for 10 labels"):
            save_ensemble(tmp_path / "e", [one], THRESHOLDS[:9])
        with pytest.raises(UsageError, match=r"no file model\.safetensors"):
            save_ensemble(
                tmp_path / "e", [EnsembleMember({"config.json": b"{}"}, 1, moments[0])], THRESHOLDS
            )
        assert not (tmp_path / "e").exists()

    def test_an_older_ensemble_is_replaced(
        self, members: list[Path], moments: list[Standardization], folder: Path
    ) -> None:
        save_ensemble(folder, [EnsembleMember(members[1], 1, moments[1])], THRESHOLDS)
        model = load_model(folder, "cpu")
        assert model.networks == 1 and not model.is_calibrated
