"""State of single samples in a checkpoint: from the ranks that saved to those that resume."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbam_ray.engine.running_epoch import RunningEpoch
from bbam_ray.methods.method import Method

SampleState = dict[str, Tensor]


def rows_of(shards: list[dict[str, SampleState]], pool: str, rows: np.ndarray) -> SampleState:
    """State of some samples, without their indices.

    Args:
        shards: of each rank that saved, the state of its samples by pool, with their ``index`` in the
            pool; each sample is in one shard.
        pool: its name.
        rows: (N,) indices of the samples.

    Returns:
        Tensors by name, each with N rows.
    """
    whole = {name: torch.cat([s[pool][name] for s in shards]) for name in shards[0][pool]}
    position = torch.empty_like(whole["index"])
    position[whole.pop("index")] = torch.arange(len(position))
    chosen = position[torch.from_numpy(rows)]
    return {name: tensor[chosen] for name, tensor in whole.items()}


def saved_samples(
    method: Method[Any],
    labeled_rows: np.ndarray,
    unlabeled_rows: np.ndarray,
    running: RunningEpoch | None,
) -> dict[str, SampleState]:
    """The part of a checkpoint that belongs to this rank, by pool.

    Args:
        method: of the run.
        labeled_rows, unlabeled_rows: row indices of this rank's samples in the two pools.
        running: an epoch that is not complete; adds ``epoch``, rows of the unlabelled samples that matter
            until its end, and ``rank``, which has no rows.
    """
    labeled, unlabeled = method.sample_state()
    index = {"index": torch.from_numpy(unlabeled_rows)}
    state = {
        "labeled": {"index": torch.from_numpy(labeled_rows)} | labeled,
        "unlabeled": index | unlabeled,
    }
    if running is None:
        return state
    return state | {"epoch": index | method.epoch_state()[1], "rank": running.rank_state()}


def restore_samples(
    shards: list[dict[str, SampleState]],
    method: Method[Any],
    labeled_rows: np.ndarray,
    unlabeled_rows: np.ndarray,
    running: RunningEpoch | None,
) -> None:
    """Restore ``saved_samples`` of all ranks that saved, for the samples that are on this rank now."""
    unlabeled = rows_of(shards, "unlabeled", unlabeled_rows)
    method.load_sample_state(rows_of(shards, "labeled", labeled_rows), unlabeled)
    if running is not None:
        method.load_epoch_state(running.method, rows_of(shards, "epoch", unlabeled_rows))
        running.load_rank_states([shard["rank"] for shard in shards])
