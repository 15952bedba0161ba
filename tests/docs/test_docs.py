"""The documents agree with the repository: links, headings, commands, settings, files and columns."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from docs.documents import (
    DOCUMENTS,
    ROOT,
    anchors,
    code_lines,
    commands,
    inline_code,
    links,
    name_of,
)

from bbam_ray.cli.main import app
from bbam_ray.config import TrainingConfig
from bbam_ray.data import DATASETS
from bbam_ray.methods import METHODS
from bbam_ray.results import schemas

_FOLDERS = ("bbam_ray/", "tests/", "benchmarks/", "stress/", "docs/", "launch/", "search_spaces/")
_EXAMPLES = ("mine.", "DATASET", "METHOD")  # names of files that a reader makes

every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)


@cache
def settings() -> set[str]:
    """Names of all settings."""
    parts = [TrainingConfig, *(DATASETS[n].Options for n in DATASETS)]
    parts += [METHODS[n].Options for n in METHODS]
    return {name for part in parts for name in part.model_fields}


def broken_links(path: Path, text: str) -> list[str]:
    """Relative links of a document that point to no file or to no heading."""
    wrong = []
    for link in links(text):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        known = file.exists() and (
            not anchor or anchor in anchors(text if file == path else file.read_text())
        )
        if not known:
            wrong.append(link)
    return wrong


@cache
def command_tree() -> Any:
    """The command line as an object; a group has its commands in ``commands``."""
    return typer.main.get_command(app)


def flags_of(command: Any) -> set[str]:
    """All spellings of the flags of a command."""
    return {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}


def unknown_words(words: list[str]) -> list[str]:
    """What the command line does not have: the command, its flags, the keys of --set."""
    command = command_tree()
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name, words = words[0].split("|")[0], words[1:]  # "data info|check" names several
        if name.isupper():
            return []
        if name not in command.commands:
            return [name]
        command = command.commands[name]
    known = flags_of(command) | {"--help"}
    wrong = [word for word in words if word.startswith("--") and word not in known]
    for flag, value in itertools.pairwise(words):
        if flag == "--set" and value.partition("=")[0] not in settings():
            wrong.append(f"--set {value}")
    return wrong


def missing_files(text: str) -> list[str]:
    """Paths in inline code that are not in the repository."""
    paths = [c.rstrip("/") for c in inline_code(text) if c.startswith(_FOLDERS) and " " not in c]
    paths = [p for p in paths if not any(example in p for example in _EXAMPLES)]
    return [p for p in paths if not any(ROOT.glob(p))]


@every_document
def test_links_point_to_files_and_headings(path: Path) -> None:
    assert broken_links(path, path.read_text()) == []


@every_document
def test_commands_and_flags_exist(path: Path) -> None:
    wrong = [(words, unknown_words(words)) for words in commands(path.read_text())]
    assert [pair for pair in wrong if pair[1]] == []


@every_document
def test_settings_in_running_text_exist(path: Path) -> None:
    text = path.read_text()
    given = [match[1] for code in inline_code(text) if (match := re.match(r"--set (\w+)=", code))]
    given += [key for line in code_lines(text) for key in re.findall(r"--set (\w+)=", line)]
    assert set(given) - settings() - {"key", "KEY", "NAME"} == set()


@pytest.mark.parametrize(
    "path",  # the READMEs of folders name flags of other programs
    [path for path in DOCUMENTS if path.name != "README.md" or path.parent == ROOT],
    ids=name_of,
)
def test_flags_in_running_text_exist(path: Path) -> None:
    every = [*command_tree().commands.values(), *command_tree().commands["data"].commands.values()]
    known = {flag for command in every for flag in flags_of(command)} | {
        "--help",
        "--version",
        "--write",
    }
    named = {code.split()[0] for code in inline_code(path.read_text()) if code.startswith("--")}
    assert named - known == set()


@every_document
def test_files_that_are_named_exist(path: Path) -> None:
    assert missing_files(path.read_text()) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[a](absent.md)", broken_links),
        ("[a](README.md#no-such-heading)", broken_links),
        ("# A\n[a](#b)", broken_links),
        ("`bbam_ray/absent.py`", missing_files),
    ],
)
def test_a_wrong_document_is_noticed(text: str, kind: object) -> None:
    found = missing_files(text) if kind is missing_files else broken_links(ROOT / "x.md", text)
    assert len(found) == 1


@pytest.mark.parametrize(
    "line",
    ["bbam-ray tuna", "bbam-ray tune --absent 1", "bbam-ray tune --set absent=1"],
)
def test_a_wrong_command_is_noticed(line: str) -> None:
    (words,) = commands(f"```\n{line}   # a comment\n```")
    assert len(unknown_words(words)) == 1


def test_every_column_is_explained() -> None:
    tables = [schemas.trials_schema({}), schemas.confirm_schema({}), schemas.COMPARE]
    tables += [schemas.SPLIT, schemas.HISTORY, schemas.LABELS]
    columns = {name for table in tables for name in table.names}
    metrics = {f"{part}_{name}" for part in ("val", "test") for name in schemas.METRIC_NAMES}
    explained = set(inline_code((ROOT / "docs" / "results.md").read_text()))
    assert columns - metrics - explained == set()


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
        pytest.skip("the site needs MkDocs: pip install 'bbam-ray[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    return folder


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(
        r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=\"?((?:https?:)?//[^\"\s>]+)"
    )
    styles = re.compile(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')\s]+)")
    pages = {p: p.read_text() for p in site.rglob("*.html")}
    sheets = {p: p.read_text() for p in site.rglob("*.css")}
    assert len(pages) > 20
    assert {p.name: found for p, t in pages.items() if (found := loads.findall(t))} == {}
    assert {p.name: found for p, t in sheets.items() if (found := styles.findall(t))} == {}


def test_every_page_of_the_navigation_is_in_the_site(site: Path) -> None:
    for page in ("index", "cli", "settings", "api/core", "benchmarks/index", "SECURITY"):
        assert (site / f"{page}.html").is_file()
