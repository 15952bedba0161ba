"""How the workers of Ray Train join a process group: with ``distributed.join``, as those of a gang do.

The way of Ray itself differs in one point: its rendezvous store listens on every address of the
machine, even if Ray and all workers use the loopback address.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.train.torch import TorchConfig

from bbam_ray import distributed
from bbam_ray.scale import private_api
from bbam_ray.scale.workers.versions import check_versions

_TorchBackend: Any = private_api.torch_backend()


@dataclass
class Rendezvous(TorchConfig):
    """Ray's settings of torch (``backend``, ``timeout_s``, ...) with our way to join.

    Args:
        versions: of the driver, which those of all workers must equal.
    """

    versions: dict[str, str] = field(default_factory=dict)

    @property
    def backend_cls(self) -> Any:
        return _Backend


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Rendezvous) -> None:
        """Let all workers join; an error of any of them is raised."""
        worker_group.execute(check_versions, backend_config.versions)
        host, port = worker_group.execute_single(0, private_api.address_and_port)
        worker_group.execute(private_api.set_torch_environment)
        size = len(worker_group)
        options = {"backend": backend_config.backend, "timeout_s": backend_config.timeout_s}
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, _join, f"{host}:{port}", rank, size, **options
                )
                for rank in range(size)
            ]
        )


def _join(address: str, rank: int, size: int, *, backend: str, timeout_s: float) -> None:
    if backend == "nccl":
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")  # as Ray does
    distributed.join(address, rank, size, backend=backend, timeout_s=timeout_s)
