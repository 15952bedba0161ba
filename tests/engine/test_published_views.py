"""The switches of the published protocol for images: each changes what it should, and nothing else."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from trees import images
from typer.testing import CliRunner

from bbam_ray import load_model
from bbam_ray.cli.main import app
from bbam_ray.commands.run_notes import run_notes
from bbam_ray.data.sampling.sharding import owned_rows
from bbam_ray.data.views.images import Views
from bbam_ray.engine.checkpoint_folder import load, save_part
from bbam_ray.engine.evaluation import read_rows
from bbam_ray.engine.fingerprint import run_fingerprint
from bbam_ray.engine.minibatches import scoring_noise
from bbam_ray.engine.model_folder import save_model
from bbam_ray.engine.task import check_task, prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import UsageError
from bbam_ray.methods import run_config

PUBLISHED = {
    "strong_view": "uda",
    "normalize": False,
    "flip_when_scoring": True,
    "warmup_cutout": 0.0,
    "cutout": 0.5,
}
Settings = dict[str, Any]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Of a tiny run on images."""
    return {
        "dataset": "images",
        "data_dir": str(images(tmp_path_factory.mktemp("views") / "images")),
        "image_size": 32,
        "backbone": "small-cnn",
        "weights": "none",
        "epochs": 4,
        "warmup_epochs": 2,
        "labeled_batch": 8,
        "unlabeled_batch": 4,
        "hidden_dim": 8,
        "feature_dim": 8,
        "device": "cpu",
    }


def trainer_of(settings: Settings, **changes: Any) -> Trainer:
    config = run_config({**settings, **changes}, "test")
    return Trainer(config, *prepare_training(config, check_task(config)))


def stored(trainer: Trainer, rows: Any) -> Tensor:
    return read_rows(trainer.data.inputs, np.asarray(rows))


def run(*arguments: object) -> str:
    ended = CliRunner().invoke(app, [*map(str, arguments)])
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_without_the_settings_nothing_changes(settings: Settings) -> None:
    trainer = trainer_of(settings)
    assert trainer.data.views.strong_view == "affine" and not trainer.data.views.flip_when_scoring
    assert trainer.data.views.mean == (0.485, 0.456, 0.406)
    common = trainer.config.training
    assert common.cutout_of_phase(main_phase=False) == common.cutout_of_phase(main_phase=True) > 0


@pytest.mark.parametrize("backbone", ["small-cnn", "timm:test_vit"])
def test_inputs_without_normalization_are_between_0_and_1(
    backbone: str, settings: Settings
) -> None:
    if backbone.startswith("timm"):
        pytest.importorskip("timm")
    trainer = trainer_of(settings, backbone=backbone, normalize=False)
    expected = stored(trainer, range(5)).float() / 255
    assert torch.equal(trainer.views.plain(stored(trainer, range(5))), expected)
    other = trainer_of(settings, backbone=backbone)
    assert not torch.allclose(other.views.plain(stored(other, range(5))), expected, atol=0.1)


def test_digits_without_normalization_are_between_0_and_1(tiny_trainer: Callable) -> None:
    trainer = tiny_trainer(normalize=False, strong_view="uda")
    expected = torch.from_numpy(trainer.data.inputs[:5]).float() / 255
    assert torch.equal(trainer.views.plain(torch.from_numpy(trainer.data.inputs[:5])), expected)
    assert trainer.run_epoch().scalars["loss"] > 0


