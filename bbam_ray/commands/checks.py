"""Checks of options before anything starts: settings, workers, durations, addresses."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbam_ray.documents import parse_assignments
from bbam_ray.errors import UsageError
from bbam_ray.scale.workers.shapes import TrainShape, WorkerRequest

if TYPE_CHECKING:
    from bbam_ray.config import RunConfig


def given_settings(
    assignments: list[str] | None, named: dict[str, Any], base: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Flat settings from a configuration file, ``--set`` and the named flags.

    Args:
        assignments: of ``--set``; they override the file.
        named: flags by setting name; None = not given.
        base: settings of a configuration file.

    Raises:
        UsageError: a setting is given both as a flag and with ``--set``.
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


def merged_settings(settings: Mapping[str, Any] | None, **named: Any) -> dict[str, Any]:
    """Flat settings from a mapping and from named arguments, which override it; None = not given."""
    merged = {**(settings or {}), **{n: value for n, value in named.items() if value is not None}}
    if merged.get("data_dir") is not None:
        merged["data_dir"] = Path(merged["data_dir"]).absolute()
    return {n: str(value) if isinstance(value, Path) else value for n, value in merged.items()}


def check_address(address: str) -> None:
    if address not in ("local", "auto") and not address.startswith("ray://"):
        raise UsageError(f"--address {address}: expected local, auto or ray://HOST:PORT")


def parse_workers(text: str) -> tuple[int, int]:
    """Fewest and most workers of "4" or "2-8"."""
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text.strip())
    fewest, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= fewest <= most:
        raise UsageError(f"--workers {text}: expected a number such as 2, or a range such as 2-8")
    return fewest, most


def worker_shape(
    workers: int | str,
    *,
    cpus: int,
    gpus: float | str,
    timeout: float | str,
    max_failures: int,
) -> WorkerRequest:
    """The workers of a run from the options of a user.

    Args:
        workers: a number, or a range such as "2-8".
        cpus: of each worker.
        gpus: of each worker, a number or "auto".
        timeout: seconds, or a time such as "2m", after which a silent worker counts as lost.
        max_failures: how often lost workers are replaced; -1 = always.
    """
    fewest, most = parse_workers(str(workers))
    for name, value, least in (
        ("cpus_per_worker", cpus, 1),
        ("max_failures", max_failures, -1),
    ):
        check_minimum(name, value, least)
    return WorkerRequest(
        min_workers=fewest,
        max_workers=most,
        cpus=cpus,
        gpus=parse_gpus(gpus),
        timeout_s=parse_worker_timeout(str(timeout)),
        max_failures=max_failures,
    )


def parse_gpus(value: float | str) -> float | None:
    """GPUs of a worker; None for "auto".

    Raises:
        UsageError: neither "auto" nor a number from 0.
    """
    if value == "auto":
        return None
    try:
        gpus = float(value)
    except ValueError:
        gpus = -1.0
    if not 0 <= gpus < math.inf:
        raise UsageError(
            f"--gpus-per-worker {value}: expected auto, 0, a fraction such as 0.25, or 1"
        )
    return gpus


def check_minimum(name: str, value: float | None, least: float) -> None:
    """Raise a UsageError if the value of an option is below its minimum; None = not given."""
    if value is not None and value < least:
        raise UsageError(f"{name} = {value!r} is invalid; use at least {least:g}")


def check_workers(config: RunConfig, shape: TrainShape, labelled: int) -> None:
    """Check that the workers of a run can share its batches.

    Args:
        config: of the run.
        shape: its workers.
        labelled: number of labelled training samples.
    """
    common, most = config.training, shape.max_workers
    if labelled < most:
        raise UsageError(
            f"--workers {most}: {labelled} labelled samples are too few for {most} workers; lower "
            "--workers or raise --labeled-fraction"
        )
    sizes = {"labeled_batch": common.labeled_batch}
    if common.warmup_batch is not None:
        sizes["warmup_batch"] = common.warmup_batch
    name = min(sizes, key=lambda size: sizes[size])
    smallest = min(sizes[name], labelled)
    if most > smallest:
        raise UsageError(
            f"--workers {most}: a step of {smallest} labelled samples cannot be divided by {most}; "
            f"lower --workers or raise it with --set {name}=N"
        )
    is_local = not common.synchronized_batch_norm and common.batch_norm == "batch"
    if most > 1 and is_local and smallest < 4 * most:
        raise UsageError(
            f"--workers {most}: {smallest} labelled samples in a step leave a worker too few for its own "
            f"batch norm; use --set synchronized_batch_norm=true or a larger {name}"
        )


def check_machine(workers: int, cpus: int, gpus: float) -> None:
    """Check that this machine has the CPUs and GPUs of the workers of a local run."""
    import torch

    if gpus and not torch.cuda.is_available():
        raise UsageError(
            f"--gpus-per-worker {gpus:g}: this machine has no GPU; leave the option out, or use 0"
        )
    have = os.cpu_count() or 1
    if workers > 1 and workers * cpus > have:
        raise UsageError(
            f"--workers {workers} with --cpus-per-worker {cpus} needs {workers * cpus} CPUs and this "
            f"machine has {have}; use fewer, or --address of a larger cluster"
        )
    if gpus * workers > torch.cuda.device_count():
        raise UsageError(
            f"--workers {workers} with --gpus-per-worker {gpus:g} needs {workers * gpus:g} GPUs and this "
            f"machine has {torch.cuda.device_count()}; use fewer, or --address of a larger cluster"
        )


def parse_duration(flag: str, text: str) -> float:
    """Seconds of "90", "90s", "30m", "2h" or "1d"."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", text)
    seconds = 0.0
    if match:
        seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
    if seconds <= 0:
        raise UsageError(f"{flag} {text}: expected a time such as 90s, 30m or 2h")
    return seconds


def parse_fractions(text: str) -> list[float]:
    """Label fractions of "0.05,0.1"."""
    try:
        fractions = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        fractions = []
    if not fractions:
        raise UsageError(f"--labeled-fractions {text}: expected shares such as 0.05,0.1,0.2")
    return fractions


def parse_price(text: str) -> float | Path:
    """A price of a GPU-hour, or the file of prices that the text names."""
    try:
        return float(text)
    except ValueError:
        return Path(text)


def parse_worker_timeout(text: str) -> float:
    """Whole seconds, at least as many as a healthy worker may need to answer."""
    seconds = round(parse_duration("--worker-timeout", text))
    if seconds < 5:
        raise UsageError(f"--worker-timeout {text}: a healthy worker may need 5s to answer")
    return float(seconds)
