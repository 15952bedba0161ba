"""Ranks wait together for a full disk of one of them: two real processes, joined by gloo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bbam_ray.errors import StorageError
from bbam_ray.scale.workers.shared_patience import SharedPatience

FULL = "No space left on device"


@pytest.fixture(scope="module")
def ranks(
    gloo_group: Callable[[Path, int, Path], list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> list[Any]:
    """What happened on the rank that can always write, and on the one that fails."""
    script = Path(__file__).with_name("rank_patience.py")
    return gloo_group(script, 2, tmp_path_factory.mktemp("ranks"))


def together(ranks: list[Any], case: str) -> tuple[Any, Any]:
    first, second = (rank[case] for rank in ranks)
    assert abs(first["ended"] - second["ended"]) < 0.8  # less than the pause between two attempts
    assert first["votes"] == second["votes"]
    return first, second


def test_a_write_that_succeeds_costs_one_vote(ranks: list[Any]) -> None:
    for rank in together(ranks, "at once"):
        assert (rank["outcome"], rank["attempts"], rank["votes"]) == (True, 1, 1)
        assert rank["reasons"] == [] and rank["seconds"] < 0.8


def test_only_the_rank_that_has_failed_tries_again(ranks: list[Any]) -> None:
    writer, failing = together(ranks, "for a while")
    assert (writer["attempts"], failing["attempts"]) == (1, 3)
    for rank in (writer, failing):
        assert rank["outcome"] is True and rank["votes"] == 3
        assert 1.9 < rank["seconds"] < 10
    # Each warns once; the rank that reports to the driver knows who has failed, and why.
    assert writer["reasons"] == [f"{FULL}, worker 1"] and failing["reasons"] == [FULL]


def test_all_ranks_give_up_together(ranks: list[Any]) -> None:
    for rank in together(ranks, "for good"):
        assert isinstance(rank["outcome"], str)
        assert "run could not be written for 3 s" in rank["outcome"] and FULL in rank["outcome"]
        assert "--resume" in rank["outcome"] and "\n" not in rank["outcome"]
        assert len(rank["reasons"]) == 1


def test_a_request_to_stop_leaves_one_more_attempt(ranks: list[Any]) -> None:
    writer, failing = together(ranks, "stopped")
    assert writer["outcome"] is failing["outcome"] is False
    # The request is there at the second vote; the third attempt is the last one.
    assert (writer["attempts"], failing["attempts"], writer["votes"]) == (1, 3, 3)


def alone(limit_s: float, stops: bool = False) -> SharedPatience:
    device = torch.device("cpu")
    return SharedPatience(
        Path("run"), limit_s, device, stop_requested=lambda: stops, warn=lambda reason: None
    )


def test_a_single_process_needs_no_group() -> None:
    attempts = iter([OSError("the server is away"), None])

    def write() -> None:
        if error := next(attempts):
            raise error

    assert alone(60).insist(write)


def test_an_error_without_a_number_counts_as_a_failure_and_is_quoted() -> None:
    def write() -> None:
        raise OSError("the server\nis away")

    with pytest.raises(StorageError, match="the server is away"):
        alone(0).insist(write)
    assert alone(60, stops=True).insist(write) is False


def test_other_errors_are_not_waited_for() -> None:
    def write() -> None:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        alone(60).insist(write)
