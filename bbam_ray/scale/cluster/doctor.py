"""What can be wrong with the machines of a cluster before anything is trained on them."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
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
SKEW_S, DISK_GB, FILES, SHARED_MEMORY_GB = 2.0, 10.0, 4096, 1.0
_WAIT_S = 60.0

Level = Literal["ok", "warning", "blocker"]
Facts = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Args:
        check: what was looked at, and where.
        level: "blocker" means that a run would fail or give other figures.
        text: what was found, and where it is not well, the way out.
    """

    check: str
    level: Level
    text: str


def facts(probe: str | None = None) -> Facts:
    """What a machine is; runs on the driver and on every node.

    Args:
        probe: a file that the driver has just made in the results folder.
    """
    import torch

    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    count = torch.cuda.device_count()
    shared = Path("/dev/shm")
    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "packages": found,
        "gpus": [torch.cuda.get_device_name(place) for place in range(count)],
        "cuda": torch.version.cuda,
        "nccl": nccl_available(),
        "temporary_gb": free_bytes(Path("/tmp")) / 1e9,
        "shared_memory_gb": shutil.disk_usage(shared).total / 1e9 if shared.is_dir() else None,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "sees_probe": None if probe is None else _sees(Path(probe)),
    }


def _sees(probe: Path) -> bool:
    """Whether a node finds the driver's file, and can make one beside it."""
    if not probe.is_file():
        return False
    mine = probe.with_name(f"{probe.name}-{uuid.uuid4().hex}")
    try:
        mine.touch()
        mine.unlink()
    except OSError:
        return False
    return True


def examine(results: Path, dashboard: str | None) -> list[Finding]:
    """Look at the driver and at every node of the connected Ray.

    Args:
        results: folder of all results, made if it is not there; or a URI, which the driver alone writes.
        dashboard: "host:port" of Ray's dashboard, None where none is served.
    """
    found = [_results(results)]
    probe = results / f".probe-{uuid.uuid4().hex}"
    shared = address_of(results) is None
    if writable := shared and found[0].level != "blocker":
        probe.touch()
    try:
        here, nodes = facts(), _ask_nodes(str(probe) if writable else None)
    finally:
        if writable:
            probe.unlink(missing_ok=True)
    found += [_dashboard(dashboard), _token()]
    for name, node in nodes.items():
        found += judged(name, here, node)
    return found


def _ask_nodes(probe: str | None) -> dict[str, Facts | str]:
    """Facts of every living node by its name, or why it gave none."""

    def there(node_id: str, task: Any) -> Any:
        where = NodeAffinitySchedulingStrategy(node_id, soft=False)
        return ray.remote(num_cpus=0, max_retries=0)(task).options(scheduling_strategy=where)

    nodes = {
        f"{node['NodeManagerAddress']} {node['NodeID'][:6]}": node["NodeID"]
        for node in ray.nodes()
        if node["Alive"]
    }
    asked = {name: there(node_id, facts).remote(probe) for name, node_id in nodes.items()}
    found: dict[str, Facts | str] = {}
    for name, reference in asked.items():
        try:
            answer: Facts = ray.get(reference, timeout=_WAIT_S)
            # Only now: the first task may have waited for its process to start.
            before = time.time()
            seen = ray.get(there(nodes[name], _clock).remote(), timeout=_WAIT_S)
            found[name] = answer | {"skew_s": max(0.0, before - seen, seen - time.time())}
        except Exception as error:  # whatever keeps a node from answering is the finding
            lines = str(error).strip().splitlines()
            found[name] = lines[-1] if lines else type(error).__name__
    return found


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
    found = [_versions(name, here, node)]
    gpus = ", ".join(node["gpus"]) or "none"
    if node["gpus"] and not node["nccl"]:
        text = f"{gpus}, but this torch has no NCCL; install torch with CUDA on it"
        found.append(Finding(f"{name}: GPUs", "blocker", text))
    else:
        cuda = f", CUDA {node['cuda']}, NCCL" if node["gpus"] else ""
        found.append(Finding(f"{name}: GPUs", "ok", f"{gpus}{cuda}"))
    if node["sees_probe"] is False:
        text = (
            "not the driver's: give --results on storage that all share (a mounted folder, s3://)"
        )
        found.append(Finding(f"{name}: results folder", "warning", text))
    skew = node["skew_s"]
    level: Level = "ok" if skew <= SKEW_S else "warning"
    way_out = "" if level == "ok" else "; start a time service (chrony) on it"
    found.append(Finding(f"{name}: clock", level, f"differs by at least {skew:.1f} s{way_out}"))
    found.append(_least(name, "disk of /tmp", node["temporary_gb"], DISK_GB, "GB free"))
    if node["shared_memory_gb"] is not None:
        found.append(
            _least(
                name, "shared memory", node["shared_memory_gb"], SHARED_MEMORY_GB, "GB in /dev/shm"
            )
        )
    found.append(_least(name, "open files", node["files"], FILES, "allowed (ulimit -n)"))
    return found


