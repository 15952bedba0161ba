"""``tune``: search settings on Ray, confirm the best configurations over seeds, write the report."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bbam_ray.commands.disk_estimate import check_disk
from bbam_ray.commands.gpus import devices_text, shared_gpus, sharing_sentence, unused_gpu
from bbam_ray.commands.run_notes import concurrency_note, run_notes
from bbam_ray.commands.study_progress import SILENT, StudyListener, StudyProgress
from bbam_ray.commands.study_record import open_study
from bbam_ray.commands.study_setup import PreparedStudy
from bbam_ray.errors import StorageError
from bbam_ray.report.study_report import write_report
from bbam_ray.results.patience import Patience
from bbam_ray.results.repair import repair_study
from bbam_ray.results.store import StudyStore
from bbam_ray.results.study import INTERRUPTED, RUNNING, StudyRecord, locked
from bbam_ray.results.summary import duration
from bbam_ray.scale.cluster.capacity import wait_for_workers
from bbam_ray.scale.cluster.connection import connected
from bbam_ray.scale.study.events import Event, NothingReused, Notice, NotStarted
from bbam_ray.scale.study.plan import StudyPlan, StudyResult
from bbam_ray.scale.study.run import run_study, stored_result


def run(study: PreparedStudy, listener: StudyListener = SILENT) -> StudyResult:
    """Run or resume a prepared search; Ctrl-C ends it and keeps its results.

    Returns:
        The result, with status ``INTERRUPTED`` after Ctrl-C.

    Raises:
        UsageError: the disk is too small, no cluster answers, or the study cannot be resumed.
        StorageError: results can no longer be written.
    """
    options, folder = study.options, study.folder
    if not options.resume:
        check_disk(study.disk, folder)
    open_ = partial(
        open_study, folder, study.plan, study.space_path, study.split, resume=options.resume
    )
    started = time.monotonic()
    environment = study.plan.train_shape.environment() if study.plan.train_shape else None
    with ExitStack() as stack:
        if options.resume:
            stack.enter_context(locked(folder))
            for finding in repair_study(folder):
                listener.warning(f"repaired: {finding}")
            open_(check_only=True, note=listener.warning)
        listener.message(
            "starting Ray ..." if study.local else f"joining Ray at {options.address} ..."
        )
        with connected(
            options.address, dashboard=options.dashboard, environment=environment
        ) as url:
            if not study.local:
                gang = study.plan.shape
                wait_for_workers(gang.workers, gang.bundles[0], options.start_timeout)
            # The folder is created last: an error before this leaves no file behind.
            if not options.resume:
                stack.enter_context(locked(folder, make=True))
            record, plan = open_()
            if url:
                listener.message(f"Ray dashboard: http://{url} (token: ray get-auth-token)")
            elif study.local and options.dashboard:
                listener.warning("Ray's dashboard could not start; the study runs without it")
            chosen = options.rules.max_concurrent
            if note := concurrency_note(plan.concurrency, chosen, options.address):
                listener.warning(note)
            result = _search(plan, record, listener, options.address)
        _propose_sharing(plan, record, listener, options.address)
        _write_report(folder, result, listener)
        listener.message(f"took {duration(time.monotonic() - started)}")
    return result


def _search(
    plan: StudyPlan, record: StudyRecord, listener: StudyListener, address: str
) -> StudyResult:
    """Run the study and report its progress."""
    progress = _progress(plan, record, listener, address)

    def listen(event: Event) -> None:
        if isinstance(event, NothingReused):
            listener.message(
                f"study '{event.study}' has trials with these settings, but code, libraries, data, "
                "hardware or workers have changed since; they are not reused"
            )
        if isinstance(event, Notice):
            listener.message(event.text)
        if isinstance(event, NotStarted):
            listener.error(
                f"{event.what}: {event.error}; remove the cause and resume with "
                f"--name {record.folder.name} --resume"
            )
        listener.study_event(event, progress.update(event))

    try:
        try:
            listener.study_started(progress)
            return run_study(plan, record, listen)
        finally:
            listener.study_ended()
    except KeyboardInterrupt:
        if record.content["status"] == RUNNING:
            record.end(INTERRUPTED)
        listener.warning(
            f"\ninterrupted: completed trials are kept in {record.folder}; resume with the same command "
            f"and --name {record.folder.name} --resume"
        )
        return stored_result(plan, record)


def _progress(
    plan: StudyPlan, record: StudyRecord, listener: StudyListener, address: str
) -> StudyProgress:
    earlier = stored_result(plan, record)
    done = len(earlier.trials) - len(earlier.not_started)
    workers = plan.shape.workers
    listener.message(
        f"study {record.folder}: {plan.num_samples} trials of {plan.settings['method']} on "
        f"{plan.settings['dataset']}, {plan.concurrency} at once"
        + (f", {workers} workers each" if workers > 1 else "")
        + f", {devices_text(plan.shape.cpus, plan.shape.gpus, address)}"
        + (f", {done} done before" if done else "")
    )
    notes = [*run_notes(plan.published_config, plan.settings), unused_gpu(plan.shape.gpus, address)]
    for note in filter(None, notes):
        listener.warning(note)
    return StudyProgress(plan, done)


def _propose_sharing(
    plan: StudyPlan, record: StudyRecord, listener: StudyListener, address: str
) -> None:
    """Store what the trials needed of a GPU, and say so if more of them fit."""
    if not plan.gpus:
        return
    store = StudyStore(record.folder, plan.space.kinds)
    rows = store.folds.rows() or store.history.rows()
    if (measured := shared_gpus(plan, rows, address)) is None:
        return
    need, count = measured
    record.update(
        gpu={
            "memory": need.memory,
            "total_memory": need.total,
            "use": need.use,
            "trials_per_gpu": count,
        }
    )
    if count is not None:
        listener.message(sharing_sentence(need, count))


def _write_report(folder: Path, result: StudyResult, listener: StudyListener) -> None:
    if result.trials:
        try:
            Patience(folder).insist(lambda: write_report(folder))
        except StorageError:  # the report can be written later, from the tables
            listener.warning(f"no report was written; write it with bbam-ray report {folder}")
