"""Methods under one protocol: same splits, backbone, epochs and seeds; then means over seeds.

python examples/compare_methods.py         # about four minutes on two CPU cores
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bbam_ray import compare

METHODS = ("bbam", "bbam:balance=false", "cap", "supervised:loss=bce")


def main(
    results: Path = Path("results"),
    methods: Sequence[str] = METHODS,
    seeds: int = 3,
    epochs: int = 24,
) -> None:
    # Settings after a colon belong to one entry: here, bbam without its balance of variances.
    rows = compare(
        "digits",
        methods=methods,
        labeled_fractions=[0.05],
        seeds=seeds,
        epochs=epochs,
        warmup_epochs=epochs // 3,
        results=results,
    )
    # A row per method and seed; failed runs have an error and no metrics.
    table = rows.groupby("entry", sort=False)[["test_map", "test_micro_f1"]].agg(["mean", "std"])
    print(table.round(4))
    # compare.html in the same folder marks which differences are larger than noise (paired t-test).
    print(f"files: {results / 'digits' / 'comparison'}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