@pytest.mark.parametrize("normalize", [False, True])
def test_a_stored_model_scales_its_inputs_as_in_training(
    normalize: bool, settings: Settings, tmp_path: Path
) -> None:
    """In Python, in ``predict``, and in every exported form."""
    onnxruntime = pytest.importorskip("onnxruntime")
    trainer = trainer_of(settings, normalize=normalize)
    trainer.run_epoch()
    expected = trainer.score(trainer.data.inputs, np.arange(9)).numpy()
    save_model(tmp_path / "model", trainer, [0.0] * 5)
    content = json.loads((tmp_path / "model" / "config.json").read_text())
    assert content["normalize"] is normalize
    assert content["input_mean"] == ([0.485, 0.456, 0.406] if normalize else [0.0])
    inputs = stored(trainer, range(9)).numpy()
    np.testing.assert_allclose(
        load_model(tmp_path / "model", "cpu").logits(inputs), expected, atol=1e-5
    )

    folder = Path(settings["data_dir"], "images")
    run("predict", "--model", tmp_path / "model", "--input", folder, "--scores", "logit",
        "--output", tmp_path / "scores.parquet")  # fmt: skip
    table = pq.read_table(tmp_path / "scores.parquet").slice(0, 6)
    columns = [name for name in table.column_names if name.startswith("score_")]
    scores = np.stack([table[name].to_numpy() for name in columns], 1)
    files = [folder / f"{row:03d}.png" for row in range(6)]
    np.testing.assert_allclose(
        scores, load_model(tmp_path / "model", "cpu").logits(files), atol=1e-5
    )

    np.savez(tmp_path / "samples.npz", images=inputs)
    run("export", "--model", tmp_path / "model", "--output", tmp_path / "out", "--format", "onnx",
        "--format", "torch.export", "--input", tmp_path / "samples.npz")  # fmt: skip
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    (exported,) = session.run(["logits"], {"inputs": inputs.astype(np.float32)})
    np.testing.assert_allclose(exported, expected, atol=1e-4)
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    with torch.no_grad():
        again = program(torch.from_numpy(inputs).float()).numpy()
    np.testing.assert_allclose(again, expected, atol=1e-4)


