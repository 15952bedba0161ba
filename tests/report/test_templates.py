"""Templates: HTML and Markdown come from files, every value is escaped, and a missing one is an error."""

from __future__ import annotations

import ast
import re
from importlib import resources
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from bbam_ray.report import markdown, page
from bbam_ray.report.markdown import escaped
from bbam_ray.report.method_comparison import comparison_html

REPORT = Path(__file__).parents[2] / "bbam_ray" / "report"
TAG = re.compile(
    r"</?(a|b|br|button|code|details|div|extra|h\d|html|meta|option|p|pre|script|section|select|small|span"
    r"|style|table|t[dhr]|tbody|thead|title)[ >/]"
)
#: Plotly's own markup in figures, and the mark by which we recognize our pages
ALLOWED = re.compile(r'</?(?:b|br|extra)>|<meta name="generator" content="')


def strings(path: Path) -> list[str]:
    """All string constants of a Python file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


@pytest.mark.parametrize("path", sorted(REPORT.glob("*.py")), ids=lambda path: path.name)
def test_no_python_file_contains_html(path: Path) -> None:
    assert not [text for text in strings(path) if TAG.search(ALLOWED.sub("", text))]


@pytest.mark.parametrize("name", ["templates", "assets"])
def test_templates_and_assets_are_files_of_the_package(name: str) -> None:
    files = list((resources.files("bbam_ray.report") / name).iterdir())
    assert files and all(path.is_file() for path in files)


def test_templates_do_not_switch_escaping_off() -> None:
    for path in (REPORT / "templates").iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape", text), path


@pytest.mark.parametrize("environment", [page._environment(), markdown._environment()])
def test_values_are_escaped_and_missing_ones_are_errors(environment: object) -> None:
    template = environment.from_string("{{ text }}")  # type: ignore[attr-defined]
    assert template.render(text="<b>&") == "&lt;b&gt;&amp;"
    with pytest.raises(UndefinedError):
        template.render()


def test_markdown_text_starts_no_emphasis_link_code_or_cell() -> None:
    assert escaped("*a* [b](c) `d` | e\n# f") == r"\*a\* \[b\](c) \`d\` \| e # f"
    assert escaped(escaped("*")) == r"\*"


def test_a_page_marks_itself_as_ours(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(comparison_html("t", [], "c"), encoding="utf-8")
    page.check_replaceable(path)
