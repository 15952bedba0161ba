"""The model card: what a model was trained on, how well it does, and how to use it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from bbam_ray.core.metric_names import HEADLINE_METRICS
from bbam_ray.results.redaction import redacted, redacted_command
from bbam_ray.results.store import read_table
from bbam_ray.results.study import StudyRecord

_SHOWN_LABELS = 100


@dataclass(frozen=True)
class Origin:
    """The study or run that a model comes from.

    Args:
        record: its ``study.json``.
        own: the row of ``confirm.parquet`` about this very model, if there is one.
        seeds: rows of the same configuration over all seeds, this model's among them.
    """

    record: Mapping[str, Any]
    own: Mapping[str, Any] | None
    seeds: Sequence[Mapping[str, Any]]


def find_origin(model: Path) -> Origin | None:
    """The study around ``<study>/checkpoints/<model>``; None for a model that stands alone."""
    study = model.resolve().parents[1]
    if not (study / "study.json").is_file():
        return None
    record = StudyRecord.open(study).content
    table = study / "confirm.parquet"
    rows = read_table(table).to_pylist() if table.is_file() else []
    rows = [row for row in rows if not row["error"]]
    names = {f"confirm-{row['trial_id']}-seed{row['seed']}": row for row in rows}
    own = names.get(model.name, rows[0] if len(rows) == 1 and model.name == "model" else None)
    same = [row for row in rows if own is not None and row["number"] == own["number"]]
    return Origin(record, own, same)


def model_card(
    settings: Mapping[str, Any],
    label_names: Sequence[str],
    origin: Origin | None,
    files: Mapping[str, str],
    license_: str | None,
) -> str:
    """The card as Markdown.

    Args:
        settings: of the run, flat.
        label_names: K names.
        origin: where the model comes from.
        files: name to what it is, for each exported file.
        license_: of model and data, as the user states it.
    """
    dataset, method = settings["dataset"], settings["method"]
    shape = settings["input_shape"]
    takes = f"images {shape[1]} x {shape[2]}" if len(shape) == 3 else f"{shape[0]} features"
    if "input_vocabulary" in settings:
        takes = f"texts of up to {shape[0]} tokens"
    parts = [
        f"---\nlibrary_name: bbam-ray\ntags: [multi-label, semi-supervised]\n"
        f"license: {_quoted(license_) if license_ else 'unknown'}\n---\n",
        f"# {_plain(dataset)}: {len(label_names)} labels by {_plain(method)}\n",
        f"Takes {takes}; gives a score for each label, and decides by a threshold for each label.\n",
        "## Use\n",
        '```python\nfrom bbam_ray import load_model\n\nmodel = load_model("DIR")  # this folder\n'
        "model.predict_proba(inputs)  # (N, K); model.predict(inputs) decides\n```\n",
        "```\nbbam-ray predict --model DIR --input FOLDER --output scores.parquet\n```\n",
        "| file | content |\n|---|---|",
        *(f"| {_code(name)} | {_plain(what)} |" for name, what in files.items()),
        "",
        *_data(settings, origin),
        *_figures(origin),
        "## Labels\n",
        ", ".join(map(_plain, label_names[:_SHOWN_LABELS]))
        + (
            f", and {len(label_names) - _SHOWN_LABELS} more"
            if len(label_names) > _SHOWN_LABELS
            else ""
        )
        + "\n",
        "## Settings\n",
        "| setting | value |\n|---|---|",
        *(
            f"| {_code(name)} | {_plain(value)} |"
            for name, value in settings.items()
            if name != "data_dir"
        ),
        "",
        *_limits(origin),
        f"## Licence\n\n{_plain(license_ or 'Not stated by those who exported the model.')}\n",
    ]
    return "\n".join(parts)


def _quoted(text: str) -> str:
    """For YAML, on one line; who does not know the header for one sees no HTML in it either."""
    line = json.dumps(" ".join(text.split()))
    return re.sub(r"[<\[`|]", lambda mark: f"\\u{ord(mark[0]):04x}", line)


def _plain(value: object) -> str:
    """A text from outside in Markdown: no HTML, link, emphasis or cell of a table comes of it."""
    line = escape(redacted(" ".join(str(value).split())), quote=False)
    return re.sub(r"([\\`*|\[\]])", r"\\\1", line)


def _code(value: object) -> str:
    """The same as a span of code, in which nothing can be escaped."""
    line = redacted_command(" ".join(str(value).split()))
    return "`" + line.replace("`", "'").replace("|", "\\|") + "`"


def _data(settings: Mapping[str, Any], origin: Origin | None) -> list[str]:
    share = settings.get("labeled_fraction")
    lines = ["## Data and protocol\n", f"- data set: {_code(settings['dataset'])}"]
    own = origin.own if origin else None
    if own is not None:
        lines.append(
            f"- {own['n_labeled']} labelled training samples, {own['n_test']} test samples"
        )
    if share is not None:
        lines.append(f"- labels of {share:.1%} of the training samples were used")
    held = settings["validation_fraction"]
    if held:
        lines.append(f"- {held:.0%} of the labelled samples were held out for validation")
    else:
        lines.append(
            "- trained on all labelled samples; settings were chosen on a part of them before"
        )
    lines.append("- thresholds: highest F1 for each label on validation data; none on test data")
    lines.append(f"- seed {settings['seed']}, {settings['epochs']} epochs")
    if origin is not None:
        environment = origin.record["environment"]
        packages = (f"{n} {v}" for n, v in environment["packages"].items() if v)
        commit = environment["git_commit"] or "unknown"
        lines += [
            f"- study {_code(origin.record['study'])}, made by {_code(origin.record['command'])}",
            _plain(f"- {', '.join(packages)}; commit {commit}"),
        ]
    return [*lines, ""]


def _figures(origin: Origin | None) -> list[str]:
    if origin is None or origin.own is None:
        return ["## Figures\n", "No figures of the test part are on record for this model.\n"]
    rows = origin.seeds
    lines = [
        "## Figures on the test part\n",
        f"| measure | this model | {len(rows)} seeds, mean ± standard deviation |\n|---|---|---|",
    ]
    for name, metric in HEADLINE_METRICS.items():
        column = f"test_{name}"
        values = [row[column] for row in rows if not _missing(row[column])]
        if _missing(origin.own[column]) or not values:
            continue
        spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
        lines.append(f"| {metric.label} | {origin.own[column]:.4f} | {fmean(values):.4f}{spread} |")
    return [*lines, ""]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _limits(origin: Origin | None) -> list[str]:
    lines = [
        "## Limits\n",
        "- Scores are not calibrated probabilities: they order samples, and thresholds decide.",
        "- A label is only known as far as the labelled samples show it; other labels are never given.",
    ]
    if origin is not None and len(origin.seeds) > 1:
        lines.append("- The spread over seeds above says how much another training would differ.")
    return [*lines, ""]
