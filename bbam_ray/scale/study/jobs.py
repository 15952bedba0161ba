"""Jobs after a search: single calls of a ``TrialWorker``, as many at once as trials would run."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from bbam_ray.errors import StartError, WorkerLostError, brief
from bbam_ray.results.redaction import redacted
from bbam_ray.scale.cluster import interruption
from bbam_ray.scale.study.plan import StudyPlan
from bbam_ray.scale.workers.gang import Gang
from bbam_ray.scale.workers.heartbeat import HEARTBEAT_SECONDS, HeartbeatMonitor, HeartbeatSender
from bbam_ray.scale.workers.shapes import GangShape
from bbam_ray.scale.workers.start_errors import import_error, start_error
from bbam_ray.scale.workers.trial_worker import TrialWorker
from bbam_ray.scale.workers.versions import check_versions, versions


@dataclass(frozen=True)
class Job:
    """A call of a method of ``TrialWorker``.

    Args:
        name: shown in Ray's dashboard.
        method: its name.
        arguments: the last argument, the number of threads, is added.
        gang: call it on all workers of a trial, else in a single process.
        tag: what the caller needs to know about the job.
    """

    name: str
    method: str
    arguments: tuple[Any, ...]
    gang: bool = True
    tag: Any = None


@dataclass(frozen=True)
class JobResult:
    """How a job ended.

    Args:
        value: what the method returned on rank 0; None if it failed.
        error: why it failed; None if it did not.
        started_at: when it started; None if a worker could not start.
        seconds: that it took.
        start_error: why a worker could not start.
    """

    value: Any
    error: str | None
    started_at: datetime | None
    seconds: float
    start_error: StartError | None = None


def run_jobs(
    plan: StudyPlan,
    study: str,
    jobs: Iterable[Job],
    monitor: HeartbeatMonitor,
    done: Callable[[Job, JobResult], None],
    started: Callable[[Job], None] = lambda job: None,
) -> None:
    """Run jobs inside a connected Ray; a job that loses a worker is repeated twice.

    Where a worker cannot start, no other job is tried. If none of the places is left, the remaining jobs
    fail for the same reason.

    Args:
        plan: of the study.
        study: its name.
        jobs: to run, in this order.
        monitor: kills frozen processes.
        done: called with each job that has ended, in the order in which they end.
        started: called with each job that starts.

    Raises:
        KeyboardInterrupt: passed on.
    """
    waiting = list(jobs)
    if not waiting:
        return
    shape = plan.shape
    task = ray.remote(
        num_cpus=shape.cpus,
        num_gpus=shape.gpus,
        max_retries=2,
        retry_exceptions=[WorkerLostError, ray.exceptions.RayActorError],
    )(_run)
    free = [
        placement_group(shape.bundles, name=f"after the search of {study}, slot {slot}")
        for slot in range(min(len(waiting), plan.concurrency))
    ]
    groups = list(free)
    failure: JobResult | None = None
    driver = versions(plan.published_config)
    running: dict[ray.ObjectRef[Any], tuple[Job, Any]] = {}
    try:
        while running or (waiting and free):
            while waiting and free:
                job, group = waiting.pop(0), free.pop()
                started(job)
                strategy = PlacementGroupSchedulingStrategy(group, 0, True)
                options = {"scheduling_strategy": strategy, "name": f"{study}: {job.name}"}
                reference = task.options(**options).remote(
                    pickle.dumps(job), shape, driver, monitor.heartbeats
                )
                running[reference] = (job, group)
            ready, _ = ray.wait(list(running), num_returns=1, timeout=HEARTBEAT_SECONDS)
            interruption.check()
            monitor.check()
            for reference in ready:
                job, group = running.pop(reference)
                result = _result(reference)
                if result.start_error is None:
                    free.append(group)
                else:
                    failure = result
                done(job, result)
        for job in waiting:
            assert failure is not None  # no place is left
            started(job)
            done(job, failure)
    finally:
        for group in groups:
            remove_placement_group(group)


def _result(reference: ray.ObjectRef[Any]) -> JobResult:
    try:
        result: JobResult = ray.get(reference)
        return result
    except ray.exceptions.RayError as error:
        if (failure := start_error(error)) is not None:
            return JobResult(None, str(failure), None, 0.0, failure)
        # Its workers were lost in every attempt.
        reason = f"{type(error).__name__}: its workers were lost ({brief(error, 200)})"
        return JobResult(None, redacted(reason), datetime.now(UTC), 0.0)


def _run(packed: bytes, shape: GangShape, driver: dict[str, str], heartbeats: Any) -> JobResult:
    """Run a job in a Ray worker, rank 0 of its gang.

    Args:
        packed: the pickled job; arguments of a task must not need modules whose import may fail.
        shape: of the gang.
        driver: its versions.
        heartbeats: of the study.
    """
    started = datetime.now(UTC)
    gang, heartbeat = None, HeartbeatSender(heartbeats)

    def seconds() -> float:
        return (datetime.now(UTC) - started).total_seconds()

    try:
        check_versions(driver)
        job: Job = pickle.loads(packed)
        if job.gang:
            gang = Gang(shape, job.name, driver)
            value = gang.call(job.method, *job.arguments, shape.cpus)
        else:
            value = getattr(TrialWorker(), job.method)(*job.arguments, shape.cpus)
        return JobResult(value, None, started, seconds())
    except StartError as error:
        return JobResult(None, str(error), None, seconds(), error)
    except (WorkerLostError, ray.exceptions.RayActorError):
        raise  # Ray retries the whole job
    except Exception as error:
        if (failure := import_error(error)) is not None:
            return JobResult(None, str(failure), None, seconds(), failure)
        reason = redacted(f"{type(error).__name__}: {error}")
        return JobResult(None, reason, started, seconds())
    finally:
        heartbeat.stop()
        if gang is not None:
            gang.close()
