"""Pages that live next to what they describe (benchmarks/README.md, SECURITY.md ...) join the site.

All links are written for the repository, so that they work where its files are browsed. Here they are
rewritten: to the page of the site where there is one, else to plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "benchmarks/comparison.md",
    "launch/cluster/README.md",
    "launch/monitoring/README.md",
    "search_spaces/README.md",
    "stress/README.md",
)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
_CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside of ``docs/`` under their paths in the repository."""
    for path in PAGES:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page; code blocks stay as they are."""
    source = page.file.src_uri
    here = source if source in PAGES else f"docs/{source}"
    parts, end = [], 0
    for block in _CODE.finditer(markdown):
        parts += [_rewritten(markdown[end : block.start()], here, source), block[0]]
        end = block.end()
    return "".join([*parts, _rewritten(markdown[end:], here, source)])


def _rewritten(text: str, here: str, source: str) -> str:
    def link(match: re.Match[str]) -> str:
        image, label, target, anchor = match[1], match[2], match[3], match[4] or ""
        if not target or ":" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        if path.startswith("docs/"):
            path = path.removeprefix("docs/")
        elif path not in PAGES:
            return label
        relative = posixpath.relpath(path, posixpath.dirname(source) or ".")
        return f"{image}[{label}]({relative}{anchor})"

    return _LINK.sub(link, text)
