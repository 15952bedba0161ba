"""The versions that decide results: those of a worker must be those of the driver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

import ray

import bbam_ray
from bbam_ray.config import RunConfig
from bbam_ray.data.datasets.text_base import TextOptions
from bbam_ray.engine.fingerprint import PACKAGES, source_digest
from bbam_ray.errors import StartError
from bbam_ray.pretrained_images import is_timm

_NODE, _SOURCE = "node", "source of bbam-ray"


def versions(config: RunConfig) -> dict[str, str]:
    """Versions in this process by package, a digest of this package's source, and the ID of the node.

    Args:
        config: of a run; decides which optional packages are needed.
    """
    optional = []
    if is_timm(config.training.backbone):
        optional.append("timm")
    if isinstance(config.data, TextOptions):
        optional.append("tokenizers")
    if config.training.backbone == "transformer":
        optional.append("transformers")
    return _versions([*PACKAGES, *optional])


def _versions(packages: Iterable[str]) -> dict[str, str]:
    return {
        _NODE: ray.get_runtime_context().get_node_id(),
        _SOURCE: source_digest()[:8],
        "bbam-ray": bbam_ray.__version__,
        **{name: _version(name) for name in packages},
    }


def _version(package: str) -> str:
    """Without what follows "+": on a machine without a GPU another build of the same version is fine."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "missing"


def check_versions(driver: Mapping[str, str]) -> None:
    """Compare the versions in this process with those of the driver.

    The source is not compared on the driver's own node: there it is the same copy, which may be edited
    while a study runs.

    Args:
        driver: its ``versions``.

    Raises:
        StartError: names each difference.
    """
    here = _versions(driver.keys() - {_NODE, _SOURCE, "bbam-ray"})
    left_out = {_NODE, _SOURCE} if here[_NODE] == driver[_NODE] else {_NODE}
    different = [
        f"{name} {here[name]} instead of {expected}"
        for name, expected in driver.items()
        if name not in left_out and here[name] != expected
    ]
    if different:
        cause = f"{', '.join(different)} as on the driver's node"
        raise StartError(ray.util.get_node_ip_address(), cause)
