"""What early stopping saves and costs: compare the stored results of studies with and without it.

F="--num-samples 24 --epochs 21 --max-concurrent 1 --no-reuse"
python launch/tune.py --name full $F
python launch/tune.py --name asha $F --scheduler asha
python -m benchmarks.early_stopping results/digits/full results/digits/asha [--write FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bbam_ray.results.loading import Study, load_study
from bbam_ray.results.summary import confirmed_metrics
from benchmarks.page import hardware, write_section


def _row(study: Study, reference: Study) -> str:
    trials, rules = study.trials, study.record["rules"]["stopping"]
    epochs, all_epochs = int(trials["epochs"].sum()), int(reference.trials["epochs"].sum())
    states = trials["state"].value_counts()
    best = trials[trials["state"] == "COMPLETE"][study.metric].max()
    tests = [f"{f.mean:.4f}" for f in confirmed_metrics(study.confirm.to_dict("records"))]  # type: ignore[arg-type]
    return (
        f"| {rules['scheduler']} | {len(trials)} ({states.get('PRUNED', 0)} pruned) | {epochs} | "
        f"{100 * epochs / all_epochs:.0f} % | {trials['duration_s'].sum():.0f} | {best:.4f} | "
        f"{', '.join(tests) or '-'} |"
    )


def comparison(full: Study, others: list[Study]) -> str:
    """Markdown table with a row per study.

    Args:
        full: the study without early stopping.
        others: studies with the same settings and search space, and early stopping.
    """
    settings = full.record["settings"]
    for study in others:
        if study.record["settings"] != settings or study.record["space"] != full.record["space"]:
            raise SystemExit(f"{study.folder}: settings or search space differ from {full.folder}")
    head = "| scheduler | trials | epochs | share | training time, s | best "
    head += f"{full.metric} | test mAP of the best |"
    lines = [head, "|---" * 7 + "|", *(_row(study, full) for study in (full, *others))]
    seeds = full.record["confirm"]["seeds"]
    return "\n".join(
        [
            *lines,
            "",
            f"Test mAP: mean over {seeds} seeds. One run of each, seed {settings['seed']}. {hardware()}",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("full", type=Path)
    parser.add_argument("others", type=Path, nargs="+")
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    text = comparison(load_study(arguments.full), [load_study(p) for p in arguments.others])
    print(text)
    if arguments.write:
        write_section(arguments.write, "early_stopping", text)


if __name__ == "__main__":
    main()
