"""Search space files by name, and files of settings, which may be search spaces too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bbam_ray
from bbam_ray.commands.listener import SILENT, Listener
from bbam_ray.documents import read_yaml_mapping
from bbam_ray.errors import UsageError, nearest
from bbam_ray.methods import known_settings
from bbam_ray.scale.search.space_file import KEYS, read_space


def bundled_folder() -> Path:
    """The folder of the search spaces that come with this package."""
    package = Path(bbam_ray.__file__).parent
    folders = (package / "search_spaces", package.parent / "search_spaces")
    return next((folder for folder in folders if folder.is_dir()), folders[1])


def own_or_bundled(path: Path) -> Path:
    """A file of the user; without one, the bundled search space of this name (``published/voc.yaml``)."""
    bundled = bundled_folder() / path
    is_bundled = ".." not in path.parts and os.path.isfile(bundled)
    return bundled if is_bundled and not os.path.exists(path) else path


def space_file(path: Path | None, dataset: str, method: str) -> Path:
    """The search space of a data set and a method, or the file of the user.

    ``<dataset>.yaml`` holds the space of ``bbam``, ``<dataset>.<method>.yaml`` that of another method,
    and ``<method>.yaml`` that of a method on data sets without a file of their own.
    """
    if path is not None:
        return own_or_bundled(path)
    folder = bundled_folder()
    own = f"{dataset}.yaml" if method == "bbam" else f"{dataset}.{method}.yaml"
    files = [folder / name for name in (own, f"{method}.yaml") if (folder / name).is_file()]
    if not files:
        known = [file.name for file in folder.glob("*.yaml")]
        raise UsageError(
            f"there is no search space {own} for data set '{dataset}' and method '{method}'; "
            f"give one with --space FILE ({nearest(own, known)})"
        )
    return files[0]


def settings_of_file(
    path: Path, settings: Mapping[str, Any], listener: Listener = SILENT
) -> dict[str, Any]:
    """Settings of a YAML file: flat ones, or the published ones of a search space.

    A search space is checked as a search checks it. Its published settings are those of trial 0, with
    what it fixes.

    Args:
        path: of the user, or the name of a bundled search space.
        settings: that override those of the file. A search space is for their data set and method.
        listener: receives a line if the file is a search space.

    Raises:
        UsageError: names file, key and value.
    """
    path = own_or_bundled(path)
    content = read_yaml_mapping(path)
    if not {"parameters", "published"} <= set(content) <= set(KEYS):
        return content
    dataset, method = settings.get("dataset", "digits"), settings.get("method", "bbam")
    searched = content["parameters"] if isinstance(content["parameters"], dict) else {}
    known = known_settings(dataset, method).keys() - searched
    overrides = {name: value for name, value in settings.items() if name in known}
    space = read_space(path, dataset, method, overrides)
    listener.message(
        f"{path} is a search space: this run has its published settings, as trial 0 has"
    )
    return {**space.fixed, **space.published}
