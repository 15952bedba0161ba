"""Inputs of a model in the forms that users have, converted to stored samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bbam_ray.data.formats.image_decoding import UnreadableImageError, read_image, without_warnings
from bbam_ray.data.formats.tokenizer import TokenEncoder
from bbam_ray.engine.model_description import ModelDescription
from bbam_ray.errors import UsageError, brief


class StoredSamples:
    """Converts arrays, file names and texts to the stored form of one model's samples.

    Args:
        description: of the model.
    """

    def __init__(self, description: ModelDescription) -> None:
        self.input_shape, self._views = description.input_shape, description.views
        self._image_range = description.image_range
        self._encode: TokenEncoder | None = None
        if self._views.vocabulary:
            self._encode = TokenEncoder(self._views.tokenizer, self.input_shape[0])

    def __call__(self, inputs: Any) -> np.ndarray:
        """Samples (N, ...); see ``Model.logits``.

        Raises:
            UsageError: another shape or type, or a file that is not an image.
        """
        if self._encode is not None:
            return self._tokens(self._encode, inputs)
        if _are_files(inputs):
            return self._read_files(inputs)
        samples = inputs.detach().cpu().numpy() if isinstance(inputs, Tensor) else inputs
        samples = np.asarray(samples)
        images = len(self.input_shape) > 1
        expected = "uint8" if images else "numbers"
        fits = samples.dtype == np.uint8 if images else samples.dtype.kind in "fiub"
        if samples.shape[1:] != self.input_shape or samples.ndim == 0 or not fits:
            sides = ", ".join(str(side) for side in self.input_shape)
            raise UsageError(
                f"inputs are {samples.dtype} {samples.shape}; this model takes {expected} of shape "
                f"(N, {sides})"
            )
        return samples if images else samples.astype(np.float32)

    def _tokens(self, encode: TokenEncoder, inputs: Any) -> np.ndarray:
        if isinstance(inputs, str):
            raise UsageError("inputs is a single text; give a list of texts")
        if not isinstance(inputs, (np.ndarray, Tensor)) and all(isinstance(i, str) for i in inputs):
            return encode(list(inputs))
        tokens = np.asarray(inputs)
        (longest,), vocabulary = self.input_shape, self._views.vocabulary
        if tokens.ndim != 2 or tokens.dtype.kind not in "iu" or tokens.shape[1] > longest:
            raise UsageError(
                f"inputs are {tokens.dtype} {tokens.shape}; this model takes texts, or int32 tokens "
                f"of shape (N, l) with l up to {longest}"
            )
        if tokens.size and tokens.max() >= vocabulary:
            raise UsageError(
                f"inputs contain token {tokens.max()}; this model's vocabulary has {vocabulary} tokens"
            )
        return tokens.astype(np.int32)

    def _read_files(self, names: Sequence[Path | str]) -> np.ndarray:
        if len(self.input_shape) != 3:
            raise UsageError("this model takes feature vectors, not files; give an array (N, F)")
        channels, side, _ = self.input_shape
        samples = np.empty((len(names), *self.input_shape), np.uint8)
        for row, name in enumerate(names):
            try:
                with without_warnings():
                    samples[row] = read_image(Path(name), side, channels, self._image_range)
            except UnreadableImageError as error:
                raise UsageError(f"{brief(str(name), 300)}: {error}; leave it out") from None
        return samples


def _are_files(inputs: Any) -> bool:
    return (
        isinstance(inputs, Sequence)
        and not isinstance(inputs, (str, bytes))
        and len(inputs) > 0
        and all(isinstance(name, (str, Path)) for name in inputs)
    )
