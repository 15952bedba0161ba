"""Why a worker cannot start, read from the errors of Ray: the cause and the node, in one sentence.

Ray reports a failed start in several ways: with the traceback of the worker as text, as an error of the
runtime environment, or as the death of a process. A process that dies without a Python error may have
been killed, so it is not a failed start until it dies again.
"""

from __future__ import annotations

import re
import sys

import ray

from bbam_ray.errors import MissingPackageError, StartError, brief

_ENVIRONMENT = "Failed to set up runtime environment"
# What Ray's texts about failed starts contain.
_MARKS = (
    "error raised in its creation task",
    "failed to import on the worker",
    _ENVIRONMENT,
    "System error: ",  # arguments whose classes cannot be imported
)
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_EXCEPTION = re.compile(
    r"^([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning))(?::[ \t]*(.*))?$", re.MULTILINE
)
_NODE = re.compile(r"\bip(?:=|: )([0-9A-Fa-f.:]*[0-9A-Fa-f])")
# An import statement, the frame of the module that it has loaded, and "from 'name' (file)" in messages.
_LOADED = re.compile(
    r"^\s*(?:from|import) (\w+)\b[^\n]*\n(?:[ ^~]*\n)?\s*File \"([^\"]+)\", line \d+, in <module>$",
    re.MULTILINE,
)
_NAMED = re.compile(r"from '(\w+)' \(([^)]+)\)")
_LONGEST = 300


def start_error(error: object) -> StartError | None:
    """What kept a worker from starting.

    Args:
        error: an exception of Ray, or its text.

    Returns:
        The cause; None for an error after the start, and for a process that died without a Python error.
    """
    while (inner := _inside(error)) is not None:
        error = inner
    if isinstance(error, StartError):
        return error
    text = _COLORS.sub("", str(error))
    if not any(mark in text for mark in _MARKS):
        return None
    return StartError(_node(text), _cause(text))


def import_error(error: BaseException) -> StartError | None:
    """The cause if a worker misses a package, or if a module cannot be imported; else None."""
    if not isinstance(error, ImportError | MissingPackageError):
        return None
    if isinstance(error, ray.exceptions.RayTaskError):  # of another worker
        text = _COLORS.sub("", str(error))
        return StartError(_node(text), _cause(text))
    name = "" if isinstance(error, MissingPackageError) else f"{type(error).__name__}: "
    return StartError(ray.util.get_node_ip_address(), brief(f"{name}{error}", _LONGEST))


def died_at_start(error: object) -> StartError:
    """The failed start of a process that has died repeatedly, without a Python error."""
    text = _COLORS.sub("", str(error))
    detail = re.search(r"exit detail: ([^.\n]+)", text)
    reason = f" ({brief(detail[1], _LONGEST)})" if detail else ""
    return StartError(_node(text), f"its process died while it started{reason}")


def _inside(error: object) -> object | None:
    """The error of the worker in one of Ray's errors."""
    if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, StartError):
        return error.cause
    return getattr(error, "controller_failure", None)  # of Ray Train


def _cause(text: str) -> str:
    """The last exception of a text with tracebacks, and the file that hides a module of Python."""
    matches = list(_EXCEPTION.finditer(text))
    if matches:
        name, message = matches[-1][1].rpartition(".")[2], matches[-1][2]
        cause = f"{name}: {message}" if message else name
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        cause = lines[-1] if lines else "unknown"
    cause = brief(cause.rstrip("."), _LONGEST)
    if _ENVIRONMENT in text:
        return f"its runtime environment cannot be set up ({cause})"
    for module, file in (*_LOADED.findall(text), *_NAMED.findall(text)):
        if module in sys.stdlib_module_names and not re.search(r"/python\d\.\d+/", file):
            return f"{cause} ({file} hides the module {module} of Python)"
    return cause


def _node(text: str) -> str:
    """The address in one of Ray's texts; without one, that of the only node."""
    if match := _NODE.search(text):
        return match[1]
    nodes = [node for node in ray.nodes() if node["Alive"]] if ray.is_initialized() else []
    return nodes[0]["NodeManagerAddress"] if len(nodes) == 1 else "unknown"
