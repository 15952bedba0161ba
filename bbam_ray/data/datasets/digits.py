"""``digits``: multi-label scenes of real handwritten digits, generated and cached.

The 1,797 8 x 8 digits that ship inside scikit-learn (Alpaydin and Kaynak, UCI, 1998) are divided
into those for training scenes and those for test scenes, so that no handwriting occurs in both. A scene
shows 1-4 different digits, each rescaled, rotated, sheared, dimmed and placed in a jittered quadrant, on
a shaded and noisy background. The labels are the digits present; their frequencies differ.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional as F

from bbam_ray.data.cache.folder import cache_dir, whole_file
from bbam_ray.data.datasets.base import Dataset, Part, Samples, ViewSettings
from bbam_ray.data.datasets.view_options import ViewOptions
from bbam_ray.data.formats.npz import open_arrays, read_array

SIDE = 24
DIGITS_PER_SCENE = (0.25, 0.35, 0.25, 0.15)  # probability of 1, 2, 3 and 4 digits
LABEL_DECAY = 0.9
_TEST_SOURCES = 0.4
_GENERATOR_VERSION = 1  # increase it if the code below makes other scenes from the same numbers
# Ranges of a digit's rotation (radians), shear, size (relative to the side), shift and brightness;
# standard deviation of the noise.
ROTATION, SHEAR, SIZE, JITTER, BRIGHTNESS, NOISE = 0.35, 0.2, (0.48, 0.56), 0.16, (0.6, 1.0), 0.03
_QUADRANTS = torch.tensor([[-0.46, -0.46], [0.46, -0.46], [-0.46, 0.46], [0.46, 0.46]])


class DigitsOptions(ViewOptions):
    """Options of the data set ``digits``."""

    scenes: int = Field(2400, ge=20, le=1_000_000, description="Number of training scenes.")
    test_scenes: int = Field(2000, ge=20, le=1_000_000, description="Number of test scenes.")
    scene_seed: int = Field(0, ge=0, description="Seed of the scenes; splits follow `seed`.")
    label_decay: float = Field(
        LABEL_DECAY,
        ge=0.5,
        le=1,
        description="Frequency of each digit relative to the previous one; 1 makes all equally frequent.",
    )


class Digits(Dataset):
    """Scenes (N, 1, 24, 24) uint8 with labels "0" to "9"."""

    name: ClassVar[str] = "digits"
    Options = DigitsOptions
    views: ClassVar[ViewSettings] = ViewSettings(mean=(0.21,), std=(0.22,))
    defaults: ClassVar[dict[str, Any]] = {
        "backbone": "small-cnn",
        "hidden_dim": 128,
        "feature_dim": 64,
        "validation_fraction": 0.4,
        "epochs": 13,
        "warmup_epochs": 5,
        "warmup_passes": 20,
        "labeled_batch": 16,
        "unlabeled_batch": 48,
        "warmup_learning_rate": 8e-3,
        "learning_rate": 8e-3,
        "ema_decay": 0.99,
        "strong_magnitude": 0.3,
        "cutout": 0.0,
    }

    def state(self, options: DigitsOptions, data_dir: Path | None) -> str:
        return _recipe(options.label_decay)

    def load(self, options: DigitsOptions, data_dir: Path | None, part: Part) -> Samples:
        count = options.scenes if part == "train" else options.test_scenes
        stem = f"{part}-seed{options.scene_seed}-size{count}-{_recipe(options.label_decay)}"
        path = cache_dir() / "digits" / f"{stem}.npz"
        if (scenes := _cached(path)) is None:
            scenes = compose_scenes(count, options.scene_seed, part, options.label_decay)
            with whole_file(path) as temporary, temporary.open("wb") as handle:
                np.savez(handle, images=scenes[0], labels=scenes[1])
        images, labels = scenes
        names = tuple(str(digit) for digit in range(10))
        return Samples(images, labels, names, options.applied(self.views))


def _cached(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Images and labels in the cache; None if the file is missing or damaged."""
    try:
        with open_arrays(path) as archive:
            return read_array(archive, "images"), read_array(archive, "labels")
    except ValueError:
        return None


def _weights(label_decay: float) -> tuple[float, ...]:
    """Relative frequencies of the digits: 0 is the most frequent label, 9 the rarest."""
    return tuple(label_decay**k for k in range(10))


def _recipe(label_decay: float) -> str:
    """A digest of all parameters of the scenes, part of the file name in the cache."""
    placement = (ROTATION, SHEAR, SIZE, JITTER, BRIGHTNESS, NOISE)
    numbers = (
        _GENERATOR_VERSION,
        SIDE,
        DIGITS_PER_SCENE,
        _weights(label_decay),
        _TEST_SOURCES,
        placement,
    )
    return hashlib.sha256(repr(numbers).encode()).hexdigest()[:10]


