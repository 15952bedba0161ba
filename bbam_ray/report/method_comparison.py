"""The table of a comparison of methods, as Markdown and as an HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from bbam_ray.core.metric_names import HEADLINE_METRICS
from bbam_ray.report.markdown import render_markdown
from bbam_ray.report.page import render_page
from bbam_ray.results.comparison import Cell, Line

LEGEND = (
    "Mean ± standard deviation over seeds. Bold: the best mean. ≈: not significantly different from the "
    "best (paired t-test over seeds, p ≥ 0.05)."
)
UNTESTED = " A difference over a single seed is not tested, and marked as well."


def cell_text(cell: Cell) -> str:
    """ "0.853 ± 0.012", with ≈ where the difference from the best is not significant."""
    deviation = "" if cell.deviation is None else f" ± {cell.deviation:.3f}"
    return f"{cell.mean:.3f}{deviation}{' ≈' if cell.within_noise else ''}"


def column_names() -> list[str]:
    """The header of each column."""
    metrics = [metric.label for metric in HEADLINE_METRICS.values()]
    return ["labelled", "method", *metrics, "s / epoch", "VDFD"]


def row_texts(line: Line) -> list[str]:
    """A text per column."""
    seconds = "" if line.seconds_per_epoch is None else f"{line.seconds_per_epoch:.2f}"
    vdfd = "" if line.vdfd is None else f"{line.vdfd:.4f}"
    metrics = [cell_text(line.cells[name]) for name in HEADLINE_METRICS]
    return [f"{line.labeled_fraction:.0%}", f"{line.entry}", *metrics, seconds, vdfd]


def row_bold(line: Line) -> list[bool]:
    """Per column, whether it is the best value of this label fraction."""
    return [False, False, *(line.cells[name].best for name in HEADLINE_METRICS), False, False]


def comparison_markdown(lines: Sequence[Line]) -> str:
    """A table in Markdown, with its legend."""
    text = render_markdown("method_comparison.md.j2", **_content(lines))
    return text.rstrip("\n")


def comparison_html(title: str, lines: Sequence[Line], command: str) -> str:
    """An HTML page with the table.

    Args:
        command: that made the comparison.
    """
    return render_page("method_comparison.html.j2", title=title, command=command, **_content(lines))


def _content(lines: Sequence[Line]) -> dict[str, object]:
    rows = [list(zip(row_texts(line), row_bold(line), strict=True)) for line in lines]
    cells = [cell for line in lines for cell in line.cells.values()]
    untested = any(cell.p_value is None and not cell.best for cell in cells)
    legend = LEGEND + (UNTESTED if untested else "")
    return {"columns": column_names(), "rows": rows, "legend": legend}
