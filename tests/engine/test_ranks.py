"""Runs on gloo groups of 2 and 3 ranks equal those of one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

CLOCK = ("seconds_", "images_per_second")
AGREEMENT = 1e-4  # of parameters, relative
WARMUP, MAIN = 1, 3  # an epoch of each phase, the first


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Norm of the difference of all parameters / norm of ``b``."""
    assert a.keys() == b.keys()
    flat = [torch.cat([weights[name].double().flatten() for name in b]) for weights in (a, b)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    """A record without the columns that depend on the clock."""
    scalars = {k: v for k, v in record["scalars"].items() if not k.startswith(CLOCK)}
    return {"scalars": scalars, "labels": record["labels"]}


def whole(shards: list[dict[str, Any]], pool: str) -> dict[str, Tensor]:
    """The state of all ranks of the samples of a pool, in the order of the pool."""
    index = torch.cat([shard["samples"][pool]["index"] for shard in shards])
    order = index.argsort()
    assert torch.equal(index[order], torch.arange(len(index)))  # each sample at one rank
    return {
        name: torch.cat([shard["samples"][pool][name] for shard in shards])[order]
        for name in shards[0]["samples"][pool]
    }


@pytest.mark.parametrize("epoch", [WARMUP, MAIN], ids=["warm-up", "main phase"])
def test_parameters_are_those_of_one_process(
    epoch: int, group: list[Any], one: dict[str, Any]
) -> None:
    expected = one["run"]["states"][epoch]
    for found in group:
        state = found["run"]["states"][epoch]
        assert distance(state["weights"], expected["weights"]) < AGREEMENT
        assert distance(state["average"], expected["average"]) < AGREEMENT


def test_the_same_epoch_without_synchronized_batch_norm_is_another(
    group: list[Any], one: dict[str, Any]
) -> None:
    """The agreement above is not that of runs whose weights hardly changed."""
    expected = one["run"]["states"][WARMUP]["weights"]
    for found in group:
        assert distance(found["apart"]["states"][WARMUP]["weights"], expected) > AGREEMENT


def test_pseudo_labels_and_selections_are_those_of_one_process(
    group: list[Any], one: dict[str, Any]
) -> None:
    shards = [found["run"]["states"][MAIN] for found in group]
    alone = [one["run"]["states"][MAIN]]
    known = {"labeled": {"index", "selected"}}
    known["unlabeled"] = {"index", "selected", "pseudo", "confident"}
    for pool, names in known.items():
        expected, found = whole(alone, pool), whole(shards, pool)
        assert found.keys() == expected.keys() == names
        for name in names:
            assert torch.equal(found[name], expected[name]), (pool, name)
    expected = whole(alone, "unlabeled")
    assert int(expected["pseudo"].sum()) > 0 and not bool(expected["selected"].all())


def test_samples_are_evenly_divided(group: list[Any]) -> None:
    for pool in ("labeled", "unlabeled"):
        sizes = [len(f["run"]["states"][MAIN]["samples"][pool]["index"]) for f in group]
        assert min(sizes) > 0
        assert max(sizes) <= 1.25 * sum(sizes) / len(sizes) + 1


def test_records_are_those_of_one_process(group: list[Any], one: dict[str, Any]) -> None:
    expected, found = one["run"]["records"], group[0]["run"]["records"]
    assert len(found) == len(expected) == 5
    for record, alone in zip(found, expected, strict=True):
        got, wanted = record["scalars"], alone["scalars"]
        assert got.keys() == wanted.keys() and record["labels"].keys() == alone["labels"].keys()
        for name in ("epoch", "phase", "lr"):
            assert got[name] == wanted[name]
        for name in ("loss", "loss_labeled"):
            assert got[name] == pytest.approx(wanted[name], rel=1e-3)
        assert got["val_map"] == pytest.approx(wanted["val_map"], abs=0.005)
        assert (got["loss_unlabeled"] is None) == (got["phase"] == "warmup")
        if got["phase"] == "main":
            assert got["loss_unlabeled"] == pytest.approx(wanted["loss_unlabeled"], rel=1e-3)
            for name in ("pseudo_precision", "pseudo_recall"):
                assert got[name] == pytest.approx(wanted[name], abs=1e-3)
            for name in ("prior", "n_positive", "n_negative", "n_negative_kept"):
                assert record["labels"][name] == alone["labels"][name]


def test_ranks_return_the_same_records_and_hold_the_same_weights(
    group: list[Any], identical: Callable
) -> None:
    for run in ("run", "apart"):
        first = group[0][run]
        for other in (found[run] for found in group[1:]):
            assert identical(
                [timeless(r) for r in other["records"]], [timeless(r) for r in first["records"]]
            )
            for epoch, state in other["states"].items():
                assert identical(state["weights"], first["states"][epoch]["weights"])
                if run == "run":
                    assert identical(state["average"], first["states"][epoch]["average"])


def test_a_supervised_run_is_that_of_one_process(two: list[Any], one: dict[str, Any]) -> None:
    expected = one["supervised"]
    for found in two:
        run = found["supervised"]
        for epoch in (1, 2):
            state, wanted = run["states"][epoch], expected["states"][epoch]
            assert distance(state["weights"], wanted["weights"]) < AGREEMENT
        for got, alone in zip(run["records"], expected["records"], strict=True):
            assert got["scalars"]["loss"] == pytest.approx(alone["scalars"]["loss"], rel=1e-3)
            assert got["scalars"]["val_map"] == pytest.approx(
                alone["scalars"]["val_map"], abs=0.005
            )


def test_a_rank_without_a_share_of_a_step_changes_nothing(
    two: list[Any], one: dict[str, Any]
) -> None:
    shares = [found["labelled in each step"] for found in two]
    assert all(0 in share for share in shares)  # it does happen, to each
    assert all(sum(step) == 2 for step in zip(*shares, strict=True))
    for epoch, expected in one["sparse"]["states"].items():
        for found in two:
            state = found["sparse"]["states"][epoch]
            assert distance(state["weights"], expected["weights"]) < AGREEMENT
            assert distance(state["average"], expected["average"]) < AGREEMENT
