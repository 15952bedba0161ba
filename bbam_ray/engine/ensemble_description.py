"""What a stored ensemble is, without its members' weights: ``ensemble.json``, read and checked."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bbam_ray.core.ensembles import Standardization
from bbam_ray.engine.model_description import (
    CHECKSUM,
    CONFIG,
    ENSEMBLE,
    ENSEMBLE_CHECKSUM,
    FORMAT,
    MEMBERS,
    WEIGHTS,
    ModelDescription,
    is_vector,
    read_description,
    read_json,
    regular,
)
from bbam_ray.errors import UsageError, brief, quoted


@dataclass(frozen=True)
class StoredMember:
    """A member of a stored ensemble, checked against the others.

    Args:
        folder: its model folder.
        description: of this model.
        weight, standardization: as in ``EnsembleMember``.
    """

    folder: Path
    description: ModelDescription
    weight: float
    standardization: Standardization


def is_ensemble(folder: Path) -> bool:
    """Whether a model folder is that of an ensemble."""
    return (folder / ENSEMBLE).is_file()


def read_ensemble(folder: Path, description: ModelDescription) -> list[StoredMember]:
    """Read and check the members of an ensemble, except their weights.

    Args:
        folder: of the ensemble.
        description: of the ensemble, from ``read_description``.

    Raises:
        UsageError: a file is missing, damaged, from a newer version, or does not fit the others.
    """
    path = folder / ENSEMBLE
    content = read_json(path, dict)
    version = content.get("format")
    if version != FORMAT:
        raise UsageError(
            f"{path}: format {brief(version)} is from a newer version of bbam-ray, and this one reads "
            f"{FORMAT}; update it"
        )
    if read_json(folder / CONFIG, dict).get(ENSEMBLE_CHECKSUM) != file_checksum(path):
        raise UsageError(
            f"{path}: not the ensemble that was saved here (its checksum differs); copy the model again"
        )
    entries = content.get("members")
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"{path}: names no members; copy the model again")
    return [_read_member(folder, entry, description) for entry in entries]


def _read_member(folder: Path, entry: Any, description: ModelDescription) -> StoredMember:
    path, labels = folder / ENSEMBLE, len(description.label_names)
    entry = entry if isinstance(entry, dict) else {}
    name = entry.get("folder")
    if not isinstance(name, str) or not re.fullmatch(r"\d{2,9}", name):
        raise UsageError(f"{path}: {quoted(name)} is not a member; copy the model again")
    if not is_vector([entry.get("weight")], 1, positive=True):
        raise UsageError(
            f"{path}: weight {quoted(entry.get('weight'))} of member {name} is not a positive number; "
            "leave out members without weight"
        )
    own = folder / MEMBERS / name
    member = read_description(own)
    same = {
        "labels": (member.label_names, description.label_names),
        "sizes of samples": (member.input_shape, description.input_shape),
        "interpolations of images": (member.interpolation, description.interpolation),
        "tokens": (member.views.tokenizer, description.views.tokenizer),
    }
    if different := next((what for what, (a, b) in same.items() if a != b), None):
        raise UsageError(
            f"{own}: its {different} differ from those of the ensemble; the members of an ensemble take "
            "the same samples and predict the same labels"
        )
    for part in ("mean", "std"):
        if not is_vector(entry.get(part), labels, positive=part == "std"):
            raise UsageError(
                f"{path}: '{part}' of member {name} is not a list of {labels} "
                f"{'positive ' * (part == 'std')}numbers, one per label; copy the model again"
            )
    if entry.get(CHECKSUM) != file_checksum(own / WEIGHTS):
        raise UsageError(
            f"{own / WEIGHTS}: not the weights that were saved here (their checksum differs); copy the "
            "model again"
        )
    moments = [torch.tensor(entry[part], dtype=torch.float64) for part in ("mean", "std")]
    return StoredMember(own, member, float(entry["weight"]), Standardization(*moments))


def file_checksum(path: Path) -> str:
    """SHA-256 of a file; a UsageError if it cannot be read."""
    try:
        with regular(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({brief(error, 200)}); copy the model again"
        ) from None
