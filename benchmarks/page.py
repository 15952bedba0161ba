"""Write generated tables into a Markdown page, between markers."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from bbam_ray.files import write_text
from bbam_ray.results.study import describe_environment


def write_section(page: Path, name: str, text: str) -> None:
    """Replace the text between ``<!-- name -->`` and ``<!-- /name -->``."""
    content = page.read_text(encoding="utf-8")
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not marked.search(content):
        raise SystemExit(f"{page}: no markers <!-- {name} --> and <!-- /{name} -->")
    write_text(page, marked.sub(lambda match: match[1] + text + "\n" + match[2], content))


def hardware() -> str:
    """One line with the hardware, versions, commit and date of a measurement."""
    facts = describe_environment(None)
    versions = ", ".join(
        f"{name} {facts['packages'][name]}" for name in ("torch", "ray", "optuna", "pyarrow")
    )
    commit = (facts["git_commit"] or "unknown")[:9]
    day = datetime.now(UTC).date().isoformat()
    return f"{facts['cpu_count']} CPUs, no GPU; {versions}; commit {commit}, {day}."
