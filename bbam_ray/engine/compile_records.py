"""What compiling has cost and saved on this machine, and the folder of the compiler's results."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import torch

from bbam_ray.data.cache.folder import cache_dir
from bbam_ray.files import write_text


@dataclass(frozen=True)
class Gain:
    """What compiling a network costs and saves on this device.

    Args:
        seconds: of compiling; of loading what is compiled already, if it is.
        saving: share of the time of a step; 0 or less if it does not pay.
    """

    #: ResNet-50 in bfloat16, 224 px, batches of 256, on an H200
    seconds: float = 48.0
    saving: float = 0.29


class GainRecords:
    """Gains measured on this machine, and which networks this process has compiled.

    Args:
        key: everything that the gain depends on: network, shapes, precision.
        device: of the training.
    """

    _compiled: ClassVar[set[str]] = set()  # keys, of this process

    def __init__(self, key: object, device: torch.device) -> None:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        text = json.dumps([key, name, torch.__version__], sort_keys=True, default=str)
        self._key = sha256(text.encode()).hexdigest()[:24]

    @staticmethod
    def folder() -> Path:
        """Of the records and of the compiler's own cache, which all trials and workers share."""
        return cache_dir() / "compiled"

    @property
    def _path(self) -> Path:
        return self.folder() / f"{self._key}.json"

    def read(self) -> Gain | None:
        """The gain measured before; None if there is none that can be read."""
        try:
            gain = Gain(**json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return Gain(0.0, gain.saving) if self._key in self._compiled else gain

    def write(self, gain: Gain) -> None:
        """Remember a gain; a folder that cannot be written is no reason to end a training."""
        self._compiled.add(self._key)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps(asdict(gain)))
        except OSError:
            pass


def use_compiler_cache() -> None:
    """Let the compiler keep its results with the other caches, unless the user has chosen a folder."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(GainRecords.folder() / "inductor"))
