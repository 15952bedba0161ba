"""Image networks of the package timm: their names, their inputs, and their weights on this machine.

A network is named ``timm:NAME`` or ``timm:NAME.TAG``; the tag names one of several published sets of
weights, which may expect other inputs. Nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbam_ray.documents import parse_json
from bbam_ray.errors import UsageError, brief, quoted, similar
from bbam_ray.optional import needed
from bbam_ray.pretrained import hub_folder

PREFIX = "timm:"
#: value of the setting ``weights`` for those that timm names for a network, in the hub's local cache
DEFAULT = "DEFAULT"
INTERPOLATIONS = ("bilinear", "bicubic")
_FILES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
# Arguments of a stored network that change neither its tensors nor what it computes from them.
_HARMLESS = {"img_size", "num_classes", "in_chans", "drop_rate", "drop_path_rate"}


@dataclass(frozen=True)
class ImageInput:
    """The images that a network was trained with.

    Args:
        size: side in pixels.
        interpolation: of resizing.
        mean, std: of each of three channels, of images scaled to [0, 1].
    """

    size: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def is_timm(backbone: object) -> bool:
    """Whether a name of a backbone is that of a network of timm."""
    return isinstance(backbone, str) and backbone.startswith(PREFIX)


def timm_library(backbone: str) -> Any:
    """The package timm, imported late because that takes seconds.

    Raises:
        UsageError: it is not installed.
    """
    return needed("timm", "vision", f"backbone '{backbone}'")


def timm_configuration(backbone: str) -> dict[str, Any]:
    """What timm knows about a network and its published weights.

    Args:
        backbone: ``timm:NAME`` or ``timm:NAME.TAG``.

    Returns:
        timm's ``pretrained_cfg`` as a dictionary; the entry ``architecture`` is NAME.

    Raises:
        UsageError: timm is not installed, or has no such network, tag, or configuration.
    """
    timm = timm_library(backbone)
    name = backbone.removeprefix(PREFIX)
    architecture, _, tag = name.partition(".")
    # The names of timm's registry only: its other sources would open folders or the network.
    if not timm.is_model(architecture) or any(c in name for c in "/\\:"):
        known_names = [PREFIX + each for each in timm.list_models()]
        raise UsageError(
            f"unknown backbone '{brief(backbone)}', which timm.list_models() does not have; "
            f"{similar(PREFIX + architecture, known_names)}"
        )
    known = timm.models.get_arch_pretrained_cfgs(architecture)
    if tag and name not in known:
        tags = [each.partition(".")[2] for each in known]
        raise UsageError(
            f"backbone '{brief(backbone)}': {architecture} has no weights '{brief(tag)}'; "
            f"{similar(tag, tags)}"
        )
    values = timm.models.get_pretrained_cfg(name)
    return {**(values.to_dict() if values else {}), "architecture": architecture}


def image_input(backbone: str, weights: str) -> ImageInput:
    """The images that a network expects: as its weights say, otherwise as timm says.

    Args:
        backbone: ``timm:NAME`` or ``timm:NAME.TAG``.
        weights: see ``weights_file``; a folder may have a ``config.json``.

    Raises:
        UsageError: an unknown network, or images that are not described completely.
    """
    values, source = timm_configuration(backbone), backbone
    folder = weights_folder(backbone, weights, required=False)
    if folder is not None and (stored := _stored_configuration(folder, values["architecture"])):
        values, source = stored, str(folder / "config.json")
    mean, std, size = (_numbers(values.get(part)) for part in ("mean", "std", "input_size"))
    if mean is None:
        raise _unknown(source, "mean", values.get("mean"))
    if std is None or min(std) <= 0:
        raise _unknown(source, "std", values.get("std"))
    if size is None or size[1] != size[2]:
        raise _unknown(source, "input_size", values.get("input_size"))
    if (interpolation := values.get("interpolation")) not in INTERPOLATIONS:
        raise _unknown(source, "interpolation", interpolation)
    return ImageInput(round(size[1]), interpolation, mean, std)


def _numbers(values: Any) -> tuple[float, ...] | None:
    """Three numbers of a configuration; None for anything else."""
    is_list = isinstance(values, (list, tuple)) and len(values) == 3
    if not is_list or not all(type(v) in (int, float) and abs(v) < 1e6 for v in values):
        return None
    return tuple(map(float, values))


def _unknown(source: str, part: str, value: object) -> UsageError:
    expected = {
        "input_size": "that of square colour images, such as [3, 224, 224]",
        "interpolation": " or ".join(INTERPOLATIONS),
    }.get(part, "three numbers")
    return UsageError(
        f"{source}: {part} = {quoted(value)} and must be {expected}; use another backbone, or give a "
        "folder of weights whose config.json has it"
    )


def _stored_configuration(folder: Path, architecture: str) -> dict[str, Any] | None:
    """The ``pretrained_cfg`` in the ``config.json`` of a folder of weights; None without one."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({brief(error, 200)}); copy it again") from None
    values = content.get("pretrained_cfg") if isinstance(content, dict) else None
    if not isinstance(values, dict):
        return None  # that of another library
    stored = content.get("architecture", architecture)
    if stored != architecture:
        raise UsageError(
            f"{path}: these are weights of {quoted(stored)}, not of {architecture}; use --set "
            f"backbone={PREFIX}{brief(stored)}"
        )
    arguments = content.get("model_args")
    if isinstance(arguments, dict) and (other := sorted(set(arguments) - _HARMLESS)):
        raise UsageError(
            f"{path}: model_args has {brief(other[0])}, so this is not {architecture} as timm builds it; "
            "use other weights"
        )
    return values


def weights_folder(backbone: str, weights: str, *, required: bool = True) -> Path | None:
    """The folder of weights; None if they are "none" or a file.

    Args:
        backbone: ``timm:NAME`` or ``timm:NAME.TAG``.
        weights: see ``weights_file``.
        required: False returns None for weights that are not on this machine, too.

    Raises:
        UsageError: neither a file, a folder, nor in the hub's local cache.
    """
    if weights == "none" or Path(weights).expanduser().is_file():
        return None
    name = weights
    if weights == DEFAULT:
        name = timm_configuration(backbone).get("hf_hub_id") or ""
        if not name and required:
            raise UsageError(
                f"weights = '{DEFAULT}': timm names none for {backbone}; give a file or a folder, or use "
                "--set weights=none"
            )
    is_path = name.startswith(("/", ".", "~")) or Path(name).suffix in _SUFFIXES
    if required and is_path and not Path(name).expanduser().is_dir():
        raise UsageError(
            f"weights = '{weights}': no such file or folder; give another one, or use --set weights=none"
        )
    try:
        return hub_folder(name, "weights", extra="vision") if name else None
    except UsageError:
        if required:
            raise
        return None


def weights_file(backbone: str, weights: str) -> Path | None:
    """The file with the weights of a network; None for "none".

    Args:
        backbone: ``timm:NAME`` or ``timm:NAME.TAG``.
        weights: "none", a file, a folder, a name on the hub that is in its local cache, or ``DEFAULT``.

    Raises:
        UsageError: they are not on this machine.
    """
    folder = weights_folder(backbone, weights)
    if folder is None:
        return None if weights == "none" else Path(weights).expanduser()
    for name in _FILES:
        if (folder / name).is_file():
            return folder / name
    files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    if len(files) != 1:
        raise UsageError(
            f"weights = '{weights}': {folder} has {len(files)} files of weights; give one of them"
            if files
            else f"weights = '{weights}': {folder} has no file of weights; download it completely"
        )
    return files[0]