@pytest.fixture()
def erased(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The ``cutout`` of each strong view that is computed."""
    seen: list[float] = []
    strong = Views.strong

    def watched(self: Views, *arguments: Any) -> Tensor:
        seen.append(self.cutout)
        return strong(self, *arguments)

    monkeypatch.setattr(Views, "strong", watched)
    return seen


@pytest.mark.parametrize("strong_view", ["affine", "uda"])
def test_the_warm_up_has_a_cutout_of_its_own(
    strong_view: str, settings: Settings, erased: list[float]
) -> None:
    trainer = trainer_of(settings, warmup_cutout=0.0, cutout=0.5, strong_view=strong_view)
    for phase in (0.0, 0.0, 0.5, 0.5):
        erased.clear()
        trainer.run_epoch()
        assert set(erased) == {phase}
    steps = [trainer._steps(1, main_phase=False), trainer_of(settings)._steps(1, main_phase=False)]
    views = [next(iter(each)).labeled.view("strong") for each in steps]
    assert not torch.equal(*views)


def test_strong_views_of_a_step_are_those_of_the_setting(settings: Settings) -> None:
    trainer = trainer_of(settings, strong_view="uda", cutout=0.5)
    labeled, unlabeled = next(trainer._steps(3, main_phase=True)._parts())
    step = next(iter(trainer._steps(3, main_phase=True)))
    assert unlabeled is not None and step.unlabeled is not None
    for part, batch in ((labeled, step.labeled), (unlabeled, step.unlabeled)):
        expected = trainer.views.strong(stored(trainer, part.samples), part.noise)
        assert torch.equal(batch.view("strong"), expected)
        affine = trainer_of(settings, cutout=0.5).views
        assert not torch.allclose(
            affine.strong(stored(trainer, part.samples), part.noise), expected
        )


def snapshot_of(trainer: Trainer) -> Any:
    trainer._unlabeled_rows = trainer._steps(trainer.epoch, main_phase=True).unlabeled_rows
    return trainer._snapshot()


def test_a_refresh_scores_mirrored_images_and_validation_does_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(settings, flip_when_scoring=True, validation_fraction=0.3)
    plain = trainer_of(settings, validation_fraction=0.3)
    mirrored: list[Tensor] = []
    flip = Views._flip

    def watched(self: Views, inputs: Tensor, noise: Tensor) -> Tensor:
        mirrored.append(noise < 0.5)
        return flip(self, inputs, noise)

    monkeypatch.setattr(Views, "_flip", watched)
    trainer.epoch = plain.epoch = 3
    made, expected = snapshot_of(trainer), snapshot_of(plain)
    chosen = torch.cat(mirrored)
    assert len(chosen) == len(made.features) and 0 < int(chosen.sum()) < len(chosen)
    assert torch.equal(made.index, expected.index)
    rows = np.concatenate([trainer.data.labeled, trainer.data.unlabeled[trainer._unlabeled_rows]])
    inputs = stored(trainer, rows)
    inputs[chosen] = inputs[chosen].flip(-1)
    with torch.no_grad():
        features = trainer.model.eval()(trainer.views.plain(inputs))[0]
        scores = trainer.average.module.eval()(trainer.views.plain(inputs))[1]
    torch.testing.assert_close(made.features, features)
    torch.testing.assert_close(made.unlabeled_cosine, scores[len(trainer.data.labeled) :])
    assert not torch.allclose(made.features[chosen], expected.features[chosen])
    torch.testing.assert_close(made.features[~chosen], expected.features[~chosen])
    mirrored.clear()
    assert torch.equal(trainer.scores.of_validation(), plain.scores.of_validation())
    rows = np.arange(10)
    assert torch.equal(
        trainer.score(trainer.data.inputs, rows), plain.score(plain.data.inputs, rows)
    )
    assert not mirrored


def test_mirrored_images_change_with_the_epoch_and_not_with_the_number_of_workers(
    settings: Settings,
) -> None:
    data = trainer_of(settings).data
    sizes = len(data.labeled), len(data.unlabeled)

    def numbers(epoch: int, world_size: int, seed: int = 0) -> list[Tensor]:
        pools: list[list[Tensor]] = [[], []]
        for rank in range(world_size):
            rows = owned_rows(sizes[0], rank, world_size), owned_rows(sizes[1], rank, world_size)
            for pool, own, noise in zip(
                pools, rows, scoring_noise(seed, epoch, data, rows), strict=True
            ):
                pool.append(torch.cat([torch.from_numpy(own).unsqueeze(1).float(), noise], dim=1))
        return [torch.cat(pool)[torch.cat(pool)[:, 0].argsort()] for pool in pools]

    alone = numbers(3, 1)
    assert [len(pool) for pool in alone] == [*sizes]
    for world_size in (2, 3):
        for pool, expected in zip(numbers(3, world_size), alone, strict=True):
            assert torch.equal(pool, expected)
    assert not torch.equal(numbers(4, 1)[1], alone[1])
    assert not torch.equal(numbers(3, 1, seed=1)[1], alone[1])
    assert not torch.equal(alone[0][:, 1], alone[1][: sizes[0], 1])


def test_a_run_with_published_views_resumes_with_the_same_weights(
    settings: Settings, tmp_path: Path
) -> None:
    whole = trainer_of(settings, **PUBLISHED)
    records = [whole.run_epoch() for _ in range(3)]
    save_part(tmp_path / "checkpoint", whole, records)
    whole.run_epoch()
    resumed = trainer_of(settings, **PUBLISHED)
    load(tmp_path / "checkpoint", resumed)
    resumed.run_epoch()
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name


def rank_script() -> tuple[Path, ModuleType]:
    path = Path(__file__).with_name("rank_images.py")
    spec = importlib.util.spec_from_file_location("rank_images", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return path, module


def test_several_workers_train_on_the_views_of_one(
    settings: Settings,
    gloo_group: Callable[[Path, int, Path], list[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = {"published": {**settings, **PUBLISHED}}
    (tmp_path / "settings.json").write_text(json.dumps(job), encoding="utf-8")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    path, module = rank_script()
    ranks = gloo_group(path, 2, tmp_path)
    alone = module.train(job["published"])
    for rank in ranks:
        np.testing.assert_allclose(rank["published"]["losses"], alone["losses"], rtol=2e-3)
        for name, tensor in alone["end"].items():
            several = rank["published"]["end"][name]
            torch.testing.assert_close(several, tensor, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_setting_changes_the_fingerprint(name: str, settings: Settings) -> None:
    value = 0.4 if name == "cutout" else PUBLISHED[name]
    configs = [run_config({**settings, **changes}, "test") for changes in ({}, {name: value})]
    first, second = (run_fingerprint(config, "data", {}) for config in configs)
    assert first != second


@pytest.mark.parametrize("dataset", ["features", "text"])
@pytest.mark.parametrize("name", ["strong_view", "normalize", "flip_when_scoring"])
def test_samples_that_are_no_images_have_none_of_these_settings(dataset: str, name: str) -> None:
    with pytest.raises(
        UsageError, match=rf"unknown setting '{name}' for data set '{dataset}'.*images"
    ):
        run_config({"dataset": dataset, name: PUBLISHED[name]}, "test")


def test_what_may_not_be_mirrored_is_not_mirrored_when_scoring(settings: Settings) -> None:
    with pytest.raises(
        UsageError, match="flip = false says that mirrored images have other labels"
    ):
        run_config({**settings, "flip": False, "flip_when_scoring": True}, "test")
    with pytest.raises(
        UsageError, match="unknown setting 'flip_when_scoring' for data set 'digits'"
    ):
        run_config({"dataset": "digits", "flip_when_scoring": True}, "test")


@pytest.mark.parametrize(("name", "value"), [("strong_view", "uda"), ("flip_when_scoring", True)])
def test_cached_features_have_no_views_of_images(
    name: str, value: object, settings: Settings
) -> None:
    cached = {"backbone_rate": 0, "cache_features": True}
    with pytest.raises(UsageError, match=f"{name} = {str(value).lower()} changes images"):
        trainer_of(settings, **cached, **{name: value})
    trainer_of(settings, **cached, normalize=False, warmup_cutout=0.1)


def test_a_strength_that_is_not_used_is_reported(settings: Settings) -> None:
    uda, magnitude = {"strong_view": "uda"}, {"strong_magnitude": 0.3}
    config = run_config({**settings, **uda, **magnitude}, "test")
    (note,) = run_notes(config, {**uda, **magnitude})
    assert "does not use strong_magnitude" in note
    assert not list(run_notes(config, uda))
    assert not list(run_notes(config, magnitude))  # strong_view is searched, and others may use it
    affine = run_config({**settings, **magnitude}, "test")
    assert not list(run_notes(affine, {"strong_view": "affine", **magnitude}))


@pytest.mark.parametrize("method", ["bbam", "cap", "d2l", "mime", "softmatch", "supervised"])
def test_a_method_without_refresh_has_nothing_to_mirror(method: str, settings: Settings) -> None:
    flip = {"flip_when_scoring": True}
    notes = list(run_notes(run_config({**settings, "method": method, **flip}, "test"), flip))
    assert len(notes) == (method not in ("bbam", "cap", "d2l", "mime"))
    assert all(f"method '{method}' has no pass over all samples" in note for note in notes)
    off = {"flip_when_scoring": False}
    assert not list(run_notes(run_config({**settings, "method": method, **off}, "test"), off))


def test_extracted_features_follow_the_scale_of_inputs(settings: Settings, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    features = {}
    for normalize in ("true", "false"):
        path = tmp_path / f"{normalize}.parquet"
        torch.manual_seed(0)  # of the random weights
        run("data", "extract", "--data-dir", settings["data_dir"], "--backbone", "timm:test_vit",
            "--weights", "none", "--set", "image_size=32", "--set", f"normalize={normalize}",
            "--output", path)  # fmt: skip
        features[normalize] = np.asarray(pq.read_table(path)["features"].to_pylist())
    assert not np.allclose(features["true"], features["false"], atol=1e-3)
