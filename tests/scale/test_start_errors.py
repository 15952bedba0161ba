"""Causes and nodes of failed starts, read from errors as Ray raises them."""

from __future__ import annotations

import pickle

import pytest
from ray.exceptions import ActorDiedError, RayTaskError, RuntimeEnvSetupError, WorkerCrashedError

from bbam_ray.errors import MissingPackageError, StartError
from bbam_ray.scale.study.events import Event, NotStarted
from bbam_ray.scale.study.start_failures import StartFailures
from bbam_ray.scale.workers.start_errors import died_at_start, import_error, start_error

CLASS = """The actor died because of an error raised in its creation task, \
\x1b[36mray::Trial.__init__()\x1b[39m (pid=7, ip=10.0.0.3, actor_id=d8bb, repr=<TemporaryActor object>)
           ^^^^^^^^^^^^
RuntimeError: The actor with name Trial failed to import on the worker. This may be because needed \
library dependencies are not installed in the worker environment:

\x1b[36mray::Trial.__init__()\x1b[39m (pid=7, ip=10.0.0.3, actor_id=d8bb)
  File "/home/me/model.py", line 3, in <module>
    import safetensors
ModuleNotFoundError: No module named 'safetensors'"""
SHADOWED = """ray::f() (pid=6, ip=10.0.0.4)
RuntimeError: The remote function failed to import on the worker.
Traceback (most recent call last):
  File "/lib/python3.11/site-packages/bbam_ray/core/statistics.py", line 11, in <module>
    from bbam_ray.core import rows
  File "/lib/python3.11/site-packages/bbam_ray/engine/pruning_rule.py", line 11, in <module>
    from statistics import fmean
{carets}  File "{file}", line 1, in <module>
    raise KeyError(1)
KeyError: 1"""
DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: Trial
\tactor_id: dcc79d
\tpid: 1212
\tip: 10.0.0.5
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: \
Worker unexpectedly exits with a connection error code 2. End of file."""


def found(text: object) -> tuple[str, str]:
    error = start_error(text)
    assert error is not None
    return error.node, error.cause


def test_a_class_that_cannot_be_imported() -> None:
    assert found(CLASS) == ("10.0.0.3", "ModuleNotFoundError: No module named 'safetensors'")


def test_arguments_whose_class_cannot_be_imported() -> None:
    text = "System error: no\ntraceback: Traceback (most recent call last):\n(pid=1, ip=fe80::3)\n"
    assert found(
        text + "ray.exceptions.RaySystemError: System error: no\nImportError: lib.so: no"
    ) == (
        "fe80::3",
        "ImportError: lib.so: no",
    )


def test_a_runtime_environment_without_a_node_and_with_a_traceback() -> None:
    error = RuntimeEnvSetupError('Traceback:\n  File "a.py", line 1, in f\nValueError: no conda.')
    cause = "its runtime environment cannot be set up (ValueError: no conda)"
    assert found(error) == ("unknown", cause)


@pytest.mark.parametrize("carets", ["", "    ^^^^^^^^\n"])
def test_a_file_that_hides_a_module_of_python_is_named(carets: str) -> None:
    file = "/home/me/statistics.py"
    _, cause = found(SHADOWED.format(file=file, carets=carets))
    assert cause == f"KeyError: 1 ({file} hides the module statistics of Python)"
    _, cause = found(SHADOWED.format(file="/usr/lib/python3.11/statistics.py", carets=carets))
    assert cause == "KeyError: 1"


def test_a_name_that_a_hiding_file_lacks() -> None:
    message = "cannot import name 'fmean' from 'statistics' (/home/me/statistics.py)"
    _, cause = found(f"failed to import on the worker\nImportError: {message}")
    assert cause.endswith("(/home/me/statistics.py hides the module statistics of Python)")
    other = "cannot import name 'x' from 'torch.types' (/site-packages/torch/types.py)"
    _, cause = found(f"failed to import on the worker\nImportError: {other}")
    assert cause == f"ImportError: {other}"


def test_a_start_error_of_a_worker_arrives_as_it_was_raised() -> None:
    error = StartError("10.0.0.6", "torch 1.0.0 instead of 2.0.0")
    sent = RayTaskError("check", "Traceback", pickle.loads(pickle.dumps(error)), ip="10.0.0.1")
    assert found(sent) == (error.node, error.cause)
    assert found(sent.as_instanceof_cause()) == (error.node, error.cause)
    assert str(error) == f"a worker could not start on node 10.0.0.6: {error.cause}"


@pytest.mark.parametrize(
    "error",
    [
        DIED,
        WorkerCrashedError(),
        ActorDiedError(),
        RayTaskError("step", "Traceback\nValueError: 3", ValueError("3"), ip="10.0.0.1"),
        None,
    ],
)
def test_other_errors_are_not_failed_starts(error: object) -> None:
    assert start_error(error) is None


def test_a_process_that_died_is_named_with_its_node() -> None:
    error = died_at_start(DIED)
    assert error.node == "10.0.0.5"
    assert error.cause == (
        "its process died while it started (Worker unexpectedly exits with a connection error code 2)"
    )
    assert died_at_start("").cause == "its process died while it started"


def test_a_long_cause_is_cut_and_stays_on_one_line() -> None:
    _, cause = found(f"failed to import on the worker\nValueError: {'x' * 999}\x07")
    assert len(cause) < 350 and cause.isprintable()
    assert found("failed to import on the worker\n  numpy is broken  \n") == (
        "unknown",
        "numpy is broken",
    )


def test_only_imports_count_after_the_start() -> None:
    assert import_error(ValueError("3")) is None
    failure = import_error(MissingPackageError("timm is not installed"))
    assert failure is not None and failure.cause == "timm is not installed"
    failure = import_error(ImportError("lib.so"))
    assert failure is not None and failure.cause == "ImportError: lib.so"
    text = "ray::TrialWorker.build() (pid=3, ip=10.0.0.9)\nModuleNotFoundError: No module named 'x'"
    cause = ModuleNotFoundError("No module named 'x'")
    other = RayTaskError("build", text, cause, ip="10.0.0.9").as_instanceof_cause()
    failure = import_error(other)
    assert failure is not None
    assert (failure.node, failure.cause) == ("10.0.0.9", "ModuleNotFoundError: No module named 'x'")


# ---------------------------------------------------------------- what a study does about them


def test_each_cause_is_reported_once() -> None:
    events: list[Event] = []
    failures = StartFailures(events.append, max_failures=3)
    for number, node in enumerate(("10.0.0.1", "10.0.0.2", "10.0.0.1")):
        failures.report(f"trial {number}", StartError(node, "no timm"))
    failures.report("trial 3", StartError("10.0.0.1", "no torch"))
    assert [(e.what, e.error.cause) for e in events if isinstance(e, NotStarted)] == [
        ("trial 0", "no timm"),
        ("trial 3", "no torch"),
    ]


@pytest.mark.parametrize(
    ("max_failures", "trained", "starts"),
    [(3, False, 1), (3, True, 3), (0, False, 0), (0, True, 0), (-1, False, 1), (-1, True, 50)],
)
def test_how_often_a_trial_starts_again_whose_process_dies(
    max_failures: int, trained: bool, starts: int
) -> None:
    failures = StartFailures(lambda event: None, max_failures)
    failures.trained = trained
    assert sum(failures.starts_again(7) for _ in range(50)) == starts
    assert failures.starts_again(8) is (starts > 0)
