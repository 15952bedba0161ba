"""How workers of Ray Train find each other: as those of a gang do, by ``distributed.join``.

Ray's own way is the same but for one thing: the store of the rendezvous then listens on every address of
the machine, also where Ray itself and all workers are on the loopback address.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import ray
from ray.train._internal.utils import get_address_and_port
from ray.train.torch.config import TorchConfig, _set_torch_distributed_env_vars, _TorchBackend

from bbam_ray import distributed


@dataclass
class Rendezvous(TorchConfig):
    """Ray's settings of torch, ``backend`` and ``timeout_s`` among them, with our way to join."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _Backend


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Let all workers join; an error of any of them is raised."""
        host, port = worker_group.execute_single(0, get_address_and_port)
        worker_group.execute(_set_torch_distributed_env_vars)
        size = len(worker_group)
        how = {"backend": backend_config.backend, "timeout_s": backend_config.timeout_s}
        ray.get(
            [
                worker_group.execute_single_async(rank, _join, f"{host}:{port}", rank, size, **how)
                for rank in range(size)
            ]
        )


def _join(address: str, rank: int, size: int, *, backend: str, timeout_s: float) -> None:
    if backend == "nccl":
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")  # as Ray does
    distributed.join(address, rank, size, backend=backend, timeout_s=timeout_s)