def _versions(name: str, here: Mapping[str, Any], node: Mapping[str, Any]) -> Finding:
    pairs = {"python": (here["python"], node["python"])}
    pairs |= {p: (here["packages"][p], node["packages"][p]) for p in PACKAGES}
    other = [
        f"{what} {there or 'missing'} (driver {mine})"
        for what, (mine, there) in pairs.items()
        if mine != there
    ]
    if other:
        text = f"{', '.join(other)}; install the same everywhere"
        return Finding(f"{name}: versions", "blocker", text)
    return Finding(f"{name}: versions", "ok", f"as the driver: torch {node['packages']['torch']}")


def _least(name: str, what: str, found: float, wanted: float, unit: str) -> Finding:
    level: Level = "ok" if found >= wanted else "warning"
    text = f"{found:.0f} {unit}" + ("" if level == "ok" else f"; {wanted:.0f} are better")
    return Finding(f"{name}: {what}", level, text)


def _results(results: Path) -> Finding:
    if (uri := address_of(results)) is not None:
        try:
            Storage(uri).check_writable()
        except UsageError as error:
            return Finding("results folder", "blocker", str(error))
        return Finding("results folder", "ok", f"{redacted(uri)}, written by the driver alone")
    above = results
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        text = f"{results} cannot be written ({above}); choose another --results"
        return Finding("results folder", "blocker", text)
    results.mkdir(parents=True, exist_ok=True)
    free = free_bytes(results) / 1e9
    level: Level = "ok" if free >= DISK_GB else "warning"
    more = "" if level == "ok" else f"; {DISK_GB:.0f} GB are better"
    return Finding("results folder", level, f"{results}, {free:.0f} GB free{more}")


def _dashboard(address: str | None) -> Finding:
    if address is None:
        return Finding("dashboard", "warning", "none is served; start Ray with one to watch it")
    host = urlsplit(f"//{address}").hostname
    try:
        with urllib.request.urlopen(f"http://{address}/", timeout=10) as answer:
            reached = answer.status == 200
    except urllib.error.HTTPError as error:
        reached = error.code in (401, 403)  # it asks for the token
    except OSError:
        reached = False
    if not reached:
        return Finding("dashboard", "warning", f"http://{address} does not answer from here")
    if host not in ("127.0.0.1", "localhost", "::1"):
        text = f"http://{address} listens beyond loopback; --dashboard-host=127.0.0.1 and a tunnel"
        return Finding("dashboard", "warning", text)
    return Finding("dashboard", "ok", f"http://{address}, on loopback")


def _token() -> Finding:
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        text = "off: whoever reaches a port of Ray runs code; set RAY_AUTH_MODE=token on every node"
        return Finding("token", "warning", text)
    return Finding("token", "ok", "needed by everybody who talks to Ray")
