"""Generated pages and the schema of space files are current, and a change of the code is noticed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from docs.documents import ROOT


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/site/generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def contents(generate: ModuleType) -> dict[Path, str]:
    return generate.generated_files()


def test_generated_files_are_current(contents: dict[Path, str]) -> None:
    outdated = [p.name for p, text in contents.items() if p.read_text(encoding="utf-8") != text]
    assert outdated == [], "run: make generated"


def test_the_command_line_page_has_whole_sentences(contents: dict[Path, str]) -> None:
    page = contents[ROOT / "docs" / "cli.md"]
    assert "## `bbam-ray tune`" in page and "`--sampler" in page and "&gt;" not in page
    assert not [x for x in page.splitlines() if x.startswith("- ") and x.endswith("...")]


def test_an_outdated_page_is_noticed_and_rewritten(
    generate: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = tmp_path / "cli.md"
    page.write_text("old", encoding="utf-8")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "generated_files", lambda: {page: "new"})
    assert generate.main(["--check"]) == 1
    assert "cli.md is out of date; run: make generated" in capsys.readouterr().out
    assert generate.main([]) == 0 and page.read_text(encoding="utf-8") == "new"
    assert generate.main(["--check"]) == 0
