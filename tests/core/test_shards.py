"""Real gloo groups of 2, 3 and 4 ranks with uneven shards give the answers of one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bbam_ray.core.metrics import multilabel_metrics
from bbam_ray.core.negatives import sample_negatives
from bbam_ray.core.prototypes import label_prototypes
from bbam_ray.core.pseudo_labels import assign_pseudo_labels
from bbam_ray.core.statistics import angle_moments

Ranks = tuple[dict[str, Any], list[Any]]
NAMES = (
    "uneven",
    "middle rank empty",
    "first rank empty",
    "last rank empty",
    "all on the last rank",
    "dealt out in turn",
)


@pytest.mark.parametrize("name", NAMES)
def test_sums_over_ranks_equal_those_of_one_process(name: str, ranks: Ranks) -> None:
    case = ranks[0][name]
    samples = case["features"], case["labels"], case["valid"]
    moments = angle_moments(*samples, case["prototypes"])
    expected = {
        "prototypes": label_prototypes(*samples),
        "count": moments.count,
        "mean": moments.mean,
        "m2": moments.m2,
    }
    # A label that is absent everywhere, and one that only the owner of the first rows has.
    assert float(expected["count"][1, 3]) == 0 and not expected["prototypes"][3].any()
    assert 0 < float(expected["count"][1, 1]) <= 4
    for results, _ in ranks[1]:
        for figure, value in expected.items():
            torch.testing.assert_close(results[name][figure], value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_selections_over_ranks_equal_those_of_one_process(name: str, ranks: Ranks) -> None:
    case = ranks[0][name]
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
    for rank, (results, _) in enumerate(ranks[1]):
        rows = case["shards"][rank]
        for figure, value in expected.items():
            assert torch.equal(results[name][figure], value[rows]), (figure, rank)


@pytest.mark.parametrize("name", NAMES)
def test_metrics_of_shards_are_those_of_the_union(name: str, ranks: Ranks) -> None:
    case = ranks[0][name]
    expected = multilabel_metrics(
        case["scores"], case["labels"], thresholds=torch.tensor([0.1, 0.0, -0.2, 0.25])
    )
    assert 0 < expected["map_absent_zero"] < expected["map"] < 1  # label 3 is absent
    for results, _ in ranks[1]:
        assert results[name]["metrics"] == pytest.approx(expected, rel=1e-9)
