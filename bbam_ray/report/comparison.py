"""The table of a comparison as Markdown and as an offline page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bbam_ray.core.metric_names import HEADLINE_METRICS
from bbam_ray.report.page import page
from bbam_ray.results.comparison import Cell, Line

LEGEND = (
    "Mean ± standard deviation over seeds. Bold: the best mean. ≈: cannot be told from the best (paired "
    "t-test over seeds, p ≥ 0.05)."
)


def cell_text(cell: Cell) -> str:
    """ "0.853 ± 0.012", with a mark where it cannot be told from the best."""
    spread = "" if cell.deviation is None else f" ± {cell.deviation:.3f}"
    return f"{cell.mean:.3f}{spread}{' ≈' if cell.within_noise else ''}"


def heads() -> list[str]:
    return [
        "labelled",
        "method",
        *(m.label for m in HEADLINE_METRICS.values()),
        "s / epoch",
        "VDFD",
    ]


def texts(line: Line) -> list[str]:
    """A line's entries, without any mark of the best."""
    seconds = "" if line.seconds_per_epoch is None else f"{line.seconds_per_epoch:.2f}"
    vdfd = "" if line.vdfd is None else f"{line.vdfd:.4f}"
    figures = [cell_text(line.cells[measure]) for measure in HEADLINE_METRICS]
    return [f"{line.labeled_fraction:.0%}", f"{line.entry}", *figures, seconds, vdfd]


def bold(line: Line) -> list[bool]:
    """Which entries of a line are the best of their column at this label fraction."""
    return [False, False, *(line.cells[measure].best for measure in HEADLINE_METRICS), False, False]


def markdown(lines: Sequence[Line]) -> str:
    """A table in Markdown, with its legend."""
    rows = ["| " + " | ".join(heads()) + " |", "|" + "---|" * len(heads())]
    for line in lines:
        cells = zip(texts(line), bold(line), strict=True)
        marked = (f"**{t}**" if best else t.replace("|", "\\|") for t, best in cells)
        rows.append("| " + " | ".join(marked) + " |")
    return "\n".join([*rows, "", LEGEND])


def html(title: str, lines: Sequence[Line], command: str) -> str:
    """An offline page with the table."""
    rows = ["<tr>" + "".join(f"<th>{escape(head)}</th>" for head in heads()) + "</tr>"]
    for line in lines:
        cells = zip(texts(line), bold(line), strict=True)
        marked = (f"<b>{escape(t)}</b>" if best else escape(t) for t, best in cells)
        rows.append("<tr>" + "".join(f"<td>{text}</td>" for text in marked) + "</tr>")
    body = (
        f"<h1>{escape(title)}</h1><div class='wide'><table>{''.join(rows)}</table></div>"
        f"<p>{escape(LEGEND)}</p><h2>Made by</h2><pre>{escape(command)}</pre>"
    )
    return page(title, body)
