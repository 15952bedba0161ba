"""Weak and strong views of batches of samples, computed on the training device."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from bbam_ray.data.datasets.base import ViewSettings
from bbam_ray.data.views.rand_augment import rand_augmented, rectangle_erased
from bbam_ray.data.views.texts import strong_tokens, uniform_by_position

_PIECE = 1 << 19  # values that a CPU processes at once
NOISE_WIDTH = 12  # uniform random numbers that a view uses per sample


class Views:
    """Turns stored samples into normalized network inputs.

    Args:
        settings: normalization, whether mirroring keeps the labels, and the strong view of images.
        magnitude: strength of the strong view, 0 (none) to 1; ``uda`` does not use it.
        cutout: side of the square that the strong view erases, relative to the image side; 0 to 1.
    """

    def __init__(self, settings: ViewSettings, magnitude: float, cutout: float) -> None:
        self.settings, self.magnitude, self.cutout = settings, magnitude, cutout
        self._scales: dict[torch.device, Tensor] = {}  # mean and std on each device

    def with_cutout(self, cutout: float) -> Views:
        """The same views, except that the strong one erases a square or rectangle of another size."""
        views = copy(self)
        views.cutout = cutout
        return views

    def plain(self, inputs: Tensor) -> Tensor:
        """The normalized sample, for evaluation and for the refresh."""
        if self.settings.vocabulary:
            return inputs
        if inputs.ndim == 2:
            return self._normalize(inputs.float())
        return _in_chunks(lambda images: self._normalize(images.float().div_(255)), inputs)

    def weak(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """Mirrored with probability 1/2 where the data set allows it.

        Args:
            inputs: (B, C, H, W) uint8, (B, F) float32 or (B, L) int32 tokens.
            noise: (B, NOISE_WIDTH) in [0, 1).
        """
        if inputs.ndim == 2:
            return self.plain(inputs)

        def make(images: Tensor, numbers: Tensor) -> Tensor:
            return self._normalize(self._flip(images, numbers[:, 0]).float().div_(255))

        return _in_chunks(make, inputs, noise)

    def strong(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """Images: mirrored, rotated, sheared, scaled, shifted, recolored and partly erased.

        With the strong view ``uda`` they are mirrored, partly erased, and go through RandAugment. Feature
        vectors get noise and dropout instead, texts lose tokens (see ``strong_tokens``). Shapes as in
        ``weak``.
        """
        if self.settings.vocabulary:
            return strong_tokens(inputs, noise, self.magnitude, self.cutout)
        if not len(inputs):  # a rank without samples in this step; resampling fails without images
            return self.plain(inputs)
        if inputs.ndim == 2:
            return self._strong_features(self._normalize(inputs.float()), noise)

        make = self._uda if self.settings.strong_view == "uda" else self._affine_and_color
        return _in_chunks(make, inputs, noise)

    def _affine_and_color(self, images: Tensor, noise: Tensor) -> Tensor:
        images = self._flip(images, noise[:, 0]).float().div_(255)
        images = self._affine(images, noise[:, 1:7])
        images = self._recolor(images, noise[:, 7:9])
        return self._erase(self._normalize(images), noise[:, 9:11])

    def _uda(self, images: Tensor, noise: Tensor) -> Tensor:
        images = self._flip(images, noise[:, 0])
        images = rectangle_erased(images, noise[:, 1:6], self.cutout)
        images = rand_augmented(images, noise[:, 6:12])
        return self._normalize(images.float().div_(255))

    def _normalize(self, inputs: Tensor) -> Tensor:
        """Subtract the mean and divide by the standard deviation, per channel or feature."""
        if inputs.device not in self._scales:
            pair = (self.settings.mean, self.settings.std)
            self._scales[inputs.device] = torch.tensor(pair, device=inputs.device)
        mean, std = self._scales[inputs.device].view(2, 1, -1, *[1] * (inputs.ndim - 2))
        scaled: Tensor = (inputs - mean).div_(std)
        return scaled

    def _flip(self, inputs: Tensor, noise: Tensor) -> Tensor:
        if not self.settings.flip:
            return inputs
        chosen = noise < 0.5
        if inputs.device.type != "cpu":  # indexing by a mask would make the host wait
            return torch.where(chosen.view(-1, 1, 1, 1), inputs.flip(-1), inputs)
        flipped = inputs.clone()
        flipped[chosen] = inputs[chosen].flip(-1)
        return flipped

    def _affine(self, images: Tensor, noise: Tensor) -> Tensor:
        """One resampling for +-30 degrees, shear +-0.3, scale 0.8-1.25 and shift +-15 % at magnitude 1."""
        centred = (2 * noise - 1) * self.magnitude
        turn, shear = centred[:, 0] * math.pi / 6, centred[:, 1] * 0.3
        stretch_x, stretch_y = 1.25 ** centred[:, 2], 1.25 ** centred[:, 3]
        cosine, sine = torch.cos(turn), torch.sin(turn)
        theta = torch.stack(
            [
                stretch_x * cosine,
                stretch_x * (shear * cosine - sine),
                centred[:, 4] * 0.3,
                stretch_y * sine,
                stretch_y * (shear * sine + cosine),
                centred[:, 5] * 0.3,
            ],
            dim=1,
        ).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)

    def _recolor(self, images: Tensor, noise: Tensor) -> Tensor:
        """Brightness +-0.3 and contrast 0.6-1.7 at magnitude 1; changes the images in place."""
        centred = ((2 * noise - 1) * self.magnitude).view(-1, 2, 1, 1)
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        contrast = 1.7 ** centred[:, 1:2]
        images.sub_(mean).mul_(contrast).add_(mean).add_(0.3 * centred[:, 0:1])
        return images.clamp_(0, 1)

    def _erase(self, images: Tensor, noise: Tensor) -> Tensor:
        """Cutout: a square of side ``cutout`` x image side, centred anywhere, set to the mean."""
        if self.cutout == 0:
            return images
        height, width = images.shape[-2:]
        rows = torch.arange(height, device=images.device) + 0.5
        columns = torch.arange(width, device=images.device) + 0.5
        half_height, half_width = self.cutout * height / 2, self.cutout * width / 2
        in_rows = (rows - noise[:, 0:1] * height).abs() < half_height
        in_columns = (columns - noise[:, 1:2] * width).abs() < half_width
        erased = in_rows.unsqueeze(2) & in_columns.unsqueeze(1)
        return images.masked_fill_(erased.unsqueeze(1), 0.0)

    def _strong_features(self, inputs: Tensor, noise: Tensor) -> Tensor:
        # A cheap hash makes a number per column from a few per sample, so noise and dropout do not
        # depend on the process that draws them.
        uniform = uniform_by_position(noise, inputs.shape[1])
        dropped = uniform < 0.3 * self.magnitude
        noise = (uniform * 7919).frac() * 2 - 1
        deviation = inputs.std(dim=1, keepdim=True, unbiased=False)
        return (inputs + 0.5 * self.magnitude * deviation * noise).masked_fill(dropped, 0.0)


def _in_chunks(make: Callable[..., Tensor], inputs: Tensor, *noise: Tensor) -> Tensor:
    """``make(inputs, *noise)`` for a function that treats each sample independently.

    A CPU processes a few large images at a time, so that intermediate results stay in its cache (twice as
    fast at 224 x 224).
    """
    size = max(1, _PIECE // max(1, inputs[0].numel())) if len(inputs) else 1
    if inputs.device.type != "cpu" or size >= len(inputs):
        return make(inputs, *noise)
    views = torch.empty(inputs.shape)
    for start in range(0, len(inputs), size):
        chunk = slice(start, start + size)
        views[chunk] = make(inputs[chunk], *(numbers[chunk] for numbers in noise))
    return views
