"""Search, confirm, load the best model and predict: five steps on the embedded data set.

python examples/quickstart.py          # a few minutes on two CPU cores
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bbam_ray import load_model, tune_study
from bbam_ray.data import DATASETS


def main(
    results: Path = Path("results"), trials: int = 4, epochs: int = 16, **options: Any
) -> None:
    # 1. Search the settings of the method on validation data; trial 0 has the published ones.
    study = tune_study(
        "digits",
        num_samples=trials,
        epochs=epochs,
        warmup_epochs=epochs // 4,
        confirm_seeds=2,
        results=results,
        quiet=True,
        **options,  # such as folds=1
    )
    # 2. The best configuration, and every trial as a DataFrame.
    print(study.best)
    print(study.trials[["number", "state", "val_map", "duration_s"]])

    # 3. The confirmation: trained again over other seeds and measured on the test part.
    print(study)

    # 4. The model of the first confirmed seed.
    model = load_model(study.folder)

    # 5. Labels of new samples.
    digits = DATASETS["digits"]
    scenes = digits.load(digits.Options(), None, "test").inputs[:3]
    for scores, labels in zip(model.predict_proba(scenes), model.predict(scenes), strict=True):
        names = [name for name, label in zip(model.label_names, labels, strict=True) if label]
        print(f"labels {', '.join(names) or 'none'}; highest score {scores.max():.2f}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
