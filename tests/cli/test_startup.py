"""The command line starts fast: help and wrong flags load no library that takes long."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bbam_ray.cli.export import Format

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "ray", "optuna", "pandas", "plotly", "sklearn", "scipy", "PIL")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["tune", "--help"], 0),
        (["data", "--help"], 0),
        (["tune", "--epoch", "3"], 2),
    ],
)
def test_help_and_wrong_flags_load_nothing_heavy(arguments: list[str], code: int) -> None:
    script = f"""
import json, sys
from bbam_ray.cli.main import main
try:
    main({arguments!r})
except SystemExit as end:
    print(json.dumps([end.code, [name for name in {HEAVY!r} if name in sys.modules]]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert json.loads(ended.stdout.splitlines()[-1]) == [code, []]


@pytest.mark.parametrize("path", sorted((ROOT / "bbam_ray" / "commands").glob("*.py")), ids=str)
def test_commands_neither_print_nor_know_flags(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & {"typer", "rich"}
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in ("typer", "rich")
        elif isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in ("print", "sys.stdout.write", "sys.stderr.write")


def test_export_offers_the_formats_that_exist() -> None:
    from bbam_ray.commands.export import FORMATS

    assert [form.value for form in Format] == list(FORMATS)
