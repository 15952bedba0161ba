"""Initial weights of a backbone, from files (nothing is downloaded in a test)."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import resnet18, resnet50

from bbam_ray.engine.extraction import feature_network
from bbam_ray.errors import UsageError
from bbam_ray.models import build_network, check_backbone

SHAPE = (3, 64, 64)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(7)
    return resnet18(weights=None).state_dict()


def write(state: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", ["pt", "pth", "safetensors"])
def test_weights_of_a_file_are_in_the_backbone(
    suffix: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = write(state, tmp_path / f"resnet18.{suffix}")
    check_backbone("resnet18", str(path), SHAPE)
    torch.manual_seed(1)
    model = build_network("resnet18", SHAPE, 4, hidden_dim=8, feature_dim=4, weights=str(path))
    loaded = model.backbone.state_dict()
    assert set(loaded) == {name for name in state if not name.startswith("fc.")}
    for name, tensor in loaded.items():
        assert torch.equal(tensor, state[name]), name


def test_a_file_without_a_classifier_is_enough(state: dict[str, Tensor], tmp_path: Path) -> None:
    without = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    path = write(without, tmp_path / "backbone.pt")
    model = build_network("resnet18", SHAPE, 4, hidden_dim=8, feature_dim=4, weights=str(path))
    assert torch.equal(model.backbone.state_dict()["conv1.weight"], state["conv1.weight"])


def test_without_weights_two_seeds_give_two_backbones() -> None:
    first = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        model = build_network("resnet18", SHAPE, 4, hidden_dim=8, feature_dim=4)
        first.append(model.backbone.state_dict()["conv1.weight"])
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])


def test_a_file_that_misses_a_tensor_names_it(state: dict[str, Tensor], tmp_path: Path) -> None:
    damaged = {name: tensor for name, tensor in state.items() if name != "layer2.0.conv1.weight"}
    path = write(damaged, tmp_path / "damaged.pt")
    with pytest.raises(UsageError, match=r"damaged\.pt.*layer2\.0\.conv1\.weight.*resnet18"):
        check_backbone("resnet18", str(path), SHAPE)


def test_weights_of_another_architecture_are_refused(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = write(state, tmp_path / "resnet18.pt")
    with pytest.raises(UsageError, match="fits resnet50"):
        check_backbone("resnet50", str(path), SHAPE)


@pytest.mark.parametrize("name", ["text.pt", "text.safetensors"])
def test_a_file_that_holds_no_weights_is_wrong_usage(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("not weights at all")
    with pytest.raises(UsageError, match=r"text\.\w+': cannot be read"):
        check_backbone("resnet18", str(tmp_path / name), SHAPE)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Harmful:
        def __reduce__(self) -> tuple:
            return (Path.touch, (mark,))

    torch.save({"conv1.weight": Harmful()}, tmp_path / "harmful.pt")
    with pytest.raises(UsageError, match="cannot be read"):
        check_backbone("resnet18", str(tmp_path / "harmful.pt"), SHAPE)
    assert not mark.exists()


def test_a_list_of_tensors_is_not_a_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    with pytest.raises(UsageError, match="resnet18"):
        check_backbone("resnet18", str(tmp_path / "list.pt"), SHAPE)


def test_an_unknown_name_of_weights_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'IMAGENET1K_V3'.*did you mean 'IMAGENET1K_V1'"):
        check_backbone("resnet18", "IMAGENET1K_V3", SHAPE)


@pytest.mark.parametrize(("backbone", "shape"), [("small-cnn", (1, 24, 24)), ("mlp", (30,))])
def test_a_backbone_from_scratch_refuses_weights(backbone: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="weights=none"):
        check_backbone(backbone, "IMAGENET1K_V1", shape)


def test_published_weights_of_both_versions_come_from_their_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The official code has version 1; torchvision recommends version 2."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    first = {}
    for version, digest in ((1, "0676ba61"), (2, "11ad3fa6")):
        torch.manual_seed(version)
        state = resnet50(weights=None).state_dict()
        torch.save(state, tmp_path / "hub" / "checkpoints" / f"resnet50-{digest}.pth")
        first[f"IMAGENET1K_V{version}"] = state["conv1.weight"]
    for name, expected in first.items():
        check_backbone("resnet50", name, SHAPE)
        model = build_network("resnet50", SHAPE, 4, hidden_dim=8, feature_dim=4, weights=name)
        assert torch.equal(model.backbone.state_dict()["conv1.weight"], expected), name


@pytest.mark.parametrize(
    ("name", "file"),
    [("IMAGENET1K_V1", "resnet50-0676ba61.pth"), ("IMAGENET1K_V2", "resnet50-11ad3fa6.pth")],
)
def test_an_error_names_the_file_to_fetch_and_its_folder(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    folder = re.escape(str(tmp_path / "hub" / "checkpoints"))
    expected = rf"weights = '{name}'.*no route to host.*/{file} .*path of {file} or .*{folder}"
    with pytest.raises(UsageError, match=expected):
        check_backbone("resnet50", name, SHAPE)
    with pytest.raises(UsageError, match=expected):  # `bbam-ray data extract`
        feature_network("resnet50", name)
