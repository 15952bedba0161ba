"""Backbones of timm: weights of this machine, inputs of their own configuration, and refusals."""

from __future__ import annotations

import io
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bbam_ray.data.formats.image_decoding import read_image
from bbam_ray.errors import UsageError
from bbam_ray.models import build_network, check_backbone
from bbam_ray.models.backbones import build_backbone
from bbam_ray.pretrained_images import image_input

timm = pytest.importorskip("timm")
SHARED = Path(__file__).parents[3] / "shared" / "data"
ARCHITECTURES = ["test_vit", "test_resnet", "test_efficientnet", "test_convnext"]
SHAPE = (3, 160, 160)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Connections fail, and the hub's local cache is a folder of the test."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def state_of(name: str, seed: int = 7, **arguments: Any) -> dict[str, Tensor]:
    """Tensors of a network with its classifier, of random weights."""
    torch.manual_seed(seed)
    state: dict[str, Tensor] = timm.create_model(name, **arguments).state_dict()
    return state


def folder_of(root: Path, name: str, **configuration: Any) -> Path:
    """A folder of weights in the layout of the hub."""
    root.mkdir(parents=True)
    save_file(state_of(name), root / "model.safetensors")
    (root / "config.json").write_text(json.dumps({"architecture": name, **configuration}))
    return root


def features(backbone: str, weights: object, side: int = 160) -> Tensor:
    module, width = build_backbone(backbone, (3, side, side), str(weights))
    images = torch.linspace(-1, 1, 2 * 3 * side * side).view(2, 3, side, side)
    with torch.no_grad():
        computed: Tensor = module.eval()(images)
    assert computed.shape == (2, width)
    return computed


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_features_of_a_file_are_those_of_the_network(
    name: str, suffix: str, tmp_path: Path
) -> None:
    state, path = state_of(name), tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"epoch": 3, "state_dict": state}, path)  # as a training program writes it
    else:
        save_file(state, path)
    check_backbone(f"timm:{name}", str(path), SHAPE)
    reference = timm.create_model(name, num_classes=0)
    reference.load_state_dict(state, strict=False)
    images = torch.linspace(-1, 1, 2 * 3 * 160 * 160).view(2, 3, 160, 160)
    with torch.no_grad():
        expected = reference.eval()(images)
    assert torch.equal(features(f"timm:{name}", path), expected)


def test_a_folder_and_the_cache_of_the_hub_give_the_same_as_the_file(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "own", "test_resnet")
    expected = features("timm:test_resnet", folder / "model.safetensors")
    assert torch.equal(features("timm:test_resnet", folder), expected)
    cached = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k"
    folder_of(cached / "snapshots" / "1a2b", "test_resnet")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("1a2b")
    for weights in ("DEFAULT", "timm/test_resnet.r160_in1k"):
        assert torch.equal(features("timm:test_resnet", weights), expected)


def test_nothing_is_downloaded() -> None:
    with pytest.raises(UsageError, match=r"cache.*hf download timm/test_vit\.r160_in1k"):
        check_backbone("timm:test_vit", "DEFAULT", SHAPE)
    with pytest.raises(UsageError, match="hf download some/network"):
        check_backbone("timm:test_vit", "some/network", SHAPE)
    with pytest.raises(UsageError, match=r"missing\.safetensors': no such file"):
        check_backbone("timm:test_vit", "missing.safetensors", SHAPE)


def test_random_weights_follow_the_seed() -> None:
    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return features("timm:test_vit", "none", side=32)

    assert torch.equal(drawn(0), drawn(0)) and not torch.equal(drawn(0), drawn(1))


def test_positions_are_interpolated_for_images_of_another_size(tmp_path: Path) -> None:
    save_file(state_of("test_vit"), tmp_path / "vit.safetensors")
    module, _ = build_backbone("timm:test_vit", (3, 96, 96), str(tmp_path / "vit.safetensors"))
    embedding = module.state_dict()["network.pos_embed"]
    stored = state_of("test_vit")["pos_embed"]
    prefix = stored.shape[1] - 10 * 10
    assert embedding.shape[1] == prefix + 6 * 6
    assert torch.equal(embedding[:, :prefix], stored[:, :prefix])
    grid = stored[:, prefix:].reshape(1, 10, 10, -1).permute(0, 3, 1, 2)
    smaller = torch.nn.functional.interpolate(grid, (6, 6), mode="bicubic", antialias=True)
    torch.testing.assert_close(embedding[:, prefix:], smaller.flatten(2).transpose(1, 2))


