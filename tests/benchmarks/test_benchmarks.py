"""The benchmarks at toy size: both implementations do the same work, and stored rows become a table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bbam_ray.core.metrics import measures
from bbam_ray.data.views.images import Views
from benchmarks import method_cost, scaling, validation, views
from benchmarks.__main__ import table
from benchmarks.epoch import PlainJob, make_trainer, voc_like
from benchmarks.measure import (
    Measured,
    SeparateProcess,
    alternate,
    append,
    extra_memory,
    last_measured,
    latest,
)
from benchmarks.page import write_section
from benchmarks.step import PreparedSteps, network_steps


def test_the_plain_epoch_takes_the_expected_steps_and_learns(tmp_path: Path) -> None:
    with voc_like(80) as root:
        trainer = make_trainer(root, image_size=32)
        job = PlainJob.like(trainer, root, 32, strong_in_refresh=True)
        plain = job.make()
        before = [p.clone() for p in plain.model.parameters()]
        steps = plain.run()
        assert steps == -(-len(trainer.data.unlabeled) // 30) == len(plain.losses)
        assert any(
            not torch.equal(a, b) for a, b in zip(before, plain.model.parameters(), strict=True)
        )
        record = trainer.run_epoch().scalars
        assert record["loss"] > 0 and plain.losses[-1] > 0


def test_prepared_steps_equal_those_of_the_epoch() -> None:
    with voc_like(70) as root:
        trainer = make_trainer(root, image_size=32)
        trainer.run_epoch()
        prepared = PreparedSteps(trainer._steps(1, main_phase=True), 2)
        # 63 unlabelled images in three steps of 21, each with 2 labelled ones.
        assert len(prepared) == 2 and [len(x) for x in prepared.inputs] == [23, 23]
        first = next(iter(prepared))
        assert first.labeled.view("strong") is first.labeled.view("strong")  # made once
        losses = trainer.take_steps(prepared, main_phase=True)  # type: ignore[arg-type]
        assert losses["loss"] > 0
        optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=1e-3)
        weight = trainer.model.head.weight.clone()
        network_steps(trainer, prepared.inputs, optimizer)
        assert not torch.equal(weight, trainer.model.head.weight)


def test_metrics_equal_those_of_scikit_learn() -> None:
    scores, labels = validation.draw(300, 12)
    ours = measures(scores, labels, 0.0)
    plain = validation.plain_metrics(scores, labels)
    for name, value in plain.items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name
    assert set(ours) - set(plain) == {"map_absent_zero"}


def test_both_strong_views_are_made_of_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int]] = []
    strong = Views.strong

    def watched(self: Views, *arguments: torch.Tensor) -> torch.Tensor:
        view = strong(self, *arguments)
        made.append((self.settings.strong_view, len(view)))
        return view

    monkeypatch.setattr(Views, "strong", watched)
    row = views.measured(2, 3, 32, rounds=1)
    assert made == [("affine", 3), ("affine", 3), ("uda", 3), ("uda", 3)] * 2  # once to warm up
    assert row.ratio == row.plain_s / row.ours_s
    assert row.details["ms_per_image"] == pytest.approx(1e3 * row.ours_s / 6)


def test_scaling_reports_memory_and_traffic() -> None:
    measured = scaling.at(2_000, 20, 1)
    assert measured.details["sent_mb"] == pytest.approx(scaling.bytes_sent(20, 64) / 1e6)
    assert scaling.bytes_sent(40, 64) == 2 * scaling.bytes_sent(20, 64)


def test_the_newest_row_of_each_case_is_shown(tmp_path: Path) -> None:
    store, page = tmp_path / "m.parquet", tmp_path / "page.md"
    append([Measured("a", "x", 2.0, 1.0, 2.0, 5), Measured("b", "y", None, None, None, 0)], store)
    append([Measured("a", "x", 3.0, 1.0, 3.0, 5, {"memory_mb": 1.5})], store)
    assert len(latest(store)) == 2
    text = table(store)
    assert "| a | x | 3 s | 1 s | 3.00 | 5 | memory mb 1.5 |" in text
    page.write_text("<!-- measurements -->\nold\n<!-- /measurements -->\n", encoding="utf-8")
    write_section(page, "measurements", text)
    assert "3.00" in page.read_text() and "old" not in page.read_text()


def test_a_case_that_is_no_longer_measured_says_since_when(tmp_path: Path) -> None:
    store = tmp_path / "m.parquet"
    append([Measured("a", "x", None, 1.0, None, 5)], store)
    append(
        [Measured("a", "x", None, None, None, 0), Measured("a", "y", None, None, None, 0)], store
    )
    (since,) = last_measured(store).values()
    commit, day = since.split(", ")
    assert len(commit) in (7, 9) and day.count("-") == 2
    text = table(store)
    assert f"| a | x |  | not measured since {since} |" in text
    assert "| a | y |  | not measured, never before |" in text


def test_memory_is_the_peak_of_tensors_that_exist_at_the_same_time() -> None:
    def work() -> None:
        for _ in range(3):
            torch.ones(250_000)  # a million bytes, three times one after the other

    assert 1_000_000 <= extra_memory(work) < 1_200_000


def test_runs_alternate_and_a_separate_process_reports_errors() -> None:
    order: list[str] = []
    timed = alternate(lambda: order.append("plain"), lambda: order.append("ours"), 3)
    assert order == ["plain", "ours"] * 4 and timed["rounds"] == 3
    other = SeparateProcess(_failing)
    with pytest.raises(ValueError, match="on purpose"):
        other()
    other.end()


def _failing() -> object:
    def work() -> None:
        raise ValueError("on purpose")

    return work


def test_the_cost_of_an_epoch_is_measured_for_every_method_that_has_epochs() -> None:
    seconds = method_cost.seconds_per_epoch(rounds=1, methods=["supervised", "dicap", "logistic"])
    assert seconds.keys() == {"supervised", "dicap"}  # logistic regression is fitted at once
    assert seconds["dicap"] > seconds["supervised"] > 0
