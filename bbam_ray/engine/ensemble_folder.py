"""The folder of an ensemble: ordinary model folders, their weights, and the files of a model.

``ensemble.json`` (weights and standardisation of the members), ``members/00``, ``members/01`` and so on,
``labels.json``, ``thresholds.json``, ``calibration.json``, and ``config.json``, which is that of the first
member with the checksum of ``ensemble.json``, which in turn has the checksums of the members' weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bbam_ray.core.calibration import Calibration
from bbam_ray.core.ensembles import Standardization
from bbam_ray.engine.ensemble_description import (
    StoredMember,
    file_checksum,
    is_ensemble,
    read_ensemble,
)
from bbam_ray.engine.model_description import (
    CALIBRATION,
    CHECKSUM,
    CONFIG,
    ENCODER,
    ENSEMBLE,
    ENSEMBLE_CHECKSUM,
    FORMAT,
    LABELS,
    MEMBERS,
    THRESHOLDS,
    TOKENIZER,
    WEIGHTS,
    read_description,
    read_json,
)
from bbam_ray.engine.model_folder import calibration_json
from bbam_ray.engine.scoring import EnsembleModule, build_scoring_module
from bbam_ray.errors import UsageError
from bbam_ray.files import atomic_folder


@dataclass(frozen=True)
class EnsembleMember:
    """A model to be saved in an ensemble.

    Args:
        files: a model folder, or the content of its files by name.
        weight: positive; the weights need not have the sum 1.
        standardization: of its logits, by label.
    """

    files: Path | Mapping[str, bytes]
    weight: float
    standardization: Standardization


def save_ensemble(
    folder: Path,
    members: Sequence[EnsembleMember],
    thresholds: Sequence[float],
    calibration: Calibration | None = None,
) -> None:
    """Write models as one, which scores z = sum_m weight_m (z_m - mean_m) / std_m.

    The files belong together, so they are written to a temporary folder that then replaces ``folder``.

    Args:
        folder: created, or replaced.
        members: models for the same samples and labels; method and backbone may differ.
        thresholds: (K,) on z.
        calibration: of z; None = ``predict_proba`` is the sigmoid of z, which is not a probability.

    Raises:
        UsageError: no members, a member that is damaged or is itself an ensemble, members that do not
            fit together, or numbers that are not finite.
    """
    if not members:
        raise UsageError(f"{folder}: an ensemble needs at least one member")
    with atomic_folder(folder) as new:
        entries: list[dict[str, Any]] = []
        for index, member in enumerate(members):
            name = f"{index:02d}"
            _copy_model(member.files, new / MEMBERS / name)
            entries.append(
                {
                    "folder": name,
                    "weight": float(member.weight),
                    "mean": member.standardization.mean.tolist(),
                    "std": member.standardization.std.tolist(),
                    CHECKSUM: file_checksum(new / MEMBERS / name / WEIGHTS),
                }
            )
        first = new / MEMBERS / "00"
        for name in (LABELS, TOKENIZER, ENCODER):
            if (first / name).is_file():
                shutil.copyfile(first / name, new / name)
        _write(new / ENSEMBLE, {"format": FORMAT, "members": entries})
        _write(new / THRESHOLDS, [float(value) for value in thresholds])
        if calibration is not None:
            _write(new / CALIBRATION, calibration_json(calibration))
        config = read_json(first / CONFIG, dict)
        config.pop(CHECKSUM, None)
        _write(new / CONFIG, config | {ENSEMBLE_CHECKSUM: file_checksum(new / ENSEMBLE)})
        try:
            read_ensemble(new, read_description(new))  # the checks of every reader
        except UsageError as error:
            raise UsageError(str(error).replace(str(new), str(folder))) from None


def _copy_model(files: Path | Mapping[str, bytes], target: Path) -> None:
    """Copy the files of one model."""
    known = (WEIGHTS, CONFIG, LABELS, THRESHOLDS, CALIBRATION, TOKENIZER, ENCODER)
    if isinstance(files, Path):
        if is_ensemble(files):
            raise UsageError(f"{files}: is itself an ensemble; give its members")
        files = {name: (files / name).read_bytes() for name in known if (files / name).is_file()}
    if missing := next((name for name in known[:4] if name not in files), None):
        raise UsageError(f"member {target.name}: no file {missing}; every model has one")
    target.mkdir(parents=True)
    for name in known:
        if name in files:
            (target / name).write_bytes(files[name])


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def build_ensemble_module(members: Sequence[StoredMember], device: torch.device) -> EnsembleModule:
    """The module that scores samples with all members, in evaluation mode.

    Raises:
        UsageError: a member's weights are damaged, not finite or of another model.
    """
    modules = [build_scoring_module(m.folder, m.description, device) for m in members]
    module = EnsembleModule(
        modules, [m.weight for m in members], [m.standardization for m in members]
    )
    return module.to(device).eval()
