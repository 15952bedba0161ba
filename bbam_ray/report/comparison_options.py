"""Options of ``bbam-ray compare`` for a study: its method against the baselines."""

from __future__ import annotations

from bbam_ray.report.report_data import ReportData
from bbam_ray.report.study_command import as_text
from bbam_ray.report.verdict import labeled_fraction

_BASELINES = ("supervised", "logistic", "propagation", "logistic+propagation")
#: Settings that ``bbam-ray compare`` takes as flags, or sets by itself.
_FLAGS = (
    *("dataset", "method", "seed", "data_dir", "labeled_fraction", "device", "folds", "fold"),
    "reshuffle",
)


def comparison_options(data: ReportData) -> list[str]:
    """Words of the command line: the same data, labelled share, folds and number of trials.

    Settings of the method belong to its entry of ``--methods``; those of training and data are shared.
    """
    record, settings = data.record, dict(data.record.get("settings") or {})
    method = str(record["method"])
    of_method, shared = [], []
    for name, value in settings.items():
        if name in _FLAGS or value is None:
            continue
        if name in record.get("method_settings", ()):
            of_method.append(f"{name}={as_text(value)}")
        else:
            shared += ["--set", f"{name}={as_text(value)}"]
    entry = f"{method}:{'+'.join(of_method)}" if of_method else method
    flags = {
        "--dataset": record["dataset"],
        "--data-dir": settings.get("data_dir"),
        "--methods": ",".join([entry, *(name for name in _BASELINES if name != method)]),
        "--labeled-fractions": labeled_fraction(data),
        "--tune-samples": record.get("num_samples") or len(data.trials),
        "--folds": settings.get("folds"),
        "--seed": record.get("seed") or None,
    }
    words = [
        word for flag, value in flags.items() if value is not None for word in (flag, str(value))
    ]
    return [*words, *shared]
