"""Run by test_shards.py: each rank of a real gloo group computes its shard of every case.

Usage: shard_worker.py FOLDER, with cases.pt in it; rank r writes rank-r.pt.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from bbam_ray import distributed
from bbam_ray.core.negatives import sample_negatives
from bbam_ray.core.prototypes import label_prototypes
from bbam_ray.core.pseudo_labels import assign_pseudo_labels
from bbam_ray.core.statistics import angle_moments


def compute(case: dict[str, Any], rows: torch.Tensor) -> dict[str, Any]:
    """Everything that is sharded, on these rows."""
    features, labels, valid = (case[name][rows] for name in ("features", "labels", "valid"))
    index = rows if case["indexed"] else None
    prototypes = label_prototypes(features, labels, valid)
    moments = angle_moments(features, labels, valid, case["prototypes"])
    pseudo, confident = assign_pseudo_labels(
        case["scores"][rows],
        case["frequency"],
        positive_keep=case["positive_keep"],
        negative_keep=case["negative_keep"],
        index=index,
    )
    return {
        "prototypes": prototypes,
        "count": moments.count,
        "mean": moments.mean,
        "m2": moments.m2,
        "pseudo": pseudo,
        "confident": confident,
        "negatives": sample_negatives(
            features, case["prototypes"], labels, valid, case["ratio"], index
        ),
    }


def run_rank(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    cases = torch.load(Path(folder) / "cases.pt")
    results = [compute(case, case["shards"][rank]) for case in cases]
    device = torch.device("cpu")
    small = {
        "flags": distributed.any_rank([rank == 1, False, True], device),
        "counts": distributed.row_counts(10 * rank, device),
        "largest": distributed.all_reduce_max(7 - rank, device),
        "index": distributed.global_index(rank + 1, device),
    }
    torch.save((results, small), Path(folder) / f"rank-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.spawn(run_rank, args=(3, sys.argv[1]), nprocs=3)