def compose_scenes(
    count: int, seed: int, part: Part, label_decay: float = LABEL_DECAY
) -> tuple[np.ndarray, np.ndarray]:
    """Draw scenes: images (count, 1, 24, 24) uint8 and labels (count, 10) uint8."""
    # Imported only to generate scenes: it takes seconds, and workers read them from the cache.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    sources = load_digits()
    images, digits = sources.images.astype(np.float32) / 16, sources.target
    halves = train_test_split(
        np.arange(len(digits)), test_size=_TEST_SOURCES, stratify=digits, random_state=0
    )
    pool = halves[0 if part == "train" else 1]
    rng = np.random.default_rng([seed, 0 if part == "train" else 1])

    numbers = rng.choice(np.arange(1, 5), size=count, p=DIGITS_PER_SCENE)
    # Efraimidis-Spirakis keys: the four highest are a weighted draw without replacement.
    keys = rng.random((count, 10)) ** (1 / np.asarray(_weights(label_decay)))
    chosen = np.argsort(-keys, axis=1)[:, :4]
    is_used = np.arange(4) < numbers[:, None]
    labels = np.zeros((count, 10), dtype=np.uint8)
    np.put_along_axis(labels, chosen, is_used.astype(np.uint8), axis=1)
    source = np.zeros((count, 4), dtype=np.int64)
    for digit in range(10):
        is_digit = chosen == digit
        source[is_digit] = rng.choice(pool[digits[pool] == digit], size=int(is_digit.sum()))
    quadrants = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1)
    uniform = torch.from_numpy(rng.random((count, 4, 7), dtype=np.float32))
    shading = torch.from_numpy(rng.random((count, 3), dtype=np.float32))
    noise = torch.from_numpy(rng.standard_normal((count, SIDE, SIDE), dtype=np.float32))

    scenes = np.empty((count, 1, SIDE, SIDE), dtype=np.uint8)
    for start in range(0, count, 1000):
        rows = slice(start, min(start + 1000, count))
        patches = torch.from_numpy(images[source[rows]]) * torch.from_numpy(
            is_used[rows, :, None, None]
        )
        layers = _compose(patches, torch.from_numpy(quadrants[rows]), uniform[rows])
        scene = _background(shading[rows]) + layers.amax(dim=1) + NOISE * noise[rows]
        scenes[rows, 0] = (scene.clamp(0, 1) * 255).round().byte().numpy()
    return scenes, labels


def _compose(patches: torch.Tensor, quadrants: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Draw (B, 4, 8, 8) digits into their quadrants: (B, 4, 24, 24) in [0, 1].

    Args:
        quadrants: (B, 4) quadrant of each digit.
        uniform: (B, 4, 7) in [0, 1), for rotation, shear, size, shift and brightness.
    """
    batch = patches.shape[0]
    rotation = (uniform[..., 0] - 0.5) * ROTATION
    shear = (uniform[..., 1] - 0.5) * SHEAR
    size = SIZE[0] + (SIZE[1] - SIZE[0]) * uniform[..., 2]
    centre = _QUADRANTS[quadrants] + (uniform[..., 3:5] - 0.5) * JITTER
    cosine, sine = torch.cos(rotation) / size, torch.sin(rotation) / size
    matrix = torch.stack([cosine, sine + shear, -sine, cosine], dim=-1).view(batch, 4, 2, 2)
    shift = -(matrix @ centre.unsqueeze(-1))
    theta = torch.cat([matrix, shift], dim=-1).view(batch * 4, 2, 3)
    grid = F.affine_grid(theta, [batch * 4, 1, SIDE, SIDE], align_corners=False)
    drawn = F.grid_sample(patches.reshape(batch * 4, 1, 8, 8), grid, align_corners=False)
    brightness = BRIGHTNESS[0] + (BRIGHTNESS[1] - BRIGHTNESS[0]) * uniform[..., 5]
    return drawn.view(batch, 4, SIDE, SIDE) * brightness[..., None, None]


def _background(uniform: torch.Tensor) -> torch.Tensor:
    """Linear shading of the scene: (B, 24, 24), between 0 and about 0.3; ``uniform`` is (B, 3)."""
    axis = torch.linspace(-1, 1, SIDE)
    across = (uniform[:, 0] - 0.5)[:, None, None] * axis[None, None, :]
    down = (uniform[:, 1] - 0.5)[:, None, None] * axis[None, :, None]
    return 0.15 * (across + down) + 0.15 * uniform[:, 2, None, None]
