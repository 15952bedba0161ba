"""Checks of the machines of a cluster, before anything is trained on them."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bbam_ray.distributed import nccl_available
from bbam_ray.errors import UsageError
from bbam_ray.files import free_bytes
from bbam_ray.results.redaction import redacted
from bbam_ray.results.remote import address_of
from bbam_ray.results.storage import Storage

PACKAGES = ("bbam-ray", "torch", "torchvision", "ray", "optuna", "pyarrow", "numpy")
#: extra packages whose versions decide results where they are used
OPTIONAL = {"timm": ("vision", "backbones timm:NAME")}
SKEW_S, DISK_GB, FILES, SHARED_MEMORY_GB = 2.0, 10.0, 4096, 1.0
_WAIT_S = 60.0

Level = Literal["ok", "warning", "blocker"]
Facts = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Args:
        check: what was checked, and where.
        level: "blocker" means that a run would fail or give different results.
        text: the value, and for a warning or a blocker what to do.
    """

    check: str
    level: Level
    text: str


def facts(probe: str | None = None) -> Facts:
    """Properties of the machine that this runs on: the driver, and each node.

    Args:
        probe: a file that the driver has just created in the results folder.
    """
    import torch

    packages: dict[str, str | None] = {}
    for name in (*PACKAGES, *OPTIONAL):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    count = torch.cuda.device_count()
    shared = Path("/dev/shm")
    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "packages": packages,
        "gpus": [torch.cuda.get_device_name(index) for index in range(count)],
        "gpu_gb": [
            torch.cuda.get_device_properties(index).total_memory / 1e9 for index in range(count)
        ],
        "driver": _driver() if count else None,
        "bf16": torch.cuda.is_bf16_supported() if count else None,
        "cuda": torch.version.cuda,
        "nccl": nccl_available(),
        "temporary_gb": free_bytes(Path("/tmp")) / 1e9,
        "shared_memory_gb": shutil.disk_usage(shared).total / 1e9 if shared.is_dir() else None,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "sees_probe": None if probe is None else _sees(Path(probe)),
    }


def _driver() -> str:
    """Version of the GPU driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return ended.stdout.split("\n")[0].strip() or "unknown"


def _gpu_text(node: Mapping[str, Any]) -> str:
    """GPUs of a node, their memory, driver and abilities."""
    if not node["gpus"]:
        return "none"
    names = ", ".join(
        f"{name} ({gb:.0f} GB)" for name, gb in zip(node["gpus"], node["gpu_gb"], strict=True)
    )
    bf16 = "bf16" if node["bf16"] else "no bf16"
    return f"{names}, driver {node['driver']}, CUDA {node['cuda']}, NCCL, {bf16}"


def check_extras() -> Iterator[Finding]:
    """Whether the packages of optional backbones are installed on this machine."""
    for name, (extra, purpose) in OPTIONAL.items():
        try:
            text = f"{version(name)}, for {purpose}"
        except PackageNotFoundError:
            text = f"not installed; pip install 'bbam-ray[{extra}]' for {purpose}"
        yield Finding(name, "ok", text)


def check_gpus() -> Iterator[Finding]:
    """Check the GPUs of this machine, before Ray starts, and whether torch.compile works."""
    here = facts()
    yield Finding("GPUs", "ok", _gpu_text(here))
    if here["gpus"]:
        yield _compile()


def _compile() -> Finding:
    import torch

    started = time.monotonic()
    numbers = torch.arange(1024.0, device="cuda")
    try:
        result = torch.compile(lambda x: x.sin() + x)(numbers)
        works = torch.allclose(result, numbers.sin() + numbers)
        reason = "wrong result"
    except Exception as error:  # the reason is the finding
        works, reason = False, str(error).strip().splitlines()[0]
    if works:
        return Finding("torch.compile", "ok", f"works ({time.monotonic() - started:.0f} s)")
    text = f"does not work ({reason}); training runs without it"
    return Finding("torch.compile", "warning", text)


def _sees(probe: Path) -> bool:
    """Whether a node sees the driver's file and can create one next to it."""
    if not probe.is_file():
        return False
    own = probe.with_name(f"{probe.name}-{uuid.uuid4().hex}")
    try:
        own.touch()
        own.unlink()
    except OSError:
        return False
    return True


def examine(results: Path, dashboard: str | None, *, writable: bool) -> Iterator[Finding]:
    """Check the driver and every node of the connected Ray; a finding comes as soon as it is known.

    Args:
        results: folder of all results; or a URI, which only the driver writes.
        dashboard: "host:port" of Ray's dashboard; None if it is off.
        writable: whether the driver can write to the folder.
    """
    yield from (_dashboard(dashboard), _token())
    probe = results / f".probe-{uuid.uuid4().hex}"
    if writable := writable and address_of(results) is None:
        probe.touch()
    try:
        here, nodes = facts(), _ask_nodes(str(probe) if writable else None)
    finally:
        if writable:
            probe.unlink(missing_ok=True)
    for name, node in nodes.items():
        yield from judged(name, here, node)


