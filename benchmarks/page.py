"""Figures in a Markdown page: they are written between markers by the command that measured them."""

from __future__ import annotations

import re
from pathlib import Path

from bbam_ray.results.store import write_text


def write_section(page: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->``."""
    before = page.read_text(encoding="utf-8")
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not marked.search(before):
        raise SystemExit(f"{page}: no markers <!-- {name} --> and <!-- /{name} -->")
    write_text(page, marked.sub(lambda found: found[1] + text + "\n" + found[2], before))
