"""Run by test_graph.py: each rank of a gloo group propagates the labels of its shard.

Usage: graph_worker.py FOLDER WORLD_SIZE, with samples.pt in FOLDER; rank r writes rank-r.pt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from gloo_group import run_script

from bbam_ray.core.graph import neighbor_graph, propagate_labels, standardized


def work(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    """Labelled rows dealt out in turn, unlabelled ones in a shuffled order."""
    features, labels = torch.load(folder / "samples.pt")
    labeled = torch.arange(rank, len(labels), world_size)
    shuffled = torch.randperm(
        len(features) - len(labels), generator=torch.Generator().manual_seed(1)
    )
    unlabeled = shuffled[rank::world_size]
    index = torch.cat([labeled, unlabeled + len(labels)])
    graph = neighbor_graph(features[index], 6, index)
    propagated = propagate_labels(graph, labels[labeled], 0.9)
    return {
        "rows": unlabeled,
        "propagated": propagated,
        "standardized": standardized(propagated),
    }


if __name__ == "__main__":
    run_script(work)
