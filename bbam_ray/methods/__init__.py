"""Learning methods by name, and the checked configuration of a run.

Here belong the methods, one per file, and the interface between them and the engine. To add a method, add
its file, a line in ``METHODS`` and a search space ``search_spaces/NAME.yaml``; methods/method.py shows
when each hook is called. Command-line help, the list of settings and the schema of search spaces follow
from ``METHODS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bbam_ray.config import RunConfig, TrainingConfig
from bbam_ray.data import DATASETS
from bbam_ray.data.sampling.composition import composed
from bbam_ray.errors import UsageError, brief, nearest, similar
from bbam_ray.registry import Registry

if TYPE_CHECKING:
    from bbam_ray.methods.method import Method

METHODS: Registry[type[Method[Any]]] = Registry(
    {
        "bbam": "bbam_ray.methods.bbam:Bbam",
        "supervised": "bbam_ray.methods.supervised:Supervised",
        "cap": "bbam_ray.methods.cap:Cap",
        "softmatch": "bbam_ray.methods.softmatch:Softmatch",
        "flatmatch": "bbam_ray.methods.flatmatch:Flatmatch",
        "mime": "bbam_ray.methods.mime:Mime",
        "drml": "bbam_ray.methods.drml:Drml",
        "d2l": "bbam_ray.methods.d2l:D2l",
        "dicap": "bbam_ray.methods.dicap:Dicap",
        "logistic": "bbam_ray.methods.fitted:Logistic",
        "propagation": "bbam_ray.methods.fitted:Propagation",
        "logistic+propagation": "bbam_ray.methods.fitted:LogisticPropagation",
    }
)

#: Methods that learn on frozen features in seconds; a search compares its answer with them.
BASELINES = ("logistic", "propagation", "logistic+propagation")

__all__ = ["BASELINES", "METHODS", "known_settings", "run_config", "setting_hint"]


def known_settings(dataset: str, method: str) -> dict[str, type]:
    """All settings of a run with this data set and method, and the class that each belongs to.

    Args:
        dataset: a name of ``DATASETS``.
        method: a name of ``METHODS``.

    Raises:
        UsageError: unknown data set or method.
    """
    for kind, name, known in (("data set", dataset, DATASETS), ("method", method, METHODS)):
        if not isinstance(name, str) or name not in known:
            raise UsageError(f"unknown {kind} '{brief(name)}'; {similar(name, known)}")
    parts = (TrainingConfig, DATASETS[dataset].Options, METHODS[method].Options)
    return {name: part for part in parts for name in part.model_fields}


_MOST_NAMES = 20  # known settings in a message


def setting_hint(name: str, known: Mapping[str, type]) -> str:
    """The way out for an unknown setting: the most similar known name, and what else has the setting.

    Without a similar one it names the command that lists them: there are too many for a message.
    """
    hint = nearest(name, known)
    if len(known) > _MOST_NAMES and not hint.startswith("did you mean"):
        hint = "`bbam-ray settings` lists all"
    for kind, parts in (("method", METHODS), ("data set", DATASETS)):
        if owners := [n for n, part in parts.items() if name in part.Options.model_fields]:
            return f"it belongs to {kind} {' and '.join(owners)}; {hint}"
    return hint


def run_config(values: Mapping[str, Any], source: str) -> RunConfig:
    """Build the complete configuration of a run from flat user values.

    ``values`` override the defaults of the data set, which override the general defaults. Settings that
    the method does not use may be fixed by it.

    Args:
        values: setting name to value; ``dataset`` and ``method`` decide which other settings exist.
        source: origin of the values, for error messages.

    Raises:
        UsageError: unknown data set, method or key, or a value out of range.
    """
    dataset, method = values.get("dataset", "digits"), values.get("method", "bbam")
    owners = known_settings(dataset, method)
    merged = {**DATASETS[dataset].defaults, **values, **METHODS[method].fixed_settings}
    for name in values:
        if name not in owners:
            raise UsageError(
                f"{source}: unknown setting '{brief(name)}' for data set '{dataset}' and method "
                f"'{method}'; {setting_hint(brief(name), owners)}"
            )

    merged = DATASETS[dataset].complete(merged)

    def part(cls: type) -> dict[str, Any]:
        return {name: value for name, value in merged.items() if owners.get(name) is cls}

    options = DATASETS[dataset].Options, METHODS[method].Options
    common = TrainingConfig.build(part(TrainingConfig), source)
    return RunConfig(
        composed(common, DATASETS[dataset].labeled_shares, source),
        options[0].build(part(options[0]), source),
        options[1].build(part(options[1]), source),
    )
