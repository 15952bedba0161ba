"""A refresh on a GPU: the same entries as on a CPU, also with blocks of another size."""

from __future__ import annotations

import pytest
import torch

from bbam_ray.methods.bbam import Bbam
from benchmarks.refresh import draw, refreshed

pytestmark = pytest.mark.gpu


def entries_of(method: Bbam) -> dict[str, torch.Tensor]:
    """What a refresh decides for each entry."""
    return {
        "labels": method.assigned.labels,
        "confident": method.assigned.confident,
        "labeled_selected": method.labeled_selected,
        "unlabeled_selected": method.unlabeled_selected,
    }


def assert_same_entries(found: Bbam, expected: Bbam) -> None:
    for name, theirs in entries_of(expected).items():
        mine = entries_of(found)[name].cpu()
        assert mine.shape == theirs.shape and int((mine != theirs).sum()) == 0, name
    for name in ("means", "variances"):
        mine, theirs = getattr(found.statistics, name).cpu(), getattr(expected.statistics, name)
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize(("rows", "labels"), [((40, 400), 12), ((410, 7_798), 80)])
def test_entries_are_those_of_a_cpu(
    rows: tuple[int, int], labels: int, device: torch.device
) -> None:
    cosine, features, known = draw(*rows, labels, 64)
    expected = refreshed(cosine.clone(), features, known)
    assert expected.assigned.labels.any() and expected.unlabeled_selected.any()
    found = refreshed(*(tensor.clone().to(device) for tensor in (cosine, features, known)))
    assert found.assigned.labels.device.type == device.type
    assert_same_entries(found, expected)


def test_the_size_of_blocks_does_not_matter(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = [tensor.to(device) for tensor in draw(40, 400, 12, 64)]
    whole = refreshed(tensors[0].clone(), *tensors[1:])
    name = "_BLOCK_ENTRIES" if device.type == "cpu" else "_GPU_BLOCK_ENTRIES"
    monkeypatch.setattr(f"bbam_ray.core.rows.{name}", 7 * 64)
    parts = refreshed(tensors[0].clone(), *tensors[1:])
    for name, entries in entries_of(whole).items():
        assert torch.equal(entries_of(parts)[name], entries), name
