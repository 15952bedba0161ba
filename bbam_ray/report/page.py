"""The frame of every page that is made here: one offline file, light and dark, also on a phone."""

from __future__ import annotations

from html import escape
from pathlib import Path

from bbam_ray.errors import UsageError

_MARK = '<meta name="generator" content="bbam-ray">'

# Plotly writes colours of text and grid into each element; rules with !important win over those, so a
# change of the colour scheme needs no script and redraws nothing.
_STYLE = """
:root { color-scheme: light dark; --text: #1c2430; --dim: #59636f; --ground: #fff; --line: #dde2e9;
  --soft: #f4f6f9; --link: #1f6fc4; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e8ee; --dim: #a3adba; --ground: #14181f; --line: #343b47; --soft: #1d232c;
    --link: #6aaef2; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--ground);
  max-width: 72rem; margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; margin: .5rem 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-bottom: .2rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; }
p { margin: .5rem 0; } .note { color: var(--dim); font-size: .9rem; }
.answer { font-size: 1.1rem; } .warn { font-weight: 600; }
table { border-collapse: collapse; font-size: .875rem; margin: .6rem 0; }
.wide { overflow-x: auto; max-width: 100%; } .wide:focus-visible { outline: 2px solid var(--link); }
.tall { max-height: 34rem; overflow-y: auto; }
.tall thead th { position: sticky; top: 0; background: var(--ground); }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line);
  text-align: right; white-space: nowrap; }
th:first-child, td:first-child, th.text, td.text { text-align: left; }
td.text { max-width: 40rem; overflow: hidden; text-overflow: ellipsis; }
tr.best { font-weight: 600; background: var(--soft); }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid var(--link); }
th button::after { content: " \\2195"; opacity: .35; }
th[aria-sort=ascending] button::after { content: " \\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: " \\2193"; opacity: 1; }
pre { background: var(--soft); padding: .8rem; font-size: .85rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
select { font: inherit; color: inherit; background: var(--soft); border: 1px solid var(--line);
  border-radius: 4px; padding: .15rem .4rem; max-width: 100%; }
.tables { display: flex; flex-wrap: wrap; gap: 0 2.5rem; } .tables > * { min-width: 0; }
.grid { display: grid; gap: .4rem 1.6rem; }
.half { grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
.third { grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.grid > *, .picture { min-width: 0; }
.js-plotly-plot .main-svg > g:not(.hoverlayer) text { fill: var(--text) !important; }
.js-plotly-plot .gridlayer path, .js-plotly-plot .zerolinelayer path,
.js-plotly-plot .shapelayer path { stroke: var(--line) !important; }
.js-plotly-plot .shapelayer path { stroke: var(--dim) !important; }
"""

# Rows without a value stay at the end in either direction.
_SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const number = head.dataset.kind === "number";
    const value = row => row.cells[column].dataset.value;
    const order = (a, b) => number ? Number(a) - Number(b) : a < b ? -1 : a > b ? 1 : 0;
    const rows = [...body.rows], known = rows.filter(row => value(row) !== undefined);
    known.sort((a, b) => (up ? 1 : -1) * order(value(a), value(b)) || 0);
    body.append(...known, ...rows.filter(row => value(row) === undefined));
  }));
}
for (const chooser of document.querySelectorAll("select[data-plot]")) {
  chooser.addEventListener("change", () => {
    const plot = document.getElementById(chooser.dataset.plot);
    Plotly.update(plot, ...plot.layout.meta[chooser.selectedIndex]);
  });
}
"""


def page(title: str, body: str, head: str = "") -> str:
    """A whole HTML document.

    Args:
        title: plain text.
        body, head: HTML.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{_MARK}<title>{escape(title)}</title><style>{_STYLE}</style>"
        f"{head}</head><body>{body}<script>{_SCRIPT}</script></body></html>\n"
    )


def check_replaceable(path: Path) -> None:
    """See that a page may be written to a path: nothing is there, or a page made here.

    Raises:
        UsageError: another file, a folder, or no folder to write into.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; make it or choose another")
    if not path.exists():
        return
    beginning = b""
    if path.is_file():
        with path.open("rb") as file:
            beginning = file.read(1000)
    if _MARK.encode() not in beginning:
        raise UsageError(f"{path} exists and is no page of bbam-ray; choose another --output")


def wide(content: str, name: str, *, tall: bool = False) -> str:
    """A box of its own to scroll in, reachable by keyboard.

    Args:
        content: HTML.
        name: for screen readers, plain text.
        tall: also limit its height.
    """
    kind = "wide tall" if tall else "wide"
    return f'<div class="{kind}" role="region" tabindex="0" aria-label="{escape(name)}">{content}</div>'
