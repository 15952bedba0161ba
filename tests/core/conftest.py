"""Gloo groups of 2, 3 and 4 ranks that have computed every case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

N, D, K = 47, 6, 4
NAMES = (
    "uneven",
    "middle rank empty",
    "first rank empty",
    "last rank empty",
    "all on the last rank",
    "dealt out in turn",
)


def partition(name: str, world_size: int) -> list[range]:
    """Rows of each rank: contiguous and uneven, with empty ranks, or round-robin."""
    if name == "dealt out in turn":
        return [range(rank, N, world_size) for rank in range(world_size)]
    starts = {
        "uneven": [0, 5, 40, 44][:world_size],
        "middle rank empty": [0, 20, 20, 33][:world_size],
        "first rank empty": [0, 0, 30, 41][:world_size],
        "last rank empty": [*[0, 20, 33][: world_size - 1], N],
        "all on the last rank": [0] * world_size,
    }[name]
    return [range(a, b) for a, b in zip(starts, [*starts[1:], N], strict=True)]


def make_case(name: str, seed: int, world_size: int) -> dict[str, Any]:
    """Label 1 has positives on the first rows only, label 3 none at all; scores and features tie."""
    g = torch.Generator().manual_seed(seed)
    labels = (torch.rand(N, K, generator=g) < 0.3).to(torch.int8)
    labels[4:, 1], labels[:, 3] = 0, 0
    labels[1, 1] = 1
    features = torch.randn(N, D, generator=g)
    features[10:30] = features[10]  # equal similarities
    valid = torch.rand(N, K, generator=g) < 0.8
    valid[1, 1] = True
    shards = partition(name, world_size)
    return {
        "features": features,
        "labels": labels,
        "valid": valid,
        "prototypes": torch.randn(K, D, generator=g),
        "scores": torch.randint(-4, 5, (N, K), generator=g) / 8,
        "frequency": torch.tensor([0.3, 0.1, 0.0, 0.6]),
        "positive_keep": [1.0, 0.7][seed % 2],
        "negative_keep": [0.4, 0.3][seed % 2],
        "ratio": [1.5, 0.5][seed % 2],
        "indexed": name == "dealt out in turn",
        "shards": [torch.tensor(list(rows), dtype=torch.int64) for rows in shards],
    }


@pytest.fixture(scope="session", params=[2, 3, 4], ids="{} ranks".format)
def ranks(
    request: pytest.FixtureRequest,
    gloo_group: Callable[[Path, int, Path], list[Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], list[Any]]:
    """The cases by name, and for each rank its results by case and those of small collectives."""
    folder = tmp_path_factory.mktemp("gloo")
    cases = {name: make_case(name, seed, request.param) for seed, name in enumerate(NAMES)}
    torch.save(list(cases.values()), folder / "cases.pt")
    answers = gloo_group(Path(__file__).with_name("shard_worker.py"), request.param, folder)
    results = [dict(zip(NAMES, by_case, strict=True)) for by_case, _ in answers]
    return cases, list(zip(results, (small for _, small in answers), strict=True))
