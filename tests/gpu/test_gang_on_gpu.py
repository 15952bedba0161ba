"""Two ranks that share a GPU, with messages through gloo: what they train is what one process trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import run_config

pytestmark = pytest.mark.gpu

SETTINGS: dict[str, Any] = {
    "dataset": "digits",
    "scenes": 240,
    "test_scenes": 40,
    "labeled_fraction": 0.4,
    "epochs": 4,
    "warmup_epochs": 2,
    "warmup_passes": 2,
    "hidden_dim": 32,
    "feature_dim": 16,
    "amp": False,
}


@pytest.fixture(scope="module", params=["bbam", "flatmatch", "supervised"])
def settings(request: pytest.FixtureRequest, device: torch.device) -> dict[str, Any]:
    """Of a method; flatmatch has several backward passes in a step."""
    return {**SETTINGS, "method": request.param, "device": device.type}


@pytest.fixture(scope="module")
def gang(
    settings: dict[str, Any],
    gloo_group: Callable[..., list[Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Any]:
    """The results of both ranks."""
    folder = tmp_path_factory.mktemp("gang")
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    return gloo_group(Path(__file__).with_name("gpu_gang_worker.py"), 2, folder)


def test_two_ranks_train_what_one_process_trains(
    settings: dict[str, Any], gang: list[Any], run_to_end: Callable, device: torch.device
) -> None:
    config = run_config(settings, "test")
    alone = Trainer(config, *prepare_training(config))
    records = run_to_end(alone)
    expected = torch.cat([p.detach().cpu().flatten() for p in alone.model.parameters()])
    for rank in gang:
        assert rank["device"] == device.type
        assert float((rank["weights"] - expected).norm() / expected.norm()) < 0.02
        assert len(rank["records"]) == len(records)
        for record, wanted in zip(rank["records"], records, strict=True):
            for name, tolerance in (("loss", 0.02), ("val_map", 0.02)):
                value = wanted.scalars[name]
                assert record["scalars"][name] == pytest.approx(value, rel=0.02, abs=tolerance)
    assert torch.equal(gang[0]["weights"], gang[1]["weights"])


def test_every_sample_has_one_rank(settings: dict[str, Any], gang: list[Any]) -> None:
    if settings["method"] == "supervised":
        return
    rows = torch.cat([rank["unlabeled"]["index"] for rank in gang])
    assert torch.equal(rows.sort().values, torch.arange(len(rows)))
    assert min(len(rank["unlabeled"]["index"]) for rank in gang) > 0
