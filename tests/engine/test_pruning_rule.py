"""A run with a pruning rule ends where it misses a threshold; until then it equals the run without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.pruning_rule import PruningRule
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer


@pytest.fixture()
def pruned_trainer(tiny_config: Callable[..., Any]) -> Callable[[PruningRule | None], Trainer]:
    def make(pruning_rule: PruningRule | None) -> Trainer:
        config = tiny_config()
        return Trainer(config, *prepare_training(config), pruning_rule)

    return make


def test_a_run_ends_after_the_epoch_in_which_it_misses_its_threshold(
    pruned_trainer: Any, run_to_end: Any, figures: Any, identical: Any
) -> None:
    whole = pruned_trainer(None)
    records = run_to_end(whole)
    assert whole.progress == {"finished": True, "stopped_early": False}
    stopped = pruned_trainer(PruningRule("val_map", True, {3: 2.0}))
    cut = run_to_end(stopped)
    assert stopped.progress == {"finished": True, "stopped_early": True}
    assert len(cut) == 3 < len(records) == 4
    assert all(identical(figures(a), figures(b)) for a, b in zip(cut, records, strict=False))
    with pytest.raises(RuntimeError, match="has ended after epoch 3"):
        stopped.run_epoch()


def test_a_threshold_that_is_reached_changes_nothing(
    pruned_trainer: Any, run_to_end: Any, figures: Any, identical: Any
) -> None:
    pruning_rule = PruningRule("val_hamming_loss", False, dict.fromkeys((1, 2, 3), 1.0))
    with_bar, without = pruned_trainer(pruning_rule), pruned_trainer(None)
    pairs = zip(run_to_end(with_bar), run_to_end(without), strict=True)
    assert all(identical(figures(a), figures(b)) for a, b in pairs)
    assert not with_bar.stopped_early


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_an_interrupted_run_stops_after_the_same_epoch_as_an_uninterrupted_one(
    stop: int, pruned_trainer: Any, run_to_end: Any, tmp_path: Path
) -> None:
    """The best value so far can be before the interruption, and so can the end."""
    values = [record.scalars["val_map"] for record in run_to_end(pruned_trainer(None))]
    pruning_rule = PruningRule("val_map", True, {3: max(values[:3]) + 1e-6}, best_so_far=True)
    first = pruned_trainer(pruning_rule)
    records = [first.run_epoch() for _ in range(stop)]
    checkpoint_folder.save_part(tmp_path, first, records)
    again = pruned_trainer(pruning_rule)
    checkpoint_folder.load(tmp_path, again)
    run_to_end(again)
    assert (again.epoch, again.stopped_early) == (3, True)
    reached = PruningRule("val_map", True, {3: max(values[:3])}, best_so_far=True)
    again = pruned_trainer(reached)
    checkpoint_folder.load(tmp_path, again) if stop < 3 else None
    run_to_end(again)
    assert (again.epoch, again.stopped_early) == (4, False)
