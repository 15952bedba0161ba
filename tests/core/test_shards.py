"""Three real gloo ranks with uneven shards give the answers of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bbam_ray.core.negatives import sample_negatives
from bbam_ray.core.prototypes import label_prototypes
from bbam_ray.core.pseudo_labels import assign_pseudo_labels
from bbam_ray.core.statistics import angle_moments

N, D, K = 47, 6, 4
WORKER = Path(__file__).with_name("shard_worker.py")
# Rows of each rank: contiguous and uneven, one rank empty, one rank with everything, and any order.
PARTITIONS = {
    "uneven": [range(5), range(5, 40), range(40, N)],
    "middle rank empty": [range(20), range(0), range(20, N)],
    "first rank empty": [range(0), range(30), range(30, N)],
    "all on the last rank": [range(0), range(0), range(N)],
    "dealt out in turn": [range(0, N, 3), range(1, N, 3), range(2, N, 3)],
}


def make_case(name: str, seed: int) -> dict[str, Any]:
    """Label 1 has positives on the first rows only, label 3 none at all; scores and features tie."""
    g = torch.Generator().manual_seed(seed)
    labels = (torch.rand(N, K, generator=g) < 0.3).to(torch.int8)
    labels[4:, 1], labels[:, 3] = 0, 0
    labels[1, 1] = 1
    features = torch.randn(N, D, generator=g)
    features[10:30] = features[10]  # equal similarities
    valid = torch.rand(N, K, generator=g) < 0.8
    valid[1, 1] = True
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
        "shards": [torch.tensor(list(rows), dtype=torch.int64) for rows in PARTITIONS[name]],
    }


CASES = [make_case(name, seed) for seed, name in enumerate(PARTITIONS)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[list[dict[str, Any]], Any]]:
    folder = tmp_path_factory.mktemp("gloo")
    torch.save(CASES, folder / "cases.pt")
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = subprocess.run(
        [sys.executable, str(WORKER), str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(3)]


@pytest.mark.parametrize("number", range(len(CASES)), ids=list(PARTITIONS))
def test_sums_over_ranks_equal_those_of_one_process(number: int, ranks: list[Any]) -> None:
    case = CASES[number]
    samples = case["features"], case["labels"], case["valid"]
    moments = angle_moments(*samples, case["prototypes"])
    expected = {
        "prototypes": label_prototypes(*samples),
        "count": moments.count,
        "mean": moments.mean,
        "m2": moments.m2,
    }
    assert float(expected["count"][1, 3]) == 0 and torch.equal(
        expected["prototypes"][3], torch.zeros(D)
    )
    for results, _ in ranks:
        for name, value in expected.items():
            torch.testing.assert_close(results[number][name], value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("number", range(len(CASES)), ids=list(PARTITIONS))
def test_selections_over_ranks_equal_those_of_one_process(number: int, ranks: list[Any]) -> None:
    case = CASES[number]
    pseudo, confident = assign_pseudo_labels(
        case["scores"],
        case["frequency"],
        positive_keep=case["positive_keep"],
        negative_keep=case["negative_keep"],
    )
    negatives = sample_negatives(
        case["features"], case["prototypes"], case["labels"], case["valid"], case["ratio"]
    )
    assert int(pseudo.sum()) > 0 and 0 < int(negatives.sum()) < int((case["valid"]).sum())
    expected = {"pseudo": pseudo, "confident": confident, "negatives": negatives}
    for rank, (results, _) in enumerate(ranks):
        rows = case["shards"][rank]
        for name, value in expected.items():
            assert torch.equal(results[number][name], value[rows]), (name, rank)


def test_small_agreements_between_ranks(ranks: list[Any]) -> None:
    for rank, (_, small) in enumerate(ranks):
        assert small["flags"] == [True, False, True]
        assert small["counts"] == [0, 10, 20]
        assert small["largest"] == 7
        assert small["index"].tolist() == [[0], [1, 2], [3, 4, 5]][rank]
