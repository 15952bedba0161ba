"""The order of imports, read from the source, and a proof that the reader notices violations."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
TIERS = (
    {
        *("errors", "files", "documents", "optional", "config", "distributed", "registry"),
        *("pretrained", "pretrained_images"),
    },
    {"core"},
    {"models", "data", "results"},
    {"methods", "report"},
    {"engine"},
    {"scale"},
    {"commands"},
    {"cli", "api"},
    {"launch", "benchmarks"},
    {"stress"},
)
TIER = {part: place for place, parts in enumerate(TIERS) for part in parts}
SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("bbam_ray", "launch", "benchmarks", "stress")
    for path in (ROOT / folder).rglob("*.py")
)


@dataclass(frozen=True)
class Import:
    """A module that a file names.

    Args:
        at_load: loading the file loads the module.
        typing_only: nothing loads it but a type checker.
    """

    module: str
    line: int
    at_load: bool
    typing_only: bool


def imports(source: str, package: str) -> Iterator[Import]:
    """All imports of a source text; ``from a import b`` counts as ``a`` and as ``a.b``."""

    def walk(node: ast.AST, at_load: bool, typing_only: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, child.lineno, at_load, typing_only)
            elif isinstance(child, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - child.level + 1]
                base = ".".join([*(above if child.level else []), *filter(None, [child.module])])
                for name in (base, *(f"{base}.{alias.name}" for alias in child.names)):
                    yield Import(name, child.lineno, at_load, typing_only)
            elif isinstance(child, ast.Attribute) and ast.unparse(child) == "torch.distributed":
                yield Import("torch.distributed", child.lineno, at_load, typing_only)
            typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            lazy = typing or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            yield from walk(child, at_load and not lazy, typing_only or typing)

    return walk(ast.parse(source), True, False)


def part_of(module: str) -> str | None:
    """The part of this project that a module belongs to; None for all others."""
    names = module.split(".")
    if names[0] == "bbam_ray":
        return names[1] if len(names) > 1 and names[1] in TIER else None
    return names[0] if names[0] in ("launch", "benchmarks", "stress") else None


def violations(file: str, source: str) -> list[str]:
    """What a file imports against the rules, as readable lines."""
    names = PurePosixPath(file).with_suffix("").parts
    own = part_of(".".join(names))
    found = []
    for item in imports(source, ".".join(names[:-1])):
        top, place = item.module.split(".")[0], f"{file}:{item.line} imports {item.module}"
        other = part_of(item.module)
        if other is not None:
            beside = TIER.get(other) == 0 and own in TIERS[0]
            door = file == "bbam_ray/__init__.py" and other == "api" and not item.at_load
            if door:
                continue
            if own is None or not (other == own or beside or TIER[other] < TIER[own]):
                found.append(f"{place}: {own} may not import {other}")
        if own in ("results", "report") and top in ("torch", "torchvision", "ray", "optuna"):
            found.append(f"{place}: {own} is read without {top}")
        if top in ("ray", "optuna") and own != "scale":
            found.append(f"{place}: only scale imports {top}")
        if item.module.startswith("torch.distributed") and own != "distributed":
            found.append(f"{place}: only distributed.py does")
        if top in ("typer", "rich") and own in TIER and TIER[own] <= TIER["api"] and own != "cli":
            found.append(f"{place}: only cli knows flags and draws on a console")
        if own in ("cli", "api") and other in ("scale", "engine", "models"):
            loads_model = own == "api" and "bbam_ray.engine.model" in item.module
            if not (item.typing_only or loads_model):
                found.append(f"{place}: {own} calls commands")
        if own == "cli" and other == "commands" and item.at_load and not _is_light(item.module):
            found.append(f"{place}: loads torch or Ray before the flags are read")
    if own == "commands":
        found += [f"{file}:{line} prints" for line in prints(source)]
    return found


# Modules of commands that load neither torch nor Ray; test_importing_loads_nothing checks it.
LIGHT = ("checks", "choices", "gpus", "listener", "progress_lines", "study_progress")


def _is_light(module: str) -> bool:
    name = module.removeprefix("bbam_ray.commands").removeprefix(".").split(".")[0]
    return name in ("", *LIGHT)


def prints(source: str) -> Iterator[int]:
    """Lines that write to standard output or standard error."""
    writers = ("print", "sys.stdout.write", "sys.stderr.write")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in writers:
            yield node.lineno


@pytest.mark.parametrize("file", SOURCES)
def test_a_file_imports_only_what_lies_below_it(file: str) -> None:
    assert violations(file, (ROOT / file).read_text(encoding="utf-8")) == []


def test_every_part_of_the_project_has_its_place_in_the_order() -> None:
    parts = {PurePosixPath(file).parts[1].removesuffix(".py") for file in SOURCES if "/" in file}
    package = {p for p in parts if (ROOT / "bbam_ray" / p).is_dir()}
    package |= {p.stem for p in (ROOT / "bbam_ray").glob("*.py")} - {"__init__"}
    assert package == set().union(*TIERS[:-2])


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("bbam_ray/core/x.py", "from bbam_ray.data import DATASETS"),
        ("bbam_ray/core/x.py", "def f():\n    import bbam_ray.engine.trainer"),
        ("bbam_ray/core/x.py", "from ..engine import trainer"),
        ("bbam_ray/config.py", "from bbam_ray import core"),
        ("bbam_ray/data/x.py", "from bbam_ray.models import Network"),
        ("bbam_ray/methods/x.py", "from bbam_ray.engine.task import TrainingData"),
        ("bbam_ray/engine/x.py", "import ray"),
        ("bbam_ray/engine/x.py", "if TYPE_CHECKING:\n    from optuna import Trial"),
        ("bbam_ray/engine/x.py", "def f():\n    from bbam_ray.scale import space"),
        ("bbam_ray/cli/x.py", "def f():\n    import ray.tune"),
        ("bbam_ray/cli/tune.py", "from bbam_ray.scale.study.run import StudyPlan"),
        ("bbam_ray/cli/tune.py", "def f():\n    from bbam_ray.scale.study.run import A"),
        ("bbam_ray/cli/tune.py", "def f():\n    from bbam_ray.engine import trainer"),
        ("bbam_ray/cli/tune.py", "from bbam_ray.commands import tune"),
        ("bbam_ray/cli/tune.py", "from bbam_ray.commands.tune import run"),
        ("bbam_ray/api.py", "def f():\n    from bbam_ray.cli.tune import tune"),
        ("bbam_ray/api.py", "def f():\n    from bbam_ray.scale.study.run import A"),
        ("bbam_ray/commands/x.py", "from bbam_ray.cli import options"),
        ("bbam_ray/commands/x.py", "from bbam_ray.api import train"),
        ("bbam_ray/commands/x.py", "from typer import Option"),
        ("bbam_ray/commands/x.py", "if TYPE_CHECKING:\n    from rich.console import Console"),
        ("bbam_ray/commands/x.py", "def f():\n    print(1)"),
        ("bbam_ray/commands/x.py", "import sys\nsys.stderr.write('a')"),
        ("bbam_ray/scale/x.py", "from bbam_ray.commands import checks"),
        ("bbam_ray/scale/x.py", "import rich"),
        ("bbam_ray/results/x.py", "from torch import Tensor"),
        ("bbam_ray/report/x.py", "def f():\n    import torch.nn"),
        ("bbam_ray/engine/x.py", "import torch.distributed as dist"),
        ("bbam_ray/engine/x.py", "from torch import distributed"),
        ("bbam_ray/core/x.py", "import torch\ntorch.distributed.all_reduce(1)"),
        ("bbam_ray/scale/x.py", "import launch.tune"),
        ("bbam_ray/__init__.py", "from bbam_ray.core import losses"),
        ("bbam_ray/__init__.py", "from bbam_ray.api import train"),
    ],
)
def test_the_reader_notices_a_violation(file: str, source: str) -> None:
    assert len(violations(file, source)) >= 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("bbam_ray/core/x.py", "from bbam_ray import distributed\nfrom bbam_ray.core import rows"),
        ("bbam_ray/core/x.py", "from . import rows\nfrom .rows import row_blocks"),
        ("bbam_ray/config.py", "from bbam_ray.errors import UsageError"),
        ("bbam_ray/scale/x.py", "import ray, optuna\nfrom bbam_ray.engine.trainer import Trainer"),
        ("bbam_ray/cli/tune.py", "if TYPE_CHECKING:\n    from bbam_ray.scale.study.run import A"),
        ("bbam_ray/cli/tune.py", "def f():\n    from bbam_ray.commands import tune"),
        ("bbam_ray/cli/tune.py", "import typer\nfrom bbam_ray.commands import checks\nprint(1)"),
        ("bbam_ray/api.py", "def f():\n    from bbam_ray.engine.model import load_model"),
        ("bbam_ray/commands/x.py", "import torch\nfrom bbam_ray.scale.study.run import A"),
        ("bbam_ray/distributed.py", "import torch.distributed as dist"),
        ("bbam_ray/__init__.py", "if TYPE_CHECKING:\n    from bbam_ray.api import train"),
    ],
)
def test_the_reader_lets_the_allowed_pass(file: str, source: str) -> None:
    assert violations(file, source) == []


@pytest.mark.parametrize("folder", ["bbam_ray", "launch", "benchmarks", "stress", "tests"])
def test_no_file_or_folder_has_a_name_that_says_nothing(folder: str) -> None:
    empty = {"util", "utils", "helper", "helpers", "common", "misc"}
    assert not [path for path in (ROOT / folder).rglob("*") if path.stem in empty]


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """Which heavy packages are loaded after each of three imports, in a fresh interpreter."""
    code = """
import json, sys
def loaded():
    return [n for n in ("torch", "ray", "optuna") if n in sys.modules]
import bbam_ray.results.store, bbam_ray.results.study, bbam_ray.results.summary
import bbam_ray.report.study_report
seen = {"results and report": loaded()}
import bbam_ray.cli.main
from bbam_ray.commands import LIGHT
seen["command line"] = loaded()
import bbam_ray.engine.confirm, bbam_ray.engine.model_folder, bbam_ray.engine.trainer
seen["engine"] = loaded()
print(json.dumps(seen))
""".replace("LIGHT", ", ".join(LIGHT))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("after", "allowed"),
    [("results and report", set()), ("command line", set()), ("engine", {"torch"})],
)
def test_importing_loads_nothing_that_belongs_further_up(
    after: str, allowed: set[str], loaded: dict[str, list[str]]
) -> None:
    assert set(loaded[after]) <= allowed
    assert "torch" in loaded["engine"]
