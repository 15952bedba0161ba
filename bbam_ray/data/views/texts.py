"""Views of texts: the weak view is the text itself, the strong view lacks some of its tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from bbam_ray.data.formats.tokenizer import ABSENT


def uniform_by_position(noise: Tensor, width: int) -> Tensor:
    """(B, width) numbers in [0, 1), a cheap hash of the position and two noise values of each sample.

    They depend neither on the process that draws them nor on the width of the batch.
    """
    positions = torch.arange(1, width + 1, device=noise.device)
    mixed = torch.sin(noise[:, :1] * 1e4 + positions * 12.9898 + noise[:, 1:2] * 78.233)
    uniform: Tensor = (mixed * 43758.5453).frac().abs()
    return uniform


def strong_tokens(tokens: Tensor, noise: Tensor, magnitude: float, cutout: float) -> Tensor:
    """Token dropout and one removed span; the first and last token of a text are kept.

    A removed token is marked absent: attention and means ignore it, and the others keep their positions.
    At magnitude 1, each token is dropped with probability 0.3. The length of the span relative to the text
    is cutout^2, the fraction of an image's area that its strong view erases. With both settings at 0, the
    strong view equals the weak view, as in the official code, which has one view per text.

    Args:
        tokens: (B, L) int32, padded with ``ABSENT``.
        noise: (B, NOISE_WIDTH) in [0, 1).
        magnitude, cutout: in [0, 1].
    """
    length = (tokens != ABSENT).sum(1, keepdim=True)
    position = torch.arange(tokens.shape[1], device=tokens.device)
    inner = (position > 0) & (position < length - 1)
    dropped = uniform_by_position(noise, tokens.shape[1]) < 0.3 * magnitude
    width = (cutout**2 * (length - 2).clamp_min(0)).floor()
    start = 1 + (noise[:, 9:10] * ((length - 2 - width).clamp_min(0) + 1)).floor()
    dropped |= (position >= start) & (position < start + width)
    return tokens.masked_fill(dropped & inner, ABSENT)
