"""A short version of ``python -m stress.chaos``: faults are injected into studies, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stress import chaos, chaos_results, faults, scenarios
from stress.scenarios import Scenarios, Tally
from stress.stored_study import CheckFailedError, LostTrialError
from stress.study_process import StudyProcess

KINDS = {f.name: f for f in (*faults.PROCESS_FAULTS, *faults.FILE_FAULTS, *faults.DISK_FAULTS)}
KINDS_AFTER_END = {f.name: f for f in faults.FILE_FAULTS_AFTER_END}
# Damage to a file kills the driver first. Faults that need a running trial come first; a disk can become
# full until the end.
GROUPS = [
    ("trial process killed", "trials.parquet damaged", "disk full temporarily"),
    ("checkpoint of train damaged",),
]
AFTER_END = "history.parquet damaged after the end"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenarios]:
    """All scenarios, after their end; two run at the same time."""
    folder = tmp_path_factory.mktemp("chaos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BBAM_RAY_CACHE", str(folder / "cache"))
        patch.setattr(scenarios, "MAX_DELAY_S", 0.5)
        running = Scenarios(folder, seed=0, settings=["scenes=250"])
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda command: running.reference(command, 1), ("tune", "train")))
            futures = [
                pool.submit(running.while_running, [KINDS[name] for name in names])
                for names in GROUPS
            ]
            futures.append(pool.submit(running.after_end, KINDS_AFTER_END[AFTER_END]))
            for future in futures:
                future.result()
        running.finish()
        yield running


@pytest.mark.ray
@pytest.mark.timeout(400)
@pytest.mark.parametrize("names", [*GROUPS, (AFTER_END,)], ids=" and ".join)
def test_a_study_with_faults_ends_like_an_undisturbed_one(
    names: tuple[str, ...], finished: Scenarios
) -> None:
    tallies = {name: finished.tallies[name] for name in names}
    for name, tally in tallies.items():
        assert tally.passed, (name, tally)
        assert tally.injected + tally.skipped == 1, (name, tally)
    if skipped := [name for name, tally in tallies.items() if tally.skipped]:
        assert all(KINDS[name].disk for name in skipped)
        pytest.skip(f"no file system may be mounted here: {skipped}; the others passed")


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_no_process_outlives_its_study(finished: Scenarios) -> None:
    assert "processes left behind" not in finished.tallies


@pytest.mark.parametrize("count", [8, 100])
def test_all_kinds_of_faults_are_planned(count: int) -> None:
    groups = chaos.plan(count, seed=1)
    planned = [fault for group in groups for fault in group]
    assert len(planned) == count
    assert len({fault.name for fault in planned}) == min(count, len(KINDS))
    for group in groups:  # all faults of a group fit the same study
        assert len({(f.command, f.workers, f.disk) for f in group}) == 1


def test_the_checks_find_lost_trials_lost_epochs_and_unreadable_tables(tmp_path: Path) -> None:
    from bbam_ray.results.epoch_rows import put_epoch
    from bbam_ray.results.store import StudyStore

    study = StudyProcess(tmp_path, "tune")
    study.folder.mkdir(parents=True)
    store = StudyStore(study.folder, {})
    for number in range(6):
        identity = {"study": "s", "trial_id": f"t{number}", "number": number}
        values = {"prior": [0.1] * 10}
        put_epoch(store, identity, {"epoch": 1, "val_map": 0.5}, values, "abcdefghij")
        store.trials.put([{**identity, "state": "COMPLETE", "epochs": 1, "val_map": 0.5}])
    confirmed = {"study": "s", "trial_id": "t0", "number": 0, "seed": 0}
    store.confirm.put([confirmed | {"answer": answer} for answer in ("final", "published")])
    store.flush()
    study.check_tables()
    assert study.lost_or_duplicated() == 0
    assert study.differences(study, exact=True) == 0
    store.history.drop([3])
    store.flush()
    assert study.lost_or_duplicated() == 2  # the epoch is missing, and its labels have no epoch
    with pytest.raises(LostTrialError, match="trial 3 has ended without all of its 1 epochs"):
        study.check_tables()
    store.trials.drop([3, 4])
    store.flush()
    with pytest.raises(LostTrialError, match=r"trials \{3, 4\} had ended, and are missing"):
        study.check_tables()
    assert study.lost_or_duplicated() == 3
    (study.folder / "trials.parquet").write_bytes(b"PAR1")
    with pytest.raises(CheckFailedError, match="cannot be read"):
        study.check_tables()
    assert study.unreadable == 1


def test_results_are_stored_and_shown(tmp_path: Path) -> None:
    store = tmp_path / "chaos.parquet"
    for count in (1, 2):  # the table shows the last run
        tally = Tally(injected=count, lost_or_duplicated=count - 1, slowest_s=1.25)
        chaos_results.append([("fault", "driver killed", vars(tally))], 7, store)
    chaos_results.append([("soak", "threads", {"first": 3, "last": 4, "maximum": 5.5})], 7, store)
    text = chaos_results.table(store)
    assert "| driver killed | 2 | 1 | 0 | 0 | 0 | 1.2 |" in text
    assert "| threads | 3 | 4 | 5.5 |" in text
    assert not Tally(differences=1).passed and Tally().passed


def test_a_fault_that_was_not_repeated_keeps_its_row(tmp_path: Path) -> None:
    store = tmp_path / "chaos.parquet"
    names = ["driver killed", "node killed", "train killed"]
    chaos_results.append([("fault", name, vars(Tally(injected=3))) for name in names], 7, store)
    table = pq.read_table(store)
    earlier = [
        r | {"measured_at": r["measured_at"] - timedelta(hours=1)} for r in table.to_pylist()
    ]
    pq.write_table(pa.Table.from_pylist(earlier, schema=table.schema), store)
    chaos_results.append([("fault", "node killed", vars(Tally(injected=2)))], 8, store)
    text = chaos_results.table(store)
    assert [
        f"| {name} | {count} |" in text for name, count in zip(names, (3, 2, 3), strict=True)
    ] == [True] * 3
    assert "| **all** | **8** |" in text
    assert "\nnode killed: " in text and "; seed 7;" in text and "; seed 8;" in text
