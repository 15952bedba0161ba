"""What an epoch of each method costs: same samples, batches, backbone and number of views of them.

    python -m benchmarks.method_cost [--write benchmarks/comparison.md]

All methods take one epoch after the other in turn, so that a slow moment of the machine meets all of them;
the medians are given as ratios to CAP's. An epoch is refresh and training, without validation.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

from bbam_ray.engine.process import use_cpus
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import METHODS, run_config
from benchmarks.page import hardware, write_section

ROUNDS, REFERENCE = 9, "cap"


def seconds_per_epoch(rounds: int) -> dict[str, float]:
    """Median seconds of a main-phase epoch on digits, by method."""
    trainers = {}
    for name, method in METHODS.items():
        settings = {"dataset": "digits", "method": name, "device": "cpu", "warmup_passes": 1}
        warmup = {"warmup_epochs": 1} if method.semi_supervised else {}
        config = run_config({**settings, **warmup, "epochs": rounds + 2}, "benchmark")
        trainers[name] = Trainer(config, *prepare_training(config))
        trainers[name].run_epoch()  # the warm-up
    found: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(rounds + 1):
        for name, trainer in trainers.items():
            scalars = trainer.run_epoch().scalars
            found[name].append(scalars["seconds_refresh"] + scalars["seconds_train"])
    return {name: median(seconds[1:]) for name, seconds in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    use_cpus(1)
    seconds = seconds_per_epoch(arguments.rounds)
    lines = ["| method | seconds an epoch | times CAP's |", "|---|---|---|"]
    for name, value in sorted(seconds.items(), key=lambda item: item[1]):
        lines.append(f"| {name} | {value:.2f} | {value / seconds[REFERENCE]:.2f} |")
    lines += ["", f"Digits, one thread, median of {arguments.rounds} epochs in turn. {hardware()}"]
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        write_section(arguments.write, "cost", text)


if __name__ == "__main__":
    main()
