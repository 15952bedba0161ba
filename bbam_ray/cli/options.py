"""Command-line options that several commands share, and what they mean together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

import bbam_ray
from bbam_ray.config import parse_assignments
from bbam_ray.errors import UsageError, nearest

Dataset = Annotated[str, typer.Option(help="Data set: digits (embedded) or awa.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the data set, where it needs one.")]
MethodName = Annotated[str, typer.Option(help="Learning method: bbam or supervised.")]
StudyName = Annotated[str | None, typer.Option("--name", help="Name; default: method and time.")]
Results = Annotated[Path, typer.Option(help="Folder of all results.")]
Seed = Annotated[int, typer.Option(help="Of split, search, initial weights, order and views.")]
Fraction = Annotated[
    float | None, typer.Option(help="Share of training samples whose labels may be used, (0, 1).")
]
Epochs = Annotated[int | None, typer.Option(help="Epochs in all, warm-up included.")]
WarmupEpochs = Annotated[int | None, typer.Option(help="Epochs on labelled samples, at the start.")]
Workers = Annotated[int, typer.Option(min=1, help="Data-parallel workers of a run.")]
Gpus = Annotated[float, typer.Option("--gpus-per-worker", min=0, help="0, a fraction, or 1.")]
Cpus = Annotated[int, typer.Option("--cpus-per-worker", min=1, help="CPU threads of a worker.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting; repeatable.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print only the result.")]


def given_settings(
    assignments: list[str] | None, named: dict[str, Any], base: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Flat settings from a configuration file, ``--set`` and the named flags.

    Args:
        assignments: of ``--set``; wins over the file.
        named: flags by setting name; None = not given. A setting given twice is an error.
        base: settings of a configuration file.
    """
    assigned = parse_assignments(assignments or [])
    flags = {name: value for name, value in named.items() if value is not None}
    for name in assigned:
        if name in flags:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"--set {name} and {flag} are both given; keep one")
        if name in ("dataset", "method", "seed", "data_dir"):
            raise UsageError(f"--set {name}: use --{name.replace('_', '-')} instead")
    return {**(base or {}), **assigned, **flags}


def check_workers(workers: int, gpus: float, labelled: int) -> None:
    """Whether a run of this shape is possible here.

    Raises:
        UsageError: GPUs where there are none, or more workers than this version trains with.
    """
    import torch

    if workers > 1:
        raise UsageError(
            f"--workers {workers}: this version trains a run with one worker; use --workers 1 "
            "(several trials still run side by side)"
        )
    if gpus and not torch.cuda.is_available():
        raise UsageError(
            f"--gpus-per-worker {gpus:g}: no GPU was found here; use --gpus-per-worker 0"
        )
    if labelled < workers:
        raise UsageError(f"{labelled} labelled samples are too few for {workers} workers")


def parse_duration(text: str | None) -> float | None:
    """Seconds of "90", "90s", "30m", "2h" or "1d"; None stays None."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", text)
    seconds = 0.0
    if match:
        seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
    if seconds <= 0:
        raise UsageError(f"--time-budget {text}: expected a time such as 90s, 30m or 2h")
    return seconds


def space_file(given: Path | None, dataset: str, method: str) -> Path:
    """The search space of a data set and a method, or the file that was given.

    ``<dataset>.yaml`` holds the space of ``bbam``, ``<dataset>.<method>.yaml`` that of other methods.
    """
    if given is not None:
        return given
    package = Path(bbam_ray.__file__).parent
    folders = (package / "search_spaces", package.parent / "search_spaces")
    folder = next((folder for folder in folders if folder.is_dir()), folders[1])
    name = f"{dataset}.yaml" if method == "bbam" else f"{dataset}.{method}.yaml"
    if not (folder / name).is_file():
        known = [path.name for path in folder.glob("*.yaml")]
        raise UsageError(
            f"there is no search space {name} for data set '{dataset}' and method '{method}'; "
            f"give one with --space FILE ({nearest(name, known)})"
        )
    return folder / name
