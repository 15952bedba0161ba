"""Every method on texts, with the small encoder and with a pretrained one."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import UsageError
from bbam_ray.methods import METHODS, run_config
from bbam_ray.methods.fitted import FittedMethod
from bbam_ray.methods.method import concat_views

Make = Callable[..., Trainer]


@pytest.mark.parametrize(
    "method", [name for name, method in METHODS.items() if not issubclass(method, FittedMethod)]
)
class TestMethodOnTexts:
    def test_it_trains_through_both_phases(self, method: str, text_trainer: Make) -> None:
        trainer = text_trainer(method=method)
        before = trainer.model.backbone.tokens.weight.clone()
        for _ in range(4):
            record = trainer.run_epoch()
            assert np.isfinite(record.scalars["loss"]) and 0 <= record.scalars["val_map"] <= 1
        assert not torch.equal(before, trainer.model.backbone.tokens.weight)

    def test_it_resumes_where_it_was_saved(
        self, method: str, text_trainer: Make, figures: Callable, identical: Callable
    ) -> None:
        first = text_trainer(method=method)
        for _ in range(3):
            first.run_epoch()
        state, samples = deepcopy((first.state_dict(), first.sample_state()))
        again = text_trainer(method=method)
        again.load_state_dict(state)
        again.load_sample_state([samples])
        assert identical(figures(first.run_epoch()), figures(again.run_epoch()))


def test_scores_do_not_depend_on_the_evaluation_batch(text_trainer: Make) -> None:
    first, second = text_trainer(evaluation_batch=7), text_trainer(evaluation_batch=500)
    rows = np.random.default_rng(0).permutation(len(first.data.inputs))
    torch.testing.assert_close(
        first.score(first.data.inputs, rows),
        second.score(second.data.inputs, rows),
        atol=1e-5,
        rtol=0,
    )
    one = torch.cat([first.score(first.data.inputs, rows[[n]]) for n in range(5)])
    torch.testing.assert_close(one, first.score(first.data.inputs, rows)[:5], atol=1e-5, rtol=0)


def test_evaluation_groups_texts_of_similar_length(
    text_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work is counted in tokens of the batches, padding included."""
    trainer = text_trainer(evaluation_batch=16, max_length=96)
    widths: list[int] = []
    forward = trainer.average.module.backbone.forward

    def counted(tokens: torch.Tensor) -> Any:
        widths.append(tokens.numel())
        return forward(tokens)

    monkeypatch.setattr(trainer.average.module.backbone, "forward", counted)
    rows = np.arange(len(trainer.data.inputs))
    trainer.score(trainer.data.inputs, rows)
    lengths = trainer.data.inputs.lengths
    ideal = sum(16 * -(-int(n) // 16) for n in lengths)
    assert ideal <= sum(widths) <= 1.25 * ideal
    assert sum(widths) < len(rows) * trainer.data.input_shape[0]


def test_shorter_texts_are_padded_when_batches_are_concatenated() -> None:
    short, long = torch.ones(2, 16, dtype=torch.int32), torch.ones(3, 48, dtype=torch.int32)
    both = concat_views(short, long)
    assert both.shape == (5, 48) and (both[:2, 16:] == -1).all() and (both[2:] == 1).all()
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(concat_views(images, images), torch.cat([images, images]))


@pytest.mark.parametrize("method", ["bbam", "softmatch"])
def test_a_pretrained_encoder_is_trained_with_its_own_tokenizer(
    method: str, text_trainer: Make, tiny_bert: Path
) -> None:
    trainer = text_trainer(method=method, backbone="transformer", weights=str(tiny_bert))
    assert trainer.data.views.tokenizer == (tiny_bert / "tokenizer.json").read_text()
    assert trainer.config.data.tokenizer == str(tiny_bert)
    before = trainer.model.backbone.model.embeddings.word_embeddings.weight.clone()
    for _ in range(3):
        assert np.isfinite(trainer.run_epoch().scalars["loss"])
    assert not torch.equal(before, trainer.model.backbone.model.embeddings.word_embeddings.weight)


def test_both_groups_follow_the_schedule_with_their_own_share(text_trainer: Make) -> None:
    trainer = text_trainer(backbone_rate=0.1)
    for _ in range(3):
        record = trainer.run_epoch()
        encoder, head = trainer.optimizer.param_groups
        assert encoder["lr"] == pytest.approx(0.1 * head["lr"])
        assert record.scalars["lr"] == head["lr"]
    again = text_trainer(backbone_rate=0.1)
    again.load_state_dict(deepcopy(trainer.state_dict()))
    again.load_sample_state([trainer.sample_state()])
    again.run_epoch()
    encoder, head = again.optimizer.param_groups
    assert encoder["lr"] == pytest.approx(0.1 * head["lr"]) and head["lr"] != record.scalars["lr"]


def test_a_slower_encoder_moves_less(text_trainer: Make) -> None:
    moved = []
    for share in (1.0, 0.01):
        trainer = text_trainer(backbone_rate=share)
        before = trainer.model.backbone.places.detach().clone()
        trainer.run_epoch()
        moved.append(float((trainer.model.backbone.places.detach() - before).abs().mean()))
    assert moved[1] < 0.1 * moved[0]


def test_a_trained_tokenizer_for_a_pretrained_encoder_must_be_set_explicitly() -> None:
    values = {"dataset": "text", "backbone": "transformer", "weights": "somewhere"}
    assert run_config(values, "test").data.tokenizer == "somewhere"
    assert run_config({**values, "tokenizer": "trained"}, "test").data.tokenizer == "trained"
    assert run_config({"dataset": "text"}, "test").data.tokenizer is None
    without = {"dataset": "text", "backbone": "transformer"}
    assert (
        run_config(without, "test").data.tokenizer is None
    )  # the error is about the missing weights
    with pytest.raises(UsageError, match="unknown setting 'tokenizer'"):
        run_config({"dataset": "digits", "tokenizer": "trained"}, "test")
