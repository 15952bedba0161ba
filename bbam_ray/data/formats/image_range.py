"""The setting ``image_range``: which values of images with 16 or 32 bits are black and white."""

from __future__ import annotations

import math

AUTO = "auto"  # the range of the type


def parse_range(text: str) -> tuple[float, float] | None:
    """Black and white of "0,4095"; None for "auto".

    Raises:
        ValueError: any other text.
    """
    if text == AUTO:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise ValueError("expected auto, or two numbers such as 0,255") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError("expected two numbers of which the second is larger, such as 0,255")
    return low, high
