"""The operations of a refresh, counted: no sort, no gathered features, no N x K matrix of floats."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bbam_ray.methods.bbam import BbamOptions
from benchmarks.plain_refresh import plain_refresh
from benchmarks.refresh import agree, draw, refreshed

LABELED, UNLABELED, K, D = 500, 15_500, 40, 32
N = LABELED + UNLABELED


class Work(TorchDispatchMode):
    """Counts operations by name and keeps the bytes of the largest new tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.largest = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        result = function(*arguments, **(options or {}))
        self.calls[function.overloadpacket.__name__] += 1
        given = {a.untyped_storage().data_ptr() for a in arguments if isinstance(a, torch.Tensor)}
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in given:
                    self.largest = max(self.largest, storage.nbytes())
        return result


def sorts(work: Work) -> int:
    return sum(work.calls[name] for name in ("sort", "argsort", "topk", "kthvalue", "msort"))


@pytest.fixture()
def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return draw(LABELED, UNLABELED, K, D)


def test_a_refresh_sorts_nothing_and_makes_no_matrix_of_numbers(
    case: tuple[torch.Tensor, torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bbam_ray.core.rows._BLOCK_ENTRIES", 1 << 12)
    with Work() as work:
        refreshed(*case)
    assert sorts(work) == 0
    assert work.calls["index_add_"] > 0
    # Matrices of all samples have one byte per entry: labels and masks.
    assert work.largest <= max(N * K, 8 * (K * 2048 + 1))


def test_a_refresh_computes_each_angle_once(
    case: tuple[torch.Tensor, torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moments and histogram share one pass over the row blocks."""
    monkeypatch.setattr("bbam_ray.core.rows._BLOCK_ENTRIES", 1 << 14)
    with Work() as work:
        refreshed(*case)
    blocks = math.ceil(N / ((1 << 14) // max(K, D)))
    assert work.calls["acos_"] + work.calls["acos"] == blocks
    assert work.calls["bincount"] == blocks


def test_its_work_grows_with_the_blocks_and_not_with_the_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of three selections reads every block four times; there is no loop over labels."""
    monkeypatch.setattr("bbam_ray.core.rows._BLOCK_ENTRIES", 1 << 14)
    counts = []
    for labels, samples in ((20, 4_000), (40, 2_000)):  # as many entries
        with Work() as work:
            refreshed(*draw(100, samples, labels, D))
        counts.append(sum(work.calls.values()))
    assert counts[1] < 1.3 * counts[0]


def test_the_plain_implementation_fails_these_counts(
    case: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    cosine, features, known = case
    with Work() as work:
        plain_refresh(cosine, features, known)
    assert sorts(work) > K
    assert work.largest >= 4 * 0.5 * N * D


def test_both_implementations_select_the_same_entries(
    case: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    cosine, features, known = case
    options = BbamOptions.build({}, "test")
    logits = options.scale * (cosine - options.margin / 2)
    exact = plain_refresh(logits, features.double(), known)
    ours = refreshed(cosine, features, known)
    assert agree(ours, exact)
    torch.testing.assert_close(ours.statistics.means.double(), exact.means)
    torch.testing.assert_close(
        ours.statistics.variances.double(), exact.variances, rtol=1e-4, atol=0
    )
    ours.unlabeled_selected[3, 3] ^= True
    assert not agree(ours, exact)
