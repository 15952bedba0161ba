"""Ways to keep the workers of a command from starting, while the command itself starts well.

Each is a folder for PYTHONPATH, or variables of the environment. A folder has a ``sitecustomize.py``,
which every Python process runs first; it acts in the workers of Ray only.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import bbam_ray
from bbam_ray.errors import EXIT_FAILED
from stress.stored_study import CheckFailedError
from stress.study_process import StudyProcess

# The package that is missing or broken; every worker that trains needs it.
PACKAGE = "safetensors"
VERSION = "0.0.1"
# Imported by processes that train, and by no others.
_TRAINING = ("bbam_ray.scale.workers.trial_worker", "bbam_ray.scale.workers.train_worker")
MOST_TRIALS = 2  # that are tried in vain: as many as run at once
SHADOWED_MODULES = ("statistics", "random", "types", "queue", "secrets")

_IN_WORKERS = """
import sys

if any(word.endswith("default_worker.py") for word in sys.orig_argv):
{code}
"""
_FINDER = """
    import os

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name in {modules!r}:
                if log := os.environ.get("START_ATTEMPTS"):
                    with open(log, "a") as file:
                        print(os.getpid(), file=file)
                {action}

    sys.meta_path.insert(0, Finder())
"""


@dataclass(frozen=True)
class StartFault:
    """A way to keep workers from starting.

    Args:
        name: in the table.
        prepare: writes its files to an empty folder; returns variables of the environment.
        cause: what the sentence about it contains; empty if workers must start all the same.
    """

    name: str
    prepare: Callable[[Path], dict[str, str]]
    cause: str


def _on_path(folder: Path, code: str) -> dict[str, str]:
    """Run code at the start of each worker."""
    (folder / "sitecustomize.py").write_text(_IN_WORKERS.format(code=code))
    before = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), before)))}


def _on_import(modules: tuple[str, ...], action: str) -> Callable[[Path], dict[str, str]]:
    """Do something instead of importing a module, and note the process in a file, if there is one."""
    return lambda folder: _on_path(folder, _FINDER.format(modules=modules, action=action))


def _first_on_path(write: Callable[[Path], None]) -> Callable[[Path], dict[str, str]]:
    """Let workers find the modules of a folder before all others."""

    def prepare(folder: Path) -> dict[str, str]:
        modules = folder / "modules"
        modules.mkdir()
        write(modules)
        return _on_path(folder, f"    sys.path.insert(0, {str(modules)!r})")

    return prepare


def shadow(folder: Path, modules: Iterable[str] = SHADOWED_MODULES) -> None:
    """Write files with the names of modules of Python that fail when they are imported."""
    for name in modules:
        (folder / f"{name}.py").write_text(
            f"raise RuntimeError('not the module {name} of Python')\n"
        )


def _shadow_one(folder: Path) -> None:
    """Shadow a module that Ray itself does not import, so that a worker gets as far as the trial."""
    shadow(folder, ["statistics"])


def _other_version(folder: Path) -> None:
    source = Path(bbam_ray.__file__).parent
    copy = shutil.copytree(
        source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__")
    )
    file = copy / "__init__.py"
    file.write_text(file.read_text().replace(bbam_ray.__version__, VERSION))


def _broken_package(folder: Path) -> None:
    text = "lib.so: cannot open shared object file"
    (folder / f"{PACKAGE}.py").write_text(f"raise ImportError({text!r})\n")


def _no_environment(folder: Path) -> dict[str, str]:
    return {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": {"conda": "absent"}})}


def _nothing(folder: Path) -> dict[str, str]:
    shadow(folder)  # of the current folder
    return {}


MISSING = StartFault(
    "start: package missing",
    _on_import((PACKAGE,), f"""raise ModuleNotFoundError("No module named '{PACKAGE}'")"""),
    f"ModuleNotFoundError: No module named '{PACKAGE}'",
)
SHADOWED = StartFault(
    "start: module shadowed",
    _first_on_path(_shadow_one),
    "modules/statistics.py hides the module statistics of Python",
)
WRONG_VERSION = StartFault(
    "start: wrong version",
    _first_on_path(_other_version),
    f"bbam-ray {VERSION} instead of {bbam_ray.__version__}",
)
IMPORT_ERROR = StartFault(
    "start: import error",
    _first_on_path(_broken_package),
    "ImportError: lib.so: cannot open shared object file",
)
DIES = StartFault(
    "start: worker dies",
    _on_import(_TRAINING, "os._exit(1)"),
    "its process died while it started",
)
NO_ENVIRONMENT = StartFault(
    "start: no runtime environment", _no_environment, "its runtime environment cannot be set up"
)
CURRENT_FOLDER = StartFault("start: modules shadowed by the current folder", _nothing, "")
START_FAULTS = (
    CURRENT_FOLDER,
    MISSING,
    SHADOWED,
    WRONG_VERSION,
    IMPORT_ERROR,
    DIES,
    NO_ENVIRONMENT,
)


def try_to_start(study: StudyProcess, cause: str) -> None:
    """Run a command whose workers cannot start, and remove the cause.

    Raises:
        CheckFailedError: it did not fail at once, with one sentence and failed trials in its table.
    """
    study.start()
    code = study.wait_for_end()
    study.variables.clear()
    if not cause:
        if code:
            raise CheckFailedError(f"exit code {code}, and the fault should do no harm")
        return
    sentences = [line for line in study.output.splitlines() if line.startswith("error: ")]
    if code != EXIT_FAILED or len(sentences) != 1 or cause not in sentences[0]:
        raise CheckFailedError(f"exit code {code} with {sentences} instead of one on '{cause}'")
    if "Traceback" in study.output:
        raise CheckFailedError("a traceback instead of a sentence")
    trials = study.table("trials")
    if (
        set(trials["state"]) != {"FAILED"}
        or not trials["error"].str.contains(cause, regex=False).all()
    ):
        raise CheckFailedError(f"trials {trials[['state', 'error']].to_dict('records')}")
    if len(trials) > MOST_TRIALS:
        raise CheckFailedError(f"{len(trials)} trials were tried")
