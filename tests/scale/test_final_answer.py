"""Out-of-fold scores in the folder of a study, and the choice of the final answer from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bbam_ray.core.metrics import average_precision
from bbam_ray.engine.confirm import Decisions
from bbam_ray.engine.folds import FoldResult, FoldWeights, files_of, without_files, write_files
from bbam_ray.engine.kept_weights import difference_error
from bbam_ray.results.schemas import COMPLETE, PRUNED
from bbam_ray.results.store import StudyStore
from bbam_ray.scale.search.outcomes import trial_id
from bbam_ray.scale.search.space import Space
from bbam_ray.scale.study.final_answer import (
    Bag,
    FinalAnswer,
    choose_answer,
    decisions_of,
    ensemble_scores,
)
from bbam_ray.scale.study.final_kinds import Final
from bbam_ray.scale.study.fold_store import KEPT_TRIALS, FoldStore, paired_error

POOL, WIDTH, FOLDS = 60, 3, 3
ROWS = np.sort(np.random.default_rng(0).choice(500, POOL, replace=False))
LABELS = (np.random.default_rng(1).random((POOL, WIDTH)) < 0.4).astype(np.uint8)
SPACE = Space.model_validate(
    {"parameters": {"margin": {"type": "float", "low": 0, "high": 1}}, "published": {"margin": 0}}
)


def scores(noise: float, seed: int, scale: float = 1.0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(POOL, WIDTH))
    return (scale * (LABELS + noise * drawn) + 3 * scale).astype(np.float32)


def results(last: np.ndarray, warmup: np.ndarray | None = None) -> list[FoldResult]:
    """Folds whose rows are interleaved."""
    folds = []
    for fold in range(FOLDS):
        part = np.arange(fold, POOL, FOLDS)
        files = {"model.safetensors": bytes([fold]), "sub/x.json": b"{}"}
        weights = {"last": FoldWeights(8, last[part], files, 0.01 * fold)}
        if warmup is not None:
            weights["warmup"] = FoldWeights(2, warmup[part], {"w": b"w"}, 0.5)
        folds.append(FoldResult(fold, ROWS[part], LABELS[part], weights))
    return folds


def bag(name: str, values: np.ndarray, *, baseline: bool = False) -> Bag:
    return Bag.of(name, "last", results(values), is_baseline=baseline)


def same(a: FoldResult, b: FoldResult) -> bool:
    return (
        a.fold == b.fold
        and np.array_equal(a.rows, b.rows)
        and np.array_equal(a.labels, b.labels)
        and a.weights.keys() == b.weights.keys()
        and all(
            w.epoch == b.weights[phase].epoch
            and w.standard_error == b.weights[phase].standard_error
            and np.array_equal(w.logits, b.weights[phase].logits)
            and w.files == b.weights[phase].files
            for phase, w in a.weights.items()
        )
    )


@pytest.fixture()
def fold_store(tmp_path: Path) -> FoldStore:
    (tmp_path / "study").mkdir()
    return FoldStore(StudyStore(tmp_path / "study", {}))


# ---------------------------------------------------------------- the store


def test_a_result_is_read_as_it_was_written_but_without_its_models(fold_store: FoldStore) -> None:
    written = results(scores(0.5, 0), scores(0.9, 1))
    for result in written:
        fold_store.write("t00003", result)
    for result in written:
        read = fold_store.read("t00003", result.fold)
        assert read is not None and same(read, without_files(result))
        model = fold_store.model("t00003", result.fold, "last")
        assert files_of(model) == result.weights["last"].files
        assert files_of(fold_store.model("t00003", result.fold, "warmup")) == {"w": b"w"}
    assert fold_store.read("t00003", FOLDS) is None
    assert fold_store.read("t00004", 0) is None


def test_writing_again_replaces_everything(fold_store: FoldStore) -> None:
    fold_store.write("a", results(scores(0.5, 0), scores(0.9, 1))[0])
    again = without_files(results(scores(0.5, 7))[0])
    fold_store.write("a", again)
    read = fold_store.read("a", 0)
    assert read is not None and same(read, again)
    assert not fold_store.model("a", 0, "last").exists()
    assert not fold_store.model("a", 0, "warmup").exists()


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + bytes(byte ^ 0xFF for byte in content[at : at + 40]) + content[at + 40 :]


@pytest.mark.parametrize("damage", [cut, flipped, lambda content: b"", lambda content: b"no zip"])
def test_a_damaged_file_counts_as_missing(
    damage: Callable[[bytes], bytes], fold_store: FoldStore
) -> None:
    fold_store.write("a", results(scores(0.5, 0))[1])
    path = fold_store.folder("a", 1) / "scores.npz"
    path.write_bytes(damage(path.read_bytes()))
    assert fold_store.read("a", 1) is None


def test_no_flipped_byte_raises_or_changes_scores(fold_store: FoldStore) -> None:
    written = without_files(results(scores(0.5, 0))[1])
    fold_store.write("a", written)
    path = fold_store.folder("a", 1) / "scores.npz"
    content = path.read_bytes()
    missing = 0
    for at in range(0, len(content), 3):
        for flip in (0x01, 0x80, 0xFF):
            path.write_bytes(content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :])
            read = fold_store.read("a", 1)
            assert read is None or same(read, written), (at, flip)  # some bytes have no meaning
            missing += read is None
    assert missing > len(content) / 2


def test_scores_of_another_kind_count_as_missing(fold_store: FoldStore) -> None:
    fold_store.write("a", results(scores(0.5, 0))[1])
    path = fold_store.folder("a", 1) / "scores.npz"
    with path.open("wb") as file:
        np.savez(file, rows=np.arange(3))
    assert fold_store.read("a", 1) is None
    with path.open("wb") as file:
        np.save(file, np.arange(3))
    assert fold_store.read("a", 1) is None


def test_folds_of_another_study_are_copied_unless_there_are_some(
    fold_store: FoldStore, tmp_path: Path
) -> None:
    fold_store.write("t00001", results(scores(0.5, 0))[0])
    source = fold_store.folder("t00001", 0).parent
    (tmp_path / "other").mkdir()
    other = FoldStore(StudyStore(tmp_path / "other", {}))
    other.copy(source, "t00009")
    copied, original = other.read("t00009", 0), fold_store.read("t00001", 0)
    assert copied is not None and original is not None and same(copied, original)
    assert files_of(other.folder("t00009", 0)) == files_of(fold_store.folder("t00001", 0))
    fold_store.write("t00001", results(scores(0.5, 5))[0])
    other.copy(source, "t00009")
    unchanged = other.read("t00009", 0)
    assert unchanged is not None and same(unchanged, copied)
    other.copy(tmp_path / "nothing", "t00010")
    assert not other.folder("t00010", 0).parent.exists()


def test_models_are_kept_of_the_best_trials_and_of_the_published_settings(
    fold_store: FoldStore,
) -> None:
    values = {number: number / 10 for number in range(KEPT_TRIALS + 3)}
    trials: list[dict[str, Any]] = [
        {"trial_id": trial_id(n), "number": n, "state": COMPLETE, "val_map": v}
        for n, v in values.items()
    ]
    trials[-1]["state"] = PRUNED
    for row in trials:
        fold_store.write(row["trial_id"], results(scores(0.5, row["number"]))[0])
    fold_store.write("logistic", results(scores(0.5, 0))[0])
    rows = fold_store.keep_models(trials, SPACE)
    kept = {n for n in values if fold_store.model(trial_id(n), 0, "last").is_dir()}
    last = KEPT_TRIALS + 1
    assert kept == {0, *range(last - KEPT_TRIALS + 1, last + 1)} == {row["number"] for row in rows}
    assert all(fold_store.read(trial_id(n), 0) is not None for n in values)
    assert fold_store.model("logistic", 0, "last").is_dir()


def test_the_paired_error_of_two_trials_is_that_of_their_scores(fold_store: FoldStore) -> None:
    first = results(scores(0.5, 0))[0]
    second = results(scores(0.9, 1), warmup=scores(0.7, 2))[0]
    fold_store.write(trial_id(4), first)
    fold_store.write(trial_id(7), second)
    labels = torch.from_numpy(first.labels)
    before = torch.from_numpy(first.weights["last"].logits)
    for phase in ("last", "warmup"):
        after = torch.from_numpy(second.weights[phase].logits)
        expected = difference_error(before, after, labels)
        error = paired_error(fold_store, {4: "last", 5: "last", 7: phase})
        assert error(4, 7) == expected and expected > 0
        assert error(4, 5) is None


def test_trials_with_other_validation_samples_have_the_errors_of_both(
    fold_store: FoldStore,
) -> None:
    first, second = results(scores(0.5, 0))[:2]
    fold_store.write(trial_id(4), replace(first, weights=with_error(first, 0.03)))
    fold_store.write(trial_id(7), replace(second, fold=0, weights=with_error(second, 0.04)))
    error = paired_error(fold_store, {4: "last", 7: "last"})
    assert error(4, 7) == pytest.approx(0.05)


def with_error(result: FoldResult, error: float) -> dict[str, FoldWeights]:
    return {name: replace(w, standard_error=error) for name, w in result.weights.items()}


def test_files_round_trip_with_their_folders(tmp_path: Path) -> None:
    files = {"a.bin": b"\x00\x01", "deep/er/b.txt": b""}
    write_files(files, tmp_path / "new")
    assert files_of(tmp_path / "new") == files


# ---------------------------------------------------------------- the answer


def test_a_bag_joins_the_folds_in_the_order_of_rows() -> None:
    values = scores(0.5, 0)
    joined = Bag.of("t00001", "last", results(values)[::-1])
    assert np.array_equal(joined.rows, ROWS)
    assert np.array_equal(joined.labels.numpy(), LABELS)
    assert np.array_equal(joined.scores.numpy(), values)
    assert joined.map == pytest.approx(
        float(average_precision(joined.scores, joined.labels).mean())
    )


def test_a_bag_has_the_weights_of_its_phase_where_a_fold_has_them() -> None:
    last, warmup = scores(0.5, 0), scores(0.9, 1)
    folds = [*results(last, warmup)[:2], results(last)[2]]
    joined = Bag.of("t", "warmup", folds)
    for position in range(POOL):
        expected = last if position % FOLDS == 2 else warmup
        assert np.array_equal(joined.scores[position].numpy(), expected[position])


@pytest.mark.parametrize("kind", [Final.single, Final.ensemble, Final.soup])
def test_only_best_has_members_besides_the_chosen_trial(kind: Final) -> None:
    bags = [bag("t00003", scores(2.0, 0)), bag("logistic", scores(0.2, 1), baseline=True)]
    answer = choose_answer(kind, bags)
    assert answer == FinalAnswer(kind, "t00003", {"t00003": 1.0}, bags[0].map)
    assert answer.content() == {
        "kind": str(kind),
        "trial": "t00003",
        "members": {"t00003": 1.0},
        "val_map_out_of_fold": bags[0].map,
    }


def test_best_is_a_mixture_that_is_no_worse_than_any_part() -> None:
    """Equally good members with independent errors, of very different scales."""
    bags = [bag(f"t{n}", scores(1.0, n, scale=10.0**n)) for n in range(3)]
    answer = choose_answer(Final.best, bags)
    assert set(answer.weights) == {"t0", "t1", "t2"} and answer.trial == "t0"
    assert sum(answer.weights.values()) == pytest.approx(1)
    assert answer.map > max(each.map for each in bags)
    combined = ensemble_scores(answer, bags)
    assert float(average_precision(combined, bags[0].labels).mean()) == pytest.approx(answer.map)


def test_best_leaves_out_a_member_without_use() -> None:
    useless = np.random.default_rng(5).normal(size=(POOL, WIDTH)).astype(np.float32)
    bags = [bag("good", scores(0.4, 0)), bag("useless", useless)]
    answer = choose_answer(Final.best, bags)
    assert answer.weights == {"good": pytest.approx(1)}
    swapped = choose_answer(Final.best, bags[::-1])
    assert swapped.trial == "useless" and swapped.weights == {"good": pytest.approx(1)}
    assert choose_answer(Final.best, bags[:1]).weights == {"good": 1.0}


def naive_sum(weights: dict[str, float], bags: list[Bag]) -> Tensor:
    total = np.zeros((POOL, WIDTH))
    for each in bags:
        values = each.scores.double().numpy()
        for row in range(POOL):
            for label in range(WIDTH):
                column = values[:, label]
                z = (values[row, label] - column.mean()) / column.std()
                total[row, label] += weights.get(each.name, 0.0) * z
    return torch.from_numpy(total)


def test_scores_of_an_answer_are_a_weighted_sum_of_standardised_scores() -> None:
    bags = [bag("a", scores(0.4, 0)), bag("b", scores(0.8, 1, 100.0)), bag("c", scores(0.8, 2))]
    answer = FinalAnswer(Final.best, "a", {"a": 0.75, "b": 0.25}, 0.0)
    torch.testing.assert_close(ensemble_scores(answer, bags), naive_sum(answer.weights, bags))


@pytest.mark.parametrize("kind", list(Final))
def test_decisions_come_from_the_scores_that_the_model_will_have(kind: Final) -> None:
    """Single models and averages of weights have the scale of logits, ensembles a standard one."""
    bags = [bag("a", scores(0.4, 0, 5.0)), bag("b", scores(0.8, 1))]
    weights = {"a": 0.5, "b": 0.5} if kind is Final.best else {"a": 1.0}
    answer = FinalAnswer(kind, "a", weights, 0.0)
    plain = kind in (Final.single, Final.soup)
    expected = bags[0].scores if plain else ensemble_scores(answer, bags)
    assert decisions_of(answer, bags) == Decisions.of(expected, bags[0].labels)
    assert (np.mean(decisions_of(answer, bags).thresholds) > 10) == plain
