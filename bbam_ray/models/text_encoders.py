"""Encoders of texts: token numbers (B, L) to the mean of their hidden states (B, width).

Places with a negative number are absent: nothing attends to them and the mean leaves them out, so that
neither padding nor other texts of a batch change a result.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbam_ray.errors import UsageError
from bbam_ray.optional import needed
from bbam_ray.pretrained import hub_folder

TEXT_BACKBONES = ("tiny-text", "transformer")


def masked_batch_mean(hidden: Tensor, present: Tensor) -> Tensor:
    """Mean of (B, L, W) over the places that are present (B, L); zero where none is."""
    weight = present.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)


class _Layer(nn.Module):
    """Attention and a small network, each added to what comes in; norms first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.network_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.network = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, hidden: Tensor, present: Tensor) -> Tensor:
        """(B, L, W) and which places are there (B, L) to (B, L, W)."""
        parts = self.queries_keys_values(self.attention_norm(hidden)).chunk(3, dim=-1)
        query, key, value = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in parts)
        mask = present[:, None, None, :]
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        hidden = hidden + self.attended(found.transpose(1, 2).flatten(2))
        added: Tensor = hidden + self.network(self.network_norm(hidden))
        return added


class TinyText(nn.Module):
    """Two layers of four heads, 128 wide, from scratch; no dropout, since the strong view drops tokens.

    Args:
        vocabulary: number of tokens.
        max_length: of a text, in tokens.
    """

    width = 128

    def __init__(self, vocabulary: int, max_length: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, self.width)
        self.places = nn.Parameter(0.02 * torch.randn(max_length, self.width))
        self.layers = nn.ModuleList(_Layer(self.width, heads=4) for _ in range(2))
        self.norm = nn.LayerNorm(self.width)

    def forward(self, tokens: Tensor) -> Tensor:
        present = tokens >= 0
        # Looked up, not sliced: an exported program would take the full length for another case.
        place = torch.arange(tokens.shape[1], device=tokens.device)
        hidden = self.tokens(tokens.clamp_min(0)) + F.embedding(place, self.places)
        for layer in self.layers:
            hidden = layer(hidden, present)
        return masked_batch_mean(self.norm(hidden), present)


class HubEncoder(nn.Module):
    """An encoder of the library transformers.

    Args:
        model: what ``AutoModel`` gives.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.width = int(model.config.hidden_size)

    def architecture(self) -> str:
        """JSON from which ``encoder_of`` builds it again, without weights."""
        described: str = json.dumps(self.model.config.to_dict(), default=str)
        return described

    def forward(self, tokens: Tensor) -> Tensor:
        present = tokens >= 0
        output = self.model(input_ids=tokens.clamp_min(0).long(), attention_mask=present.long())
        return masked_batch_mean(output.last_hidden_state, present)


def pretrained_encoder(weights: str) -> HubEncoder:
    """From a folder or the hub's local cache; safetensors only, and no code of others.

    Raises:
        UsageError: not there, or not to be loaded.
    """
    library = needed("transformers", "text", "backbone 'transformer'")
    folder = hub_folder(weights, "weights")
    try:
        return HubEncoder(
            library.AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        )
    except Exception as error:  # the library fails in every way there is
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"weights = '{weights}': cannot be loaded ({reason})") from None


def encoder_of(architecture: str) -> HubEncoder:
    """An encoder with random weights, described by ``HubEncoder.architecture``."""
    library = needed("transformers", "text", "backbone 'transformer'")
    values = json.loads(architecture)
    try:
        config = library.AutoConfig.for_model(**values)
        return HubEncoder(library.AutoModel.from_config(config))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"the encoder cannot be built ({reason}); copy the model again") from None


def check_length(weights: str, max_length: int) -> None:
    """Raise a UsageError if a pretrained encoder has fewer places than texts may have tokens."""
    library = needed("transformers", "text", "backbone 'transformer'")
    folder = hub_folder(weights, "weights")
    try:
        config = library.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the library fails in every way there is
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"weights = '{weights}': cannot be loaded ({reason})") from None
    places = getattr(config, "max_position_embeddings", None)
    if places is not None and 0 < places < max_length:
        raise UsageError(
            f"max_length = {max_length}: {weights} has {places} places; use --set max_length={places}"
        )
