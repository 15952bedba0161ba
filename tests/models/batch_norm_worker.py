"""Run by test_sync_batch_norm.py: each rank of a gloo group normalizes its share of every case.

Usage: batch_norm_worker.py FOLDER WORLD_SIZE, with cases.pt in FOLDER; rank r writes rank-r.pt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from gloo_group import run_script
from torch import nn

from bbam_ray.models.sync_batch_norm import SynchronizedBatchNorm, synchronized


def normalize(case: dict[str, Any], rank: int) -> dict[str, Any]:
    """Two training steps on this rank's share, then one evaluation."""
    kind = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d}[case["inputs"][0].ndim]
    plain = kind(case["inputs"][0].shape[1], momentum=case["momentum"], affine=case["affine"])
    if case["affine"]:
        plain.load_state_dict(case["state"])
    layer = SynchronizedBatchNorm.like(plain)
    outputs, gradients = [], []
    for inputs, slope in zip(case["inputs"], case["slopes"], strict=True):
        shard = inputs.split(case["shares"])[rank].clone().requires_grad_()
        output = layer(shard)
        (output * slope.split(case["shares"])[rank] + output**3 / 3).sum().backward()
        outputs.append(output.detach())
        gradients.append(shard.grad)
    state = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with torch.no_grad():
        evaluated = layer.eval()(case["inputs"][0].split(case["shares"])[rank])
    return {
        "outputs": outputs,
        "gradients": gradients,
        "weight": layer.weight.grad if case["affine"] else None,
        "bias": layer.bias.grad if case["affine"] else None,
        "state": state,
        "evaluated": evaluated,
    }


def converted() -> dict[str, Any]:
    """A model whose batch norms have been replaced."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4, eps=1e-3, momentum=0.3),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3, affine=False)),
        nn.LayerNorm(3),
    )
    model[2].eval()
    keys, held = list(model.state_dict()), dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    new = synchronized(model, torch.device("cpu"))
    layers = [m for m in new.modules() if isinstance(m, SynchronizedBatchNorm)]
    return {
        "keys kept": list(new.state_dict()) == keys,
        "parameters shared": all(held[name] is p for name, p in new.named_parameters()),
        "buffers shared": all(buffers[name] is b for name, b in new.named_buffers()),
        "replaced": len(layers),
        "left": sum(type(m) in (nn.BatchNorm1d, nn.BatchNorm2d) for m in new.modules()),
        "settings": [(m.num_features, m.eps, m.momentum, m.affine, m.training) for m in layers],
    }


def work(rank: int, world_size: int, folder: Path) -> Any:
    cases = torch.load(folder / "cases.pt")
    return {name: normalize(case, rank) for name, case in cases.items()}, converted()


if __name__ == "__main__":
    run_script(work)
