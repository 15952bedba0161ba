"""What an epoch of each method costs, with the same samples, batches, backbone and number of views.

    python -m benchmarks.method_cost [--write benchmarks/comparison.md]

The methods take turns, an epoch at a time, so that a slow moment of the machine affects all of them. The
table shows medians, also relative to CAP. An epoch is refresh and training, without validation.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from bbam_ray.engine.process import use_cpus
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import METHODS, run_config
from bbam_ray.methods.fitted import FittedMethod
from benchmarks.page import hardware, write_section

ROUNDS, REFERENCE = 9, "cap"


def seconds_per_epoch(rounds: int, methods: Iterable[str] = METHODS) -> dict[str, float]:
    """Median seconds of a main-phase epoch on digits, by method, for those with epochs."""
    trainers = {}
    for name in methods:
        if issubclass(METHODS[name], FittedMethod):
            continue  # no epochs
        settings = {"dataset": "digits", "method": name, "device": "cpu", "warmup_passes": 1}
        settings["keep"] = "last"  # the main phase does not end before the last epoch
        config = run_config({**settings, "warmup_epochs": 1, "epochs": rounds + 2}, "benchmark")
        trainers[name] = Trainer(config, *prepare_training(config))
        trainers[name].run_epoch()  # the warm-up
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(rounds + 1):
        for name, trainer in trainers.items():
            scalars = trainer.run_epoch().scalars
            times[name].append(scalars["seconds_refresh"] + scalars["seconds_train"])
    return {name: median(seconds[1:]) for name, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    use_cpus(1)
    seconds = seconds_per_epoch(arguments.rounds)
    lines = ["| method | seconds per epoch | relative to CAP |", "|---|---|---|"]
    for name, value in sorted(seconds.items(), key=lambda item: item[1]):
        lines.append(f"| {name} | {value:.2f} | {value / seconds[REFERENCE]:.2f} |")
    lines += [
        "",
        f"Digits, one thread, median of {arguments.rounds} alternating epochs. {hardware()}",
    ]
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        write_section(arguments.write, "cost", text)


if __name__ == "__main__":
    main()
