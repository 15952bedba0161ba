"""``report.html``: one offline page about a study."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from bbam_ray.errors import UsageError
from bbam_ray.report.page import page
from bbam_ray.results.schemas import COMPLETE
from bbam_ray.results.store import read_table, write_text
from bbam_ray.results.study import StudyRecord
from bbam_ray.results.summary import confirmed_figures


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a study's folder and return its path.

    Raises:
        UsageError: no study there, or one without an ended trial.
    """
    record = StudyRecord.open(folder).content
    trials = read_table(folder / "trials.parquet").to_pandas() if _has(folder, "trials") else None
    if trials is None or trials.empty:
        raise UsageError(f"{folder}: no trial of this study has ended yet; nothing to report")
    history = read_table(folder / "history.parquet").to_pandas()
    labels = read_table(folder / "labels.parquet").to_pandas()
    confirm = (
        read_table(folder / "confirm.parquet").to_pandas() if _has(folder, "confirm") else None
    )
    metric = record["space"]["metric"]
    complete = trials[trials.state == COMPLETE].sort_values(
        [metric, "number"], ascending=[record["space"]["mode"] == "min", True]
    )
    parts = [
        f"<h1>{escape(record['study'])}: {escape(record['dataset'])}, {escape(record['method'])}</h1>"
    ]
    best = complete.iloc[0] if len(complete) else None
    parts.append(_answer(record, best, complete, metric, confirm))
    parts.append(_trials(trials, best, metric))
    if "pareto" in trials and trials.pareto.notna().any():
        parts.append(_section("Pareto set", _pareto(trials, record["space"])))
    parts.append(_section("Learning curves", _curves(history, metric, best)))
    if best is not None:
        mine = labels[labels.number == best.number]
        if mine.vdfd.notna().any():
            figure = _by_label(mine, "vdfd", "|variance of positives - negatives| (rad²)")
            parts.append(_section("Variance bias (VDFD) per label, best trial", figure))
        parts.append(
            _section("Validation AP per label, best trial", _by_label(mine, "val_ap", "AP"))
        )
    parts.append(_environment(record))
    whole = page(record["study"], "".join(parts), f"<script>{get_plotlyjs()}</script>")
    path = folder / "report.html"
    write_text(path, whole)
    return path


def _has(folder: Path, table: str) -> bool:
    return (folder / f"{table}.parquet").is_file()


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _answer(
    record: dict[str, Any],
    best: Any,
    complete: pd.DataFrame,
    metric: str,
    confirm: pd.DataFrame | None,
) -> str:
    if best is None:
        return '<p class="answer">No trial was completed.</p>'
    lines = [
        f"Best of {len(complete)} complete trials: <b>trial {best.number}</b>, "
        f"{escape(metric)} <b>{best[metric]:.4f}</b> on validation data (epoch {best.best_epoch:g})."
    ]
    first = complete[complete.number == 0]
    if len(first):
        lines.append(f"Published settings (trial 0): {first.iloc[0][metric]:.4f}.")
    figures = []
    if confirm is not None:
        figures = confirmed_figures(confirm.to_dict("records"))  # type: ignore[arg-type]
    for row in figures:
        spread = f" &plusmn; {row.deviation:.4f}" if row.deviation is not None else ""
        lines.append(
            f"Confirmed on the test part (rank {row.rank}, {row.seeds} seeds): mAP "
            f"<b>{row.mean:.4f}</b>{spread}."
        )
    status = "" if record["status"] == "COMPLETE" else f" Status: {escape(record['status'])}."
    return f'<p class="answer">{"<br>".join(lines)}{status}</p>'


def _trials(trials: pd.DataFrame, best: Any, metric: str) -> str:
    settings = [name for name in trials.columns if name.startswith("param_")]
    columns = ["number", "state", metric, "best_epoch", "epochs", "duration_s", *settings]
    if trials.error.notna().any():
        columns.append("error")
    head = "".join(f"<th>{escape(name.removeprefix('param_'))}</th>" for name in columns)
    body = []
    for _, row in trials.sort_values("number").iterrows():
        mark = ' class="best"' if best is not None and row.number == best.number else ""
        cells = "".join(f"<td>{escape(_number(row[name]))}</td>" for name in columns)
        body.append(f"<tr{mark}>{cells}</tr>")
    return (
        f'<h2>Trials</h2><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _section(title: str, figure: go.Figure) -> str:
    figure.update_layout(
        template="plotly_white",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#7a8594"},
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        height=380,
    )
    drawn = figure.to_html(
        full_html=False, include_plotlyjs=False, config={"displayModeBar": False}
    )
    return f"<h2>{escape(title)}</h2>{drawn}"


def _curves(history: pd.DataFrame, metric: str, best: Any) -> go.Figure:
    figure = go.Figure()
    for number, rows in history.groupby("number"):
        is_best = best is not None and number == best.number
        figure.add_scatter(
            x=rows.epoch.tolist(),
            y=rows[metric].tolist(),
            name=f"trial {number}",
            line={"width": 4 if is_best else 1.5},
        )
    warm = history[history.phase == "warmup"].epoch
    if len(warm) and (history.phase == "main").any():
        figure.add_vline(x=float(warm.max()) + 0.5, line_dash="dot", annotation_text="main phase")
    return figure.update_xaxes(title="epoch").update_yaxes(title=metric)


def _pareto(trials: pd.DataFrame, space: dict[str, Any]) -> go.Figure:
    """The first two objectives of all complete trials, and the trials that none of them beats."""
    names = [space["metric"], space["also"][0][0]]
    complete = trials[trials.state == COMPLETE]
    figure = go.Figure()
    for title, rows in (
        ("others", complete[~complete.pareto.astype(bool)]),
        ("Pareto set", complete[complete.pareto.astype(bool)].sort_values(names[1])),
    ):
        figure.add_scatter(
            x=rows[names[1]].tolist(),
            y=rows[names[0]].tolist(),
            text=[f"trial {number}" for number in rows.number],
            mode="markers" if title == "others" else "lines+markers",
            name=title,
        )
    return figure.update_xaxes(title=names[1]).update_yaxes(title=names[0])


def _by_label(rows: pd.DataFrame, column: str, title: str) -> go.Figure:
    figure = go.Figure()
    for label, mine in rows.groupby("label", sort=False):
        known = mine[mine[column].notna()]
        figure.add_scatter(x=known.epoch.tolist(), y=known[column].tolist(), name=str(label))
    return figure.update_xaxes(title="epoch").update_yaxes(title=title)


def _environment(record: dict[str, Any]) -> str:
    environment = record["environment"]
    packages = ", ".join(
        f"{name} {value}" for name, value in environment["packages"].items() if value
    )
    facts = f"{packages}; Python {environment['python']}; {environment['cpu_count']} CPUs"
    facts += f"; {environment['gpu'] or 'no GPU'}; commit {environment['git_commit'] or 'unknown'}"
    return f"<h2>How to repeat it</h2><pre>{escape(record['command'])}</pre><p>{escape(facts)}</p>"
