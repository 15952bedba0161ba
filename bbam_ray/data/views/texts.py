"""Views of texts: the weak one is the text as it is, the strong one lacks some of its tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from bbam_ray.data.formats.tokenizer import ABSENT


def uniform_by_place(noise: Tensor, width: int) -> Tensor:
    """(B, width) numbers in [0, 1), made of two of each sample's by a cheap hash of the place.

    They do not depend on which process draws them, nor on how wide a batch is.
    """
    places = torch.arange(1, width + 1, device=noise.device)
    mixed = torch.sin(noise[:, :1] * 1e4 + places * 12.9898 + noise[:, 1:2] * 78.233)
    found: Tensor = (mixed * 43758.5453).frac().abs()
    return found


def strong_tokens(tokens: Tensor, noise: Tensor, magnitude: float, cutout: float) -> Tensor:
    """Token dropout and one span that is left out; the first and last token of a text stay.

    A token that is left out is absent: no attention goes to it and no mean counts it, while the others
    keep their places. At magnitude 1 each token is dropped with probability 0.3. The span's share of the
    text is cutout^2, the share of an image's area that its strong view erases. With both settings at 0 the
    strong view is the weak one, as in the official code, which has one view of a text.

    Args:
        tokens: (B, L) int32, ``ABSENT`` behind the end of a text.
        noise: (B, NOISE_WIDTH) in [0, 1).
        magnitude, cutout: in [0, 1].
    """
    length = (tokens != ABSENT).sum(1, keepdim=True)
    place = torch.arange(tokens.shape[1], device=tokens.device)
    inner = (place > 0) & (place < length - 1)
    dropped = uniform_by_place(noise, tokens.shape[1]) < 0.3 * magnitude
    width = (cutout**2 * (length - 2).clamp_min(0)).floor()
    start = 1 + (noise[:, 9:10] * ((length - 2 - width).clamp_min(0) + 1)).floor()
    dropped |= (place >= start) & (place < start + width)
    return tokens.masked_fill(dropped & inner, ABSENT)
