"""State of single samples in a checkpoint: from the ranks that saved to those that resume."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

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
