"""Any number of ranks can resume from a checkpoint folder, but only if it is complete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bbam_ray.engine import checkpoint_folder as folders
from bbam_ray.engine.kept_weights import KeptWeights
from bbam_ray.engine.model_folder import load_weights, read_thresholds
from bbam_ray.engine.session import LocalSession, run_epochs
from bbam_ray.engine.trainer import EpochRecord, Trainer

Make = Callable[..., Trainer]
EPOCHS = (1, 3)  # the checkpoints to resume from: warm-up and main phase


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    """A record without the columns that depend on the clock."""
    clock = ("seconds_", "images_per_second")
    scalars = {k: v for k, v in record["scalars"].items() if not k.startswith(clock)}
    return {"scalars": scalars, "labels": record["labels"]}


def by_sample(ranks: list[dict[str, Any]]) -> dict[str, dict[int, Any]]:
    """The state of each sample by its index, on any rank; each sample once."""
    found: dict[str, dict[int, Any]] = {}
    for pool in ("labeled", "unlabeled"):
        found[pool] = {}
        for shard in (rank["samples"][pool] for rank in ranks):
            for place, index in enumerate(shard["index"].tolist()):
                assert index not in found[pool]
                found[pool][index] = {n: t[place] for n, t in shard.items() if n != "index"}
    return found


@pytest.fixture(scope="module")
def resumed(
    two: list[Any],
    three: list[Any],
    rank_worker: ModuleType,
    rank_settings: dict[str, Any],
    checkpoints_of_two: Path,
) -> dict[int, list[dict[int, Any]]]:
    """Runs that resumed from checkpoints of 2 ranks: number of ranks -> by rank -> by epoch."""
    here = {
        e: rank_worker.resume(rank_settings, checkpoints_of_two / folders.folder_name(e))
        for e in EPOCHS
    }
    groups = {2: two, 3: three}
    found = {n: [{e: r[f"from {e}"] for e in EPOCHS} for r in g] for n, g in groups.items()}
    return found | {1: [here]}


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("epoch", EPOCHS)
def test_sample_state_of_2_ranks_is_restored_on_any_number_of_ranks(
    epoch: int, count: int, resumed: Any, two: list[Any], identical: Callable
) -> None:
    written = by_sample([rank["run"]["states"][epoch] for rank in two])
    assert len(written["labeled"]) > 50 and bool(written["unlabeled"]) == (epoch == 3)
    loaded = [rank[epoch]["loaded"] for rank in resumed[count]]
    assert len(loaded) == count
    assert identical(by_sample(loaded), written)
    for state in loaded:
        for part in ("weights", "average"):
            assert identical(state[part], two[0]["run"]["states"][epoch][part])


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("epoch", EPOCHS)
def test_the_run_resumes_with_any_number_of_ranks(
    epoch: int, count: int, resumed: Any, two: list[Any], identical: Callable
) -> None:
    undisturbed = two[0]["run"]["records"]
    for rank in resumed[count]:
        records = rank[epoch]["records"]
        assert identical(rank[epoch]["loaded records"], undisturbed[:epoch])  # seconds included
        assert len(records) == len(undisturbed)
        for found, expected in zip(records, undisturbed, strict=True):
            got, wanted = found["scalars"]["val_map"], expected["scalars"]["val_map"]
            assert got == pytest.approx(wanted, abs=0.005)


@pytest.mark.parametrize("epoch", EPOCHS)
def test_2_interrupted_ranks_equal_2_uninterrupted_ranks_bit_for_bit(
    epoch: int, two: list[Any], identical: Callable
) -> None:
    for rank in two:
        on, whole = rank[f"from {epoch}"], rank["run"]
        assert list(on["states"]) == list(range(epoch + 1, 6))
        for number, state in on["states"].items():
            assert identical(state, whole["states"][number])
        assert identical(
            [timeless(r) for r in on["records"]], [timeless(r) for r in whole["records"]]
        )


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_one_interrupted_process_equals_the_uninterrupted_run_bit_for_bit(
    stop: int, tiny_trainer: Make, tmp_path: Path, identical: Callable
) -> None:
    def session(name: str, records_seen: list[tuple[int, bool]], starts: list[Any]) -> LocalSession:
        return LocalSession(
            tmp_path / name,
            lambda record, old: records_seen.append((record.scalars["epoch"], old)),
            started=lambda checkpoint, defects: starts.append(
                (folders.epoch_of(checkpoint) if checkpoint else 0, defects)
            ),
        )

    whole, records_seen, starts = tiny_trainer(), [], []
    expected = list(run_epochs(whole, session("whole", records_seen, starts)))
    assert records_seen == [(e, False) for e in (1, 2, 3, 4)] and starts == [(0, [])]
    epochs = run_epochs(tiny_trainer(), session("stopped", [], []))
    records = [next(epochs) for _ in range(stop)]
    epochs.close()
    second, records_seen, starts = tiny_trainer(), [], []
    records += run_epochs(second, session("stopped", records_seen, starts))
    assert records_seen == [(e, e <= stop) for e in (1, 2, 3, 4)] and starts == [(stop, [])]
    assert identical(
        [timeless(asdict(r)) for r in records], [timeless(asdict(r)) for r in expected]
    )
    assert identical(second.state_dict(), whole.state_dict())
    assert identical(second.sample_state(), whole.sample_state())


def test_the_epoch_is_in_the_name(tmp_path: Path) -> None:
    for epoch in (1, 99_999, 123_456):
        assert folders.epoch_of(tmp_path / folders.folder_name(epoch)) == epoch
    for name in ("epoch-12", "model", ".epoch-00001.new"):
        with pytest.raises(ValueError, match="not named like a checkpoint"):
            folders.epoch_of(tmp_path / name)


def keep(parent: Path, epoch: int, trainer: Trainer, best: int) -> None:
    """A checkpoint of an epoch, whose trainer has ``best`` as best epoch."""
    trainer.epoch, choice = epoch, trainer.weight_choice
    choice.last_map, choice.fallback = 0.0, None
    if best != epoch:
        network = trainer.average.module.state_dict()
        scoring = trainer.method.scoring_state()
        choice.fallback = KeptWeights.of(best, 1.0, choice.last_logits, network, scoring)
    record = EpochRecord({"epoch": epoch}, {"threshold": [epoch / 10] * 10})
    folders.save_part(parent / folders.folder_name(epoch), trainer, [record])


@pytest.mark.parametrize("last", [1, 2])
def test_tidying_keeps_the_best_and_the_last_and_publishes_the_best_model(
    last: int, tiny_trainer: Make, tmp_path: Path, identical: Callable
) -> None:
    trainer, best = tiny_trainer(epochs=9), 0
    for epoch in range(1, 7):
        best = epoch if epoch in (1, 3) else best
        trainer.run_epoch() if epoch in (1, 3) else None
        keep(tmp_path, epoch, trainer, best)
        folders.tidy(tmp_path, last, best)
        if epoch == 3:
            weights = {k: v.clone() for k, v in trainer.average.module.state_dict().items()}
            trainer.average.module.requires_grad_(False).head.weight.add_(1)
        names = {p.name for p in tmp_path.iterdir()}
        stay = {epoch - back for back in range(last) if epoch > back} | {best}
        assert names == {"model", *map(folders.folder_name, stay)}
        assert read_thresholds(tmp_path / "model") == [best / 10] * 10
        assert (tmp_path / folders.folder_name(epoch) / "model").exists() == (best == epoch)
    fresh = tiny_trainer()
    load_weights(tmp_path / "model", fresh)
    assert identical(dict(fresh.average.module.state_dict()), weights)


def test_the_best_model_is_published_although_a_newer_checkpoint_is_damaged(
    tiny_trainer: Make, tmp_path: Path
) -> None:
    """The run resumed from epoch 1, since 5 is damaged, and 2 is its best so far."""
    trainer = tiny_trainer()
    trainer.run_epoch()
    keep(tmp_path, 1, trainer, 1)
    folders.tidy(tmp_path, 1, 1)
    (tmp_path / "epoch-00005").mkdir()
    keep(tmp_path, 2, trainer, 2)
    folders.tidy(tmp_path, 1, 2)
    assert read_thresholds(tmp_path / "model") == [0.2] * 10
    assert folders.latest_valid(tmp_path)[0] == tmp_path / "epoch-00002"
