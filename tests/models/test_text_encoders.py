"""Text encoders: neither padding nor the other texts of a batch change a result."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bbam_ray.errors import UsageError
from bbam_ray.models import Network, build_network, check_backbone
from bbam_ray.models.text_encoders import encoder_of, mean_of_present, pretrained_encoder

VOCABULARY, LONGEST = 60, 48


@pytest.fixture(scope="module")
def bert(tiny_bert: Path) -> Path:
    return tiny_bert


def network(backbone: str, bert: Path) -> Network:
    torch.manual_seed(0)
    weights = str(bert) if backbone == "transformer" else "none"
    return build_network(
        backbone,
        (LONGEST,),
        4,
        hidden_dim=16,
        feature_dim=8,
        weights=weights,
        vocabulary=VOCABULARY,
    ).eval()


def texts(count: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(1)
    lengths = torch.randint(2, LONGEST + 1, (count,), generator=g).tolist()
    return [torch.randint(5, VOCABULARY, (n,), generator=g, dtype=torch.int32) for n in lengths]


def batch(rows: list[Tensor], width: int) -> Tensor:
    return torch.stack([torch.nn.functional.pad(r, (0, width - len(r)), value=-1) for r in rows])


@pytest.mark.parametrize("backbone", ["tiny-text", "transformer"])
class TestEveryEncoder:
    @torch.no_grad()
    def test_a_text_scores_the_same_in_any_batch(self, backbone: str, bert: Path) -> None:
        model, rows = network(backbone, bert), texts(12)
        together = model(batch(rows, LONGEST))
        for place, row in enumerate(rows):
            alone = model(row[None])
            wider = model(batch([row, *rows[:3]], LONGEST))
            for found in (alone, tuple(t[:1] for t in wider)):
                for single, all_ in zip(found, together, strict=True):
                    torch.testing.assert_close(single[0], all_[place], atol=1e-5, rtol=0)

    @torch.no_grad()
    def test_absent_tokens_are_ignored_and_others_are_not(self, backbone: str, bert: Path) -> None:
        model, (row,) = network(backbone, bert), texts(1)
        tokens = batch([row], LONGEST)
        before = model(tokens)[0]
        other = tokens.clone()
        other[0, 1] = 6 + (other[0, 1] - 5) % (VOCABULARY - 6)
        assert not torch.allclose(model(other)[0], before, atol=1e-4)
        gone = tokens.clone()
        gone[0, 1] = -1
        assert not torch.allclose(model(gone)[0], before, atol=1e-4)

    def test_a_gradient_reaches_the_encoder(self, backbone: str, bert: Path) -> None:
        model = network(backbone, bert).train()
        _, cosine = model(batch(texts(4), LONGEST))
        cosine.square().sum().backward()
        used = [p.grad.abs().sum() for p in model.backbone.parameters() if p.grad is not None]
        assert len(used) > 10 and all(bool(torch.isfinite(g)) for g in used)


def test_a_mean_of_nothing_is_zero() -> None:
    hidden = torch.randn(2, 3, 4)
    present = torch.tensor([[True, False, True], [False, False, False]])
    found = mean_of_present(hidden, present)
    torch.testing.assert_close(found[0], hidden[0, [0, 2]].mean(0))
    assert not found[1].any()


def test_an_encoder_is_built_again_from_its_description(bert: Path) -> None:
    first = pretrained_encoder(str(bert)).eval()
    again = encoder_of(first.architecture()).eval()
    again.load_state_dict(first.state_dict())
    tokens = batch(texts(3), LONGEST)
    with torch.no_grad():
        torch.testing.assert_close(again(tokens), first(tokens))
    with pytest.raises(UsageError, match="cannot be built"):
        encoder_of('{"model_type": "no such type"}')


@pytest.mark.parametrize(
    ("backbone", "weights", "length", "message"),
    [
        ("transformer", "none", 16, "needs weights"),
        ("transformer", "no/such-encoder", 16, "hf download no/such-encoder"),
        ("transformer", "BERT", 4096, "max_length=64"),
        ("tiny-text", "BERT", 16, "no pretrained weights; use --set weights=none"),
        ("mlp", "none", 16, "does not take texts; use --set backbone=tiny-text or transformer"),
    ],
)
def test_a_bad_combination_is_an_error_before_training(
    backbone: str, weights: str, length: int, message: str, bert: Path
) -> None:
    weights = str(bert) if weights == "BERT" else weights
    with pytest.raises(UsageError, match=message):
        check_backbone(backbone, weights, (length,), VOCABULARY)


def test_text_backbones_take_only_texts() -> None:
    with pytest.raises(UsageError, match="does not take feature vectors"):
        check_backbone("tiny-text", "none", (16,))
    with pytest.raises(UsageError, match="does not take images"):
        check_backbone("tiny-text", "none", (3, 16, 16))


def test_weights_that_could_contain_code_are_not_loaded(bert: Path, tmp_path: Path) -> None:
    """Only safetensors are read; a pickle in the folder is ignored."""
    (tmp_path / "config.json").write_text((bert / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UsageError, match="cannot be loaded"):
        pretrained_encoder(str(tmp_path))
