"""Run by test_fitted_methods.py: each rank of a gloo group fits every method that is fitted.

Usage: rank_fitted.py FOLDER WORLD_SIZE, with settings.json in FOLDER; rank r writes rank-r.pt.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gloo_group import run_script

from bbam_ray.engine.fitted_trainer import make_trainer
from bbam_ray.engine.task import prepare_training
from bbam_ray.methods import METHODS, run_config
from bbam_ray.methods.fitted import FittedMethod


def work(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    results = {}
    for name in (n for n, method in METHODS.items() if issubclass(method, FittedMethod)):
        config = run_config({**settings, "method": name}, "test")
        trainer = make_trainer(config, *prepare_training(config))
        record = trainer.run_epoch()
        results[name] = {
            "average": trainer.average.module.state_dict(),
            "logits": trainer.weight_choice.last_logits,
            "val_map": record.scalars["val_map"],
        }
    return results


if __name__ == "__main__":
    run_script(work)
