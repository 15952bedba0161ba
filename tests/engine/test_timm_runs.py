"""Runs with backbones of timm: views, frozen backbones, start of the head, workers, stored models."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from trees import images
from typer.testing import CliRunner

from bbam_ray import load_model
from bbam_ray.cli.main import app
from bbam_ray.commands.run_notes import run_notes
from bbam_ray.core.logistic import choose_regularization, logistic_weights
from bbam_ray.engine.checkpoint_folder import load, save_part
from bbam_ray.engine.evaluation import read_rows
from bbam_ray.engine.fingerprint import data_state
from bbam_ray.engine.model_folder import save_model
from bbam_ray.engine.task import check_task, prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import UsageError
from bbam_ray.methods import run_config

timm = pytest.importorskip("timm")
SIDE = 32
Made = tuple[dict[str, Any], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Settings of a tiny run on images, and a folder with weights of every network."""
    root = tmp_path_factory.mktemp("timm")
    torch.manual_seed(5)
    for name in ("test_vit", "test_resnet", "test_efficientnet", "test_convnext"):
        save_file(timm.create_model(name).state_dict(), root / f"{name}.safetensors")
    return {
        "dataset": "images",
        "data_dir": str(images(root / "images")),
        "image_size": SIDE,
        "epochs": 2,
        "warmup_epochs": 1,
        "labeled_batch": 8,
        "unlabeled_batch": 4,
        "hidden_dim": 8,
        "feature_dim": 8,
        "device": "cpu",
    }, root


def settings_of(made: Made, name: str, **changes: Any) -> dict[str, Any]:
    network = {"backbone": f"timm:{name}", "weights": str(made[1] / f"{name}.safetensors")}
    return {**made[0], **network, **changes}


def trainer_of(made: Made, name: str, **changes: Any) -> Trainer:
    config = run_config(settings_of(made, name, **changes), "test")
    return Trainer(config, *prepare_training(config, check_task(config)))


def run(*arguments: object) -> str:
    ended = CliRunner().invoke(app, [*map(str, arguments)])
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_views_are_normalised_as_the_network_expects(made: Made) -> None:
    trainer = trainer_of(made, "test_vit")
    samples = read_rows(trainer.data.inputs, np.arange(3))
    torch.testing.assert_close(trainer.views.plain(samples), (samples.float() / 255 - 0.5) / 0.5)
    assert trainer.data.views.flip
    other = trainer_of(made, "test_efficientnet")  # another mean, the same stored images
    assert other.data.views.mean == (0.485, 0.456, 0.406)


def test_size_and_interpolation_are_those_of_the_network_unless_chosen(made: Made) -> None:
    without = {name: value for name, value in made[0].items() if name != "image_size"}
    config = run_config({**without, "backbone": "timm:test_vit"}, "test")
    assert config.flat()["image_size"] == 160 and config.flat()["interpolation"] == "bicubic"
    assert config.training.weights == "DEFAULT"  # torchvision's name belongs to another network
    chosen = {"backbone": "timm:test_resnet", "image_size": 64}
    config = run_config({**without, **chosen}, "test")
    assert config.flat()["image_size"] == 64 and config.flat()["interpolation"] == "bilinear"
    assert run_config(without, "test").flat()["interpolation"] == "bilinear"


def test_stored_images_are_resized_as_the_network_expects(made: Made) -> None:
    stored = {
        name: np.asarray(
            prepare_training(run_config(settings_of(made, name), "test"))[0].inputs[:1]
        )
        for name in ("test_vit", "test_resnet")
    }
    path = next(iter(sorted(Path(made[0]["data_dir"], "images").iterdir())))
    for name, kind in (("test_vit", "BICUBIC"), ("test_resnet", "BILINEAR")):
        with Image.open(path) as image:
            resized = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling[kind])
        np.testing.assert_array_equal(stored[name][0], np.asarray(resized).transpose(2, 0, 1))


