"""The frame of every page that is made here: one offline file, light and dark, also on a phone."""

from __future__ import annotations

from html import escape

_STYLE = """
:root { color-scheme: light dark; --text: #1c2430; --ground: #fff; --line: #d5dae2; --soft: #f4f6f9; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e8ee; --ground: #14181f; --line: #353c48; --soft: #1d232c; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--ground);
  max-width: 64rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: .85rem; } .wide { overflow-x: auto; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line);
  text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr.best { font-weight: 600; background: var(--soft); }
pre { background: var(--soft); padding: .8rem; overflow-x: auto; }
.answer { font-size: 1.1rem; }
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
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f"{head}</head><body>{body}</body></html>\n"
    )
