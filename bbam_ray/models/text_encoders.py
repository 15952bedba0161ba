"""Text encoders: map tokens (B, L) to the mean of their hidden states (B, width).

A negative token is absent: nothing attends to it and the mean leaves it out, so that neither padding nor
the other texts of a batch change a result.
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


def mean_of_present(hidden: Tensor, present: Tensor) -> Tensor:
    """Mean of the hidden states of the present tokens.

    Args:
        hidden: (B, L, W).
        present: (B, L) bool.

    Returns:
        (B, W); zero for a text without present tokens.
    """
    weight = present.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)


class _Layer(nn.Module):
    """A pre-norm transformer layer: self-attention and a feed-forward network, both residual."""

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
        """Map hidden states (B, L, W) and present (B, L) bool to (B, L, W)."""
        parts = self.queries_keys_values(self.attention_norm(hidden)).chunk(3, dim=-1)
        query, key, value = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in parts)
        mask = present[:, None, None, :]
        attention = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        hidden = hidden + self.attended(attention.transpose(1, 2).flatten(2))
        output: Tensor = hidden + self.network(self.network_norm(hidden))
        return output


class TinyText(nn.Module):
    """A transformer of two layers with four heads and width 128, without pretrained weights.

    It has no dropout, because the strong view drops tokens.

    Args:
        vocabulary: number of distinct tokens.
        max_length: longest text, in tokens.
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
        # A lookup, not a slice: an exported program would treat the full length as a special case.
        position = torch.arange(tokens.shape[1], device=tokens.device)
        hidden = self.tokens(tokens.clamp_min(0)) + F.embedding(position, self.places)
        for layer in self.layers:
            hidden = layer(hidden, present)
        return mean_of_present(self.norm(hidden), present)


class HubEncoder(nn.Module):
    """A text encoder from the library transformers.

    Args:
        model: an encoder built by ``AutoModel``.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.width = int(model.config.hidden_size)

    def architecture(self) -> str:
        """JSON from which ``encoder_of`` builds the same encoder with random weights."""
        described: str = json.dumps(self.model.config.to_dict(), default=str)
        return described

    def forward(self, tokens: Tensor) -> Tensor:
        present = tokens >= 0
        output = self.model(input_ids=tokens.clamp_min(0).long(), attention_mask=present.long())
        return mean_of_present(output.last_hidden_state, present)


def pretrained_encoder(weights: str) -> HubEncoder:
    """Load an encoder from a folder or the local cache of the hub: safetensors only, no remote code.

    Args:
        weights: a folder, or a name on the hub such as bert-base-uncased.

    Raises:
        UsageError: the encoder is missing or cannot be loaded.
    """
    library = needed("transformers", "text", "backbone 'transformer'")
    folder = hub_folder(weights, "weights")
    try:
        return HubEncoder(
            library.AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        )
    except Exception as error:  # the library raises many kinds of errors
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"weights = '{weights}': cannot be loaded ({reason})") from None


def encoder_of(architecture: str) -> HubEncoder:
    """Build an encoder with random weights from ``HubEncoder.architecture``."""
    library = needed("transformers", "text", "backbone 'transformer'")
    values = json.loads(architecture)
    try:
        config = library.AutoConfig.for_model(**values)
        return HubEncoder(library.AutoModel.from_config(config))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"the encoder cannot be built ({reason}); copy the model again") from None


def check_length(weights: str, max_length: int) -> None:
    """Raise a UsageError if texts can be longer than a pretrained encoder accepts.

    Args:
        weights: see ``pretrained_encoder``.
        max_length: longest text, in tokens.
    """
    library = needed("transformers", "text", "backbone 'transformer'")
    folder = hub_folder(weights, "weights")
    try:
        config = library.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the library raises many kinds of errors
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"weights = '{weights}': cannot be loaded ({reason})") from None
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and 0 < limit < max_length:
        raise UsageError(
            f"max_length = {max_length}: {weights} accepts {limit} tokens; use --set max_length={limit}"
        )