@pytest.mark.parametrize(
    ("backbone", "shape", "words"),
    [
        (
            "timm:test_resnt",
            SHAPE,
            "unknown backbone 'timm:test_resnt', .*did you mean 'timm:test_resnet'",
        ),
        ("timm:hf-hub:a/b", SHAPE, r"unknown backbone 'timm:hf-hub:a/b', .*timm\.list_models"),
        ("timm:test_vit.in22k", SHAPE, "test_vit has no weights 'in22k'; known: r160_in1k"),
        ("timm:test_vit", (3, 100, 100), r"image_size = 100: .*image_size=96 or 112"),
        ("timm:efficientformer_l1", (3, 96, 96), r"image_size = 96: .*--set image_size=224"),
        ("timm:test_vit", (1, 24, 24), "3 channels.*not 1 x 24 x 24; use --set backbone=small-cnn"),
        ("timm:test_vit", (30,), "'timm:test_vit' does not take feature vectors"),
        ("tim:test_vit", SHAPE, "unknown backbone 'tim:test_vit'; "),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused(
    backbone: str, shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        check_backbone(backbone, "none", shape)


def test_weights_of_another_network_or_size_are_refused(tmp_path: Path) -> None:
    save_file(state_of("test_resnet"), tmp_path / "r.safetensors")
    for name in ("test_vit", "test_efficientnet", "test_convnext"):
        with pytest.raises(UsageError, match=rf"r\.safetensors.*fits? .*timm:{name}"):
            check_backbone(f"timm:{name}", str(tmp_path / "r.safetensors"), SHAPE)
    state = state_of("test_resnet")
    del state["layer1.0.conv1.weight"]
    save_file(state, tmp_path / "damaged.safetensors")
    with pytest.raises(UsageError, match=r"no tensor 'layer1\.0\.conv1\.weight'"):
        check_backbone("timm:test_resnet", str(tmp_path / "damaged.safetensors"), SHAPE)
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(UsageError, match="no tensor"):
        check_backbone("timm:test_resnet", str(tmp_path / "list.pth"), SHAPE)


def test_inputs_are_those_of_the_configuration(tmp_path: Path) -> None:
    own = image_input("timm:test_efficientnet", "none")
    assert (own.size, own.interpolation) == (160, "bicubic")
    assert own.mean == (0.485, 0.456, 0.406) and own.std == (0.229, 0.224, 0.225)
    assert image_input("timm:vit_base_patch16_clip_224.openai", "none").mean[0] == 0.48145466
    assert image_input("timm:vit_small_patch14_dinov2", "none").size == 518
    stored = {"input_size": [3, 96, 96], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}
    stored["interpolation"] = "bilinear"
    folder = folder_of(tmp_path / "own", "test_efficientnet", pretrained_cfg=stored)
    from_folder = image_input("timm:test_efficientnet", str(folder))
    assert from_folder.mean == (0.1, 0.2, 0.3) and from_folder.size == 96


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mean": None}, r"config\.json: mean = None and must be three numbers"),
        ({"std": [0.1, 0.0, 0.1]}, r"std = \[0\.1, 0\.0, 0\.1\]"),
        ({"input_size": [3, 96, 64]}, "input_size"),
        ({"interpolation": "random"}, "interpolation = 'random' and must be bilinear or bicubic"),
    ],
)
def test_unknown_inputs_are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    known = {"input_size": [3, 96, 96], "mean": [0.5] * 3, "std": [0.5] * 3}
    values = {**known, "interpolation": "bicubic", **changes}
    folder = folder_of(tmp_path / "own", "test_resnet", pretrained_cfg=values)
    with pytest.raises(UsageError, match=words):
        image_input("timm:test_resnet", str(folder))


def test_a_folder_of_another_network_names_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "own", "test_resnet", pretrained_cfg={})
    with pytest.raises(UsageError, match=r"weights of 'test_resnet'.*backbone=timm:test_resnet"):
        image_input("timm:test_vit", str(folder))


def test_drop_path_leaves_branches_out_in_training_only() -> None:
    def network(drop_path: float) -> Any:
        torch.manual_seed(0)
        sizes = {"hidden_dim": 8, "feature_dim": 4, "drop_path": drop_path}
        return build_network("timm:test_convnext", (3, 64, 64), 4, **sizes)

    plain, dropping = network(0.0), network(0.5)
    images = torch.rand(8, 3, 64, 64)
    assert torch.equal(plain.eval()(images)[1], dropping.eval()(images)[1])
    assert not torch.equal(plain.train()(images)[1], dropping.train()(images)[1])
    with pytest.raises(UsageError, match=r"drop_path = 0\.2.*'small-cnn'.*drop_path=0"):
        check_backbone("small-cnn", "none", (1, 24, 24), drop_path=0.2)


def test_a_frozen_backbone_has_no_gradient_and_keeps_its_statistics() -> None:
    model = build_network("timm:test_efficientnet", (3, 64, 64), 4, hidden_dim=8, feature_dim=4)
    model.freeze_backbone()
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    model.train()
    model(torch.rand(4, 3, 64, 64))[1].sum().backward()
    assert model.training and model.projector.training and not model.backbone.training
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is not None for p in model.head.parameters())
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_real_weights_give_the_published_features_of_real_photographs() -> None:
    weights = SHARED / "weights" / "tf_efficientnet_lite0.safetensors"
    if not weights.is_file():
        pytest.skip("no shared/data/weights beside the repository")
    backbone = "timm:tf_efficientnet_lite0"
    own = image_input(backbone, str(weights))
    assert (own.size, own.interpolation, own.mean) == (224, "bicubic", (0.5, 0.5, 0.5))
    count = 12
    rows = {
        part: next(
            pq.ParquetFile(SHARED / "corel5k" / f"{part}.parquet").iter_batches(
                count, columns=[column]
            )
        )[column].to_pylist()
        for part, column in (("images", "image"), ("features", "features"))
    }
    how = {"interpolation": own.interpolation}
    images = [read_image(io.BytesIO(b), 224, **how) for b in rows["images"]]
    module, width = build_backbone(backbone, (3, 224, 224), str(weights))
    inputs = (torch.from_numpy(np.stack(images)).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        computed = module.eval()(inputs)
    assert width == 1280
    stored = torch.tensor(rows["features"], dtype=torch.float32)  # rounded to float16
    torch.testing.assert_close(computed, stored, rtol=2**-10, atol=1e-4)
