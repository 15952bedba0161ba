"""Use from Python and notebooks: the studies, options and files of the command line.

from bbam_ray import tune_study, train, load_study, load_model
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from bbam_ray.cli.train import train as train_command
from bbam_ray.cli.tune import tune as tune_command
from bbam_ray.documents import read_yaml_mapping
from bbam_ray.errors import EXIT_INTERRUPTED, UsageError, nearest
from bbam_ray.results.loading import Study, load_study
from bbam_ray.results.study import default_name

if TYPE_CHECKING:
    from bbam_ray.engine.model import Model

__all__ = ["Study", "load_model", "load_study", "train", "tune_study"]

_PATHS = ("data_dir", "space", "results", "config")
_TEXTS = ("workers", "time_budget", "worker_timeout", "start_timeout", "price", "warm_start")
_NOT_HERE = ("set_", "json_", "dry_run")  # what only makes sense on a command line


def tune_study(
    dataset: str = "digits",
    *,
    method: str = "bbam",
    settings: Mapping[str, Any] | None = None,
    name: str | None = None,
    results: Path | str = "results",
    **options: Any,
) -> Study:
    """Search settings, confirm the best, and return the study; = ``bbam-ray tune``.

    Args:
        dataset, method: by name.
        settings: values taken out of the search, as ``--set``.
        name: of the study; default: method and time.
        results: folder of all results.
        options: those of the command with underscores, such as num_samples=24, scheduler="asha",
            labeled_fraction=0.1, resume=True, quiet=True.

    Raises:
        UsageError: wrong usage; nothing was started.
    """
    name = name or default_name(method)
    given = {"dataset": dataset, "method": method, "name": name, "results": results, **options}
    _run(tune_command, given, settings or {})
    return load_study(Path(results) / dataset / name)


def train(
    dataset: str | None = None,
    *,
    method: str | None = None,
    settings: Mapping[str, Any] | None = None,
    name: str | None = None,
    results: Path | str = "results",
    **options: Any,
) -> Study:
    """Train one configuration and return its run; = ``bbam-ray train``.

    Args:
        dataset, method: by name; default: those of the settings, else digits and bbam.
        settings: such as ``study.best``; what is given as an argument wins.
        name, results, options: as in ``tune_study``.

    Raises:
        UsageError: wrong usage; nothing was started.
    """
    chosen: dict[str, Any] = {"dataset": "digits", "method": "bbam"}
    if options.get("config") is not None:
        chosen |= read_yaml_mapping(Path(options["config"]))
    chosen |= dict(settings or {})
    chosen |= {k: v for k, v in (("dataset", dataset), ("method", method)) if v is not None}
    what = {"dataset": chosen["dataset"], "method": chosen["method"]}
    name = name or default_name(str(what["method"]))
    given = {**what, "name": name, "results": results, **options}
    _run(train_command, given, settings or {})
    return load_study(Path(results) / str(what["dataset"]) / name)


def load_model(folder: Path | str, device: str = "auto") -> Model:
    """Open a trained model for use: ``predict_proba``, ``predict``, ``logits``, ``label_names``.

    Args:
        folder: of an exported or confirmed model, of a run, or of a study (its best configuration,
            first seed).
        device: "auto" takes a GPU where there is one.

    Raises:
        UsageError: no model there, or files that are damaged or not of one model.
    """
    from bbam_ray.engine.model import load_model as load  # torch takes its time

    return load(folder, device)


def _run(
    command: Callable[..., int], given: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Run a command; Ctrl-C goes on to the caller, after what was done has been kept."""
    if command(**_arguments(command, given, settings)) == EXIT_INTERRUPTED:
        raise KeyboardInterrupt


def _arguments(
    command: Callable[..., int], given: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of a command; settings become ``--set``, or the flag that a command has for them."""
    known = {n: p for n, p in inspect.signature(command).parameters.items() if n not in _NOT_HERE}
    hints = get_type_hints(command, include_extras=True)
    flags = {n: v for n, v in settings.items() if n in known and v is not None}
    rest = {n: v for n, v in settings.items() if n not in known}
    arguments: dict[str, Any] = {"set_": [_assignment(*item) for item in rest.items()]}
    for name, value in {**flags, **given}.items():
        if name not in known:
            raise UsageError(f"{command.__name__}: unknown option '{name}'; {nearest(name, known)}")
        default, least = known[name].default, _least(hints[name])
        if name in _PATHS and value is not None:
            value = Path(value)
        elif name in _TEXTS and value is not None:
            value = str(value)
        elif name == "tracker" and isinstance(value, str):
            value = [value]
        elif isinstance(default, StrEnum):
            choices = [choice.value for choice in type(default)]
            if value not in choices:
                raise UsageError(f"{name} = {value!r} is not possible; {nearest(value, choices)}")
            value = type(default)(value)
        elif least is not None and isinstance(value, (int, float)) and value < least:
            raise UsageError(f"{name} = {value!r} is not possible; use at least {least:g}")
        arguments[name] = value
    return arguments


def _least(hint: Any) -> float | None:
    """The lowest value of an option, where the command line has one."""
    found = [getattr(option, "min", None) for option in get_args(hint)[1:]]
    return next((least for least in found if least is not None), None)


def _assignment(name: str, value: Any) -> str:
    """A setting as ``--set`` takes it: key=value with the value in YAML."""
    if isinstance(value, float) and not math.isfinite(value):
        text = ".nan" if math.isnan(value) else (".inf" if value > 0 else "-.inf")
    else:
        text = json.dumps(value if not isinstance(value, Path) else str(value))
    return f"{name}={text}"