def _ask_nodes(probe: str | None) -> dict[str, Facts | str]:
    """Facts of every live node by its name, or why there are none."""

    def on_node(node_id: str, task: Any) -> Any:
        strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
        return ray.remote(num_cpus=0, max_retries=0)(task).options(scheduling_strategy=strategy)

    nodes = {
        f"{node['NodeManagerAddress']} {node['NodeID'][:6]}": node["NodeID"]
        for node in ray.nodes()
        if node["Alive"]
    }
    references = {name: on_node(node_id, facts).remote(probe) for name, node_id in nodes.items()}
    by_node: dict[str, Facts | str] = {}
    for name, reference in references.items():
        try:
            node: Facts = ray.get(reference, timeout=_WAIT_S)
            # A second task: the first one may have waited for its process to start.
            before = time.time()
            seen = ray.get(on_node(nodes[name], _clock).remote(), timeout=_WAIT_S)
            by_node[name] = node | {"skew_s": max(0.0, before - seen, seen - time.time())}
        except Exception as error:  # the reason is the finding
            lines = str(error).strip().splitlines()
            by_node[name] = lines[-1] if lines else type(error).__name__
    return by_node


def _clock() -> float:
    return time.time()


def judged(name: str, here: Mapping[str, Any], node: Facts | str) -> list[Finding]:
    """Findings about one node.

    Args:
        name: of the node.
        here: facts of the driver.
        node: facts of the node, or why there are none.
    """
    if isinstance(node, str):
        return [
            Finding(f"{name}: answers", "blocker", f"no ({node}); look at its logs, or remove it")
        ]
    findings = [_versions(name, here, node)]
    gpus = ", ".join(node["gpus"]) or "none"
    if node["gpus"] and not node["nccl"]:
        text = f"{gpus}, but this torch has no NCCL; install torch with CUDA on it"
        findings.append(Finding(f"{name}: GPUs", "blocker", text))
    else:
        findings.append(Finding(f"{name}: GPUs", "ok", _gpu_text(node)))
    if node["sees_probe"] is False:
        text = "not that of the driver; use --results on storage that all nodes share (a mounted folder, s3://)"
        findings.append(Finding(f"{name}: results folder", "warning", text))
    skew = node["skew_s"]
    level: Level = "ok" if skew <= SKEW_S else "warning"
    advice = "" if level == "ok" else "; start a time service (chrony) on it"
    findings.append(Finding(f"{name}: clock", level, f"differs by at least {skew:.1f} s{advice}"))
    findings.append(_least(name, "disk of /tmp", node["temporary_gb"], DISK_GB, "GB free"))
    if node["shared_memory_gb"] is not None:
        findings.append(
            _least(
                name, "shared memory", node["shared_memory_gb"], SHARED_MEMORY_GB, "GB in /dev/shm"
            )
        )
    findings.append(_least(name, "open files", node["files"], FILES, "allowed (ulimit -n)"))
    return findings


def _versions(name: str, here: Mapping[str, Any], node: Mapping[str, Any]) -> Finding:
    pairs = {"python": (here["python"], node["python"])}
    pairs |= {p: (here["packages"][p], node["packages"][p]) for p in PACKAGES}
    # A driver without an extra package starts nothing that needs it.
    pairs |= {
        name: (here["packages"][name], node["packages"].get(name))
        for name in OPTIONAL
        if here["packages"].get(name)
    }
    different = [
        f"{what} {on_node or 'missing'} (driver {on_driver})"
        for what, (on_driver, on_node) in pairs.items()
        if on_node != on_driver
    ]
    if different:
        text = f"{', '.join(different)}; install the same versions on all machines"
        return Finding(f"{name}: versions", "blocker", text)
    return Finding(f"{name}: versions", "ok", f"as the driver: torch {node['packages']['torch']}")


def _least(name: str, what: str, value: float, least: float, unit: str) -> Finding:
    level: Level = "ok" if value >= least else "warning"
    text = f"{value:.0f} {unit}" + ("" if level == "ok" else f"; at least {least:.0f} are better")
    return Finding(f"{name}: {what}", level, text)


def check_results(results: Path) -> Finding:
    """Check that a folder, created if missing, or a URI can be written.

    Args:
        results: folder of all results.
    """
    if (uri := address_of(results)) is not None:
        try:
            Storage(uri).check_writable()
        except UsageError as error:
            return Finding("results folder", "blocker", str(error))
        return Finding("results folder", "ok", f"{redacted(uri)}, written by the driver only")
    above = results
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        text = f"{results} cannot be written ({above}); choose another --results"
        return Finding("results folder", "blocker", text)
    results.mkdir(parents=True, exist_ok=True)
    free = free_bytes(results) / 1e9
    level: Level = "ok" if free >= DISK_GB else "warning"
    more = "" if level == "ok" else f"; at least {DISK_GB:.0f} GB are better"
    return Finding("results folder", level, f"{results}, {free:.0f} GB free{more}")


def _dashboard(address: str | None) -> Finding:
    if address is None:
        return Finding("dashboard", "warning", "off; start Ray with it to watch a run")
    host = urlsplit(f"//{address}").hostname
    try:
        with urllib.request.urlopen(f"http://{address}/", timeout=10) as response:
            reached = response.status == 200
    except urllib.error.HTTPError as error:
        reached = error.code in (401, 403)  # it asks for the token
    except OSError:
        reached = False
    if not reached:
        return Finding("dashboard", "warning", f"http://{address} does not answer from here")
    if host not in ("127.0.0.1", "localhost", "::1"):
        text = f"http://{address} is not limited to loopback; use --dashboard-host=127.0.0.1 and a tunnel"
        return Finding("dashboard", "warning", text)
    return Finding("dashboard", "ok", f"http://{address}, on loopback")


def _token() -> Finding:
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        text = "off: anyone who reaches a port of Ray can run code; set RAY_AUTH_MODE=token on every node"
        return Finding("token", "warning", text)
    return Finding("token", "ok", "required for every connection to Ray")