def test_a_frozen_backbone_stays_what_it_was(made: Made) -> None:
    trainer = trainer_of(made, "test_efficientnet", backbone_rate=0, drop_path=0.1)
    before = {name: t.clone() for name, t in trainer.model.state_dict().items()}
    while not trainer.finished:
        trainer.run_epoch()
    for state in (trainer.model.state_dict(), trainer.average.module.state_dict()):
        changed = {name for name, tensor in state.items() if not torch.equal(tensor, before[name])}
        assert not any(name.startswith("backbone.") for name in changed)
        assert "head.weight" in changed and "projector.0.weight" in changed
    trained = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not trained & {id(p) for p in trainer.model.backbone.parameters()}


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def normalizations(network: torch.nn.Module) -> list[torch.nn.Module]:
    return [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_pretrained_statistics_are_used_and_stay(name: str, made: Made) -> None:
    trainer = trainer_of(made, name, batch_norm="pretrained")
    before = {key: tensor.clone() for key, tensor in trainer.model.state_dict().items()}
    seen: set[bool] = set()
    for layer in normalizations(trainer.model.backbone):
        layer.register_forward_pre_hook(lambda layer, _: seen.add(layer.training))
    while not trainer.finished:
        trainer.run_epoch()
    assert seen == {False}
    trained = [key for key in before if key.startswith("backbone.") and key.endswith(".weight")]
    for state in (trainer.model.state_dict(), trainer.average.module.state_dict()):
        for key in before:
            if key.endswith(STATISTICS):
                assert torch.equal(state[key], before[key]), key
        assert not any(torch.equal(state[key], before[key]) for key in trained)
    assert trainer.model.train().backbone.training  # layers of other kinds still train
    usual = trainer_of(made, name)
    usual.run_epoch()
    assert not torch.equal(
        *(normalizations(t.model.backbone)[0].running_mean for t in (trainer, usual))
    )


def test_pretrained_statistics_need_weights_and_batch_norm(made: Made) -> None:
    with pytest.raises(UsageError, match=r"batch_norm = pretrained keeps.*weights = none: use"):
        run_config({**made[0], "weights": "none", "batch_norm": "pretrained"}, "test")
    both = {"batch_norm": "pretrained", "warmup_views": "both"}
    with pytest.raises(UsageError, match=r"warmup_views = both.*batch_norm = pretrained freezes"):
        trainer_of(made, "test_resnet", **both)
    with pytest.raises(UsageError, match=r"batch_norm = pretrained.*'timm:test_vit' has none"):
        trainer_of(made, "test_vit", batch_norm="pretrained")


@pytest.mark.parametrize(
    ("name", "changes", "noted"),
    [
        ("test_resnet", {}, True),
        ("test_resnet", {"batch_norm": "batch"}, False),
        ("test_resnet", {"batch_norm": "pretrained"}, False),
        ("test_resnet", {"backbone_rate": 0}, False),
        ("test_resnet", {"weights": "none"}, False),
        ("test_resnet", {"method": "logistic"}, False),
        ("test_vit", {}, False),
    ],
)
def test_a_run_that_replaces_pretrained_statistics_says_so(
    name: str, changes: dict[str, Any], noted: bool, made: Made
) -> None:
    settings = settings_of(made, name, **changes)
    notes = list(run_notes(run_config(settings, "test"), {**settings, **changes}))
    assert any("batch_norm=pretrained" in note for note in notes) is noted


@pytest.mark.parametrize("method", ["supervised", "bbam"])
def test_cached_features_train_as_the_frozen_backbone_on_plain_images(
    method: str, made: Made, tmp_path: Path
) -> None:
    plain = {"method": method, "backbone_rate": 0, "strong_magnitude": 0, "cutout": 0}
    changes = {**plain, "flip": False, "learning_rate": 1e-2, "warmup_learning_rate": 1e-2}
    trainers = [trainer_of(made, "test_vit", **changes, cache_features=c) for c in (False, True)]
    calls = []
    hook = trainers[1].model.backbone.register_forward_hook(lambda *_: calls.append(1))
    for trainer in trainers:
        while not trainer.finished:
            trainer.run_epoch()
    hook.remove()
    assert not calls
    for average in (False, True):
        frozen, cached = ((t.average.module if average else t.model) for t in trainers)
        for name, tensor in frozen.state_dict().items():
            torch.testing.assert_close(cached.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)
    save_model(tmp_path / "model", trainers[1], [0.0] * 5)
    stored = np.asarray(trainers[1].data.inputs[np.arange(9)])
    expected = trainers[1].score(trainers[1].data.inputs, np.arange(9)).numpy()
    logits = load_model(tmp_path / "model", "cpu").logits(stored)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_features_are_cached_of_frozen_backbones_of_images_only(made: Made, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cache_features = true needs a frozen backbone.*=0"):
        trainer_of(made, "test_vit", cache_features=True)
    np.savez(tmp_path / "f.npz", features=np.eye(8, 3), labels=np.eye(8, 2))
    vectors = {"dataset": "features", "data_dir": str(tmp_path / "f.npz"), "backbone_rate": 0}
    config = run_config({**vectors, "cache_features": True}, "test")
    with pytest.raises(UsageError, match=r"data set 'features' has no images"):
        check_task(config)
    config = run_config(settings_of(made, "test_vit", backbone_rate=0), "test")
    assert any("cache_features=true" in note for note in run_notes(config, {"backbone_rate": 0}))


def test_fine_tuning_starts_from_the_logistic_solution(made: Made) -> None:
    trainer = trainer_of(made, "test_vit", head_init="logistic", projector="none")
    network = timm.create_model("test_vit", num_classes=0, img_size=SIDE).eval()
    network.load_state_dict(trainer.model.backbone.network.state_dict())
    samples = read_rows(trainer.data.inputs, trainer.data.labeled)
    with torch.no_grad():
        features = network((samples.float() / 255 - 0.5) / 0.5)
    units = F.normalize(features.double(), dim=1) * features.shape[1] ** 0.5
    labels = trainer.data.labels
    weights = logistic_weights(units, labels, choose_regularization(units, labels))[0]
    expected = F.normalize(weights, dim=1).float() * (1 / 3) ** 0.5
    torch.testing.assert_close(trainer.model.head.weight.detach(), expected, rtol=1e-3, atol=1e-4)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.run_epoch()
    changed = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}
    assert "head.weight" in changed and any(n.startswith("backbone.") for n in changed)


def test_several_workers_give_the_result_of_one(
    made: Made,
    gloo_group: Callable[[Path, int, Path], list[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = {"head_init": "logistic", "projector": "none"}
    job = {
        "batch norm": settings_of(made, "test_efficientnet", **start),
        "layer norm": settings_of(made, "test_convnext", **start),
        "frozen": settings_of(made, "test_resnet", backbone_rate=0, head_init="logistic"),
        "cached": settings_of(made, "test_resnet", backbone_rate=0, cache_features=True),
        "statistics": settings_of(made, "test_efficientnet", batch_norm="pretrained"),
    }
    (tmp_path / "settings.json").write_text(json.dumps(job), encoding="utf-8")
    script = Path(__file__).with_name("rank_images.py")
    ranks = gloo_group(script, 2, tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    spec = importlib.util.spec_from_file_location("rank_images", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, settings in job.items():
        alone = module.train(settings)
        for rank in (0, 1):
            several = ranks[rank][name]
            for part, tensor in alone["start"].items():
                assert torch.equal(several["start"][part], tensor), (name, part)
            np.testing.assert_allclose(several["losses"], alone["losses"], rtol=2e-3)
            for part, tensor in alone["end"].items():
                torch.testing.assert_close(several["end"][part], tensor, rtol=2e-2, atol=2e-3)


def test_a_checkpoint_continues_with_the_same_weights(made: Made, tmp_path: Path) -> None:
    changes = {"backbone_rate": 0.1, "head_init": "logistic", "projector": "none"}
    whole = trainer_of(made, "test_vit", **changes)
    records = [whole.run_epoch()]
    save_part(tmp_path / "checkpoint", whole, records)
    whole.run_epoch()
    resumed = trainer_of(made, "test_vit", **changes)
    load(tmp_path / "checkpoint", resumed)
    resumed.run_epoch()
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet", "test_convnext"])
def test_a_stored_model_needs_neither_weights_nor_network(
    name: str, made: Made, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    shutil.copy(made[1] / f"{name}.safetensors", tmp_path / "weights.safetensors")
    trainer = trainer_of(made, name, weights=str(tmp_path / "weights.safetensors"))
    trainer.run_epoch()
    save_model(tmp_path / "model", trainer, [0.0] * 5)
    (tmp_path / "weights.safetensors").unlink()
    model = load_model(tmp_path / "model", "cpu")
    stored = np.asarray(trainer.data.inputs[np.arange(9)])
    expected = trainer.score(trainer.data.inputs, np.arange(9)).numpy()
    np.testing.assert_allclose(model.logits(stored), expected, atol=1e-5)
    assert model.description.timm_version == version("timm")

    files = [Path(made[0]["data_dir"], "images", f"{row:03d}.png") for row in range(6)]
    run("predict", "--model", tmp_path / "model", "--input", files[0].parent, "--scores", "logit",
        "--output", tmp_path / "scores.parquet")  # fmt: skip
    table = pq.read_table(tmp_path / "scores.parquet").slice(0, 6)
    scores = np.stack(
        [table[c].to_numpy() for c in table.column_names if c.startswith("score_")], 1
    )
    np.testing.assert_allclose(scores, model.logits(files), atol=1e-5)

    np.savez(tmp_path / "samples.npz", images=stored)
    run("export", "--model", tmp_path / "model", "--output", tmp_path / "out", "--format", "onnx",
        "--format", "torch.export", "--input", tmp_path / "samples.npz")  # fmt: skip
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    (exported,) = session.run(["logits"], {"inputs": stored[:5].astype(np.float32)})
    np.testing.assert_allclose(exported, expected[:5], atol=1e-4)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["timm_version"]


def test_a_stored_model_that_does_not_fit_names_both_versions(made: Made, tmp_path: Path) -> None:
    save_model(tmp_path / "model", trainer_of(made, "test_resnet"), [0.0] * 5)
    path = tmp_path / "model" / "config.json"
    values = json.loads(path.read_text())
    changed = values | {"backbone": "timm:test_convnext", "timm_version": "0.1"}
    path.write_text(json.dumps(changed))
    with pytest.raises(UsageError, match=rf"saved with timm 0\.1, here is {version('timm')}"):
        load_model(tmp_path / "model", "cpu")


def test_extracted_features_are_those_of_the_backbone(made: Made, tmp_path: Path) -> None:
    weights = made[1] / "test_vit.safetensors"
    run("data", "extract", "--data-dir", made[0]["data_dir"], "--backbone", "timm:test_vit",
        "--weights", weights, "--set", "image_size=32", "--output", tmp_path / "f.parquet")  # fmt: skip
    trainer = trainer_of(made, "test_vit")
    rows = pq.read_table(tmp_path / "f.parquet").to_pylist()
    samples = read_rows(trainer.data.inputs, np.arange(4))
    with torch.no_grad():
        expected = trainer.model.backbone.eval()(trainer.views.plain(samples))
    np.testing.assert_allclose([row["features"] for row in rows[:4]], expected.numpy(), atol=1e-5)


def test_the_state_of_the_data_follows_the_weights(made: Made, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    shutil.copy(made[1] / "test_vit.safetensors", weights)
    config = run_config(settings_of(made, "test_vit", weights=str(weights)), "test")
    before = data_state(config)
    assert f"timm {version('timm')}" in before
    weights.write_bytes(weights.read_bytes() + b" ")
    assert data_state(config) != before
