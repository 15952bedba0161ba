"""The number and the resources of the workers of a run; loads no Ray, so that planning is fast."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class GangShape:
    """How many workers a trial has and what each needs.

    Args:
        workers: ranks of the process group.
        cpus: CPUs and threads of each.
        gpus: of each; less than 1 shares a GPU.
        timeout_s: seconds after which a worker that does not respond counts as lost.
    """

    workers: int
    cpus: int
    gpus: float
    timeout_s: float

    @property
    def bundles(self) -> list[dict[str, float]]:
        """Ray resources, one bundle per worker."""
        one = {"CPU": float(self.cpus)} | ({"GPU": self.gpus} if self.gpus else {})
        return [dict(one) for _ in range(self.workers)]

    @property
    def backend(self) -> str:
        """NCCL needs one GPU per rank; workers that share a GPU or use CPUs need gloo."""
        return "nccl" if self.gpus >= 1 else "gloo"


@dataclass(frozen=True)
class WorkerRequest:
    """The workers that a user asks for; as ``TrainShape``, but the number of GPUs may be open.

    Args:
        gpus: of each worker; None = one where there are GPUs.
    """

    min_workers: int
    max_workers: int
    cpus: int
    gpus: float | None
    timeout_s: float
    max_failures: int

    def with_gpus(self, gpus: float) -> TrainShape:
        """The same with a number of GPUs for each worker."""
        return TrainShape(**{**asdict(self), "gpus": gpus})


@dataclass(frozen=True)
class TrainShape:
    """The workers of a run under Ray Train.

    Args:
        min_workers, max_workers: equal for a fixed number; otherwise Ray Train starts with the workers
            that are available and grows or shrinks the run between epochs.
        cpus, gpus: of each worker.
        timeout_s: seconds after which a worker that does not respond counts as lost.
        max_failures: how often lost workers are replaced before the run fails; -1 = always.
    """

    min_workers: int
    max_workers: int
    cpus: int
    gpus: float
    timeout_s: float
    max_failures: int

    @property
    def elastic(self) -> bool:
        return self.min_workers != self.max_workers

    @property
    def bundle(self) -> dict[str, float]:
        """Ray resources of a worker."""
        return {"CPU": float(self.cpus)} | ({"GPU": self.gpus} if self.gpus else {})

    def environment(self) -> dict[str, str]:
        """Timeouts of Ray Train, so that a frozen worker does not block a run for minutes."""
        wait = str(self.timeout_s)
        return {
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
            "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": wait,
            "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": wait,
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
            "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",
            "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5",
            "RAY_CHDIR_TO_TRIAL_DIR": "0",
        }
