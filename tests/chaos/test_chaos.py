"""A short version of ``python -m stress.chaos``: studies are disturbed, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stress import chaos, faults, trust
from stress.disturbed import Disturbed
from stress.stored_study import BrokenPromiseError, LostError

KINDS = {f.name: f for f in (*faults.KILLS, *faults.TEARS, *faults.DISKS)}
AFTERWARDS = {f.name: f for f in faults.TEARS_AFTERWARDS}


# A file that is torn has its driver killed before. What needs a trial to hit comes first; a disk can
# fill up until the end.
STORIES = [
    ("trial's process killed", "trials.parquet torn", "disk full for a while"),
    ("checkpoint of train torn",),
]
ENDED = "history.parquet torn afterwards"


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chaos.Chaos]:
    """All stories have been told, two at once."""
    place = tmp_path_factory.mktemp("chaos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BBAM_RAY_CACHE", str(place / "cache"))
        patch.setattr(chaos, "LATEST_S", 0.5)
        told = chaos.Chaos(place, seed=0, settings=["scenes=250"])
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda command: told.calm(command, 1), ("tune", "train")))
            telling = [
                pool.submit(told.story, [KINDS[name] for name in names]) for names in STORIES
            ]
            telling.append(pool.submit(told.afterwards, AFTERWARDS[ENDED]))
            for one in telling:
                one.result()
        told.finish()
        yield told


@pytest.mark.ray
@pytest.mark.timeout(400)
@pytest.mark.parametrize("names", [*STORIES, (ENDED,)], ids=" and ".join)
def test_a_study_that_is_disturbed_ends_like_one_that_is_not(
    names: tuple[str, ...], harness: chaos.Chaos
) -> None:
    tallies = {name: harness.tallies[name] for name in names}
    for name, tally in tallies.items():
        assert tally.faultless(), (name, tally)
        assert tally.injected + tally.left_out == 1, (name, tally)
    if left_out := [name for name, tally in tallies.items() if tally.left_out]:
        assert all(KINDS[name].disk for name in left_out)
        pytest.skip(
            f"no file system may be mounted here: {left_out}, the others are as they should be"
        )


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_no_process_outlives_its_study(harness: chaos.Chaos) -> None:
    assert "processes left behind" not in harness.tallies


@pytest.mark.parametrize("count", [8, 100])
def test_all_kinds_have_their_turn(count: int) -> None:
    told = [fault for story in chaos.stories(count, seed=1) for fault in story]
    assert len(told) == count
    assert len({fault.name for fault in told}) == min(count, len(KINDS))
    for story in chaos.stories(count, seed=1):  # one sort of study in each
        assert len({(f.command, f.workers, f.disk) for f in story}) == 1


def test_the_harness_notices_what_it_looks_for(tmp_path: Path) -> None:
    """It would be worth nothing otherwise: a study that loses a trial, an epoch, or cannot be read."""
    from bbam_ray.results.epoch_rows import put_epoch
    from bbam_ray.results.store import StudyStore

    study = Disturbed(tmp_path, "tune")
    study.folder.mkdir(parents=True)
    store = StudyStore(study.folder, {})
    for number in range(6):
        identity = {"study": "s", "trial_id": f"t{number}", "number": number}
        values = {"prior": [0.1] * 10}
        put_epoch(store, identity, {"epoch": 1, "val_map": 0.5}, values, "abcdefghij")
        store.trials.put([{**identity, "state": "COMPLETE", "epochs": 1, "val_map": 0.5}])
    store.confirm.put([{"study": "s", "trial_id": "t0", "number": 0, "seed": 1}])
    store.flush()
    study.look()
    assert study.lost_or_doubled() == 0
    assert study.other_figures(study, exact=True) == 0
    store.history.drop([3])
    store.flush()
    assert study.lost_or_doubled() == 2  # its labels are there without their epoch
    with pytest.raises(LostError, match="trial 3 has ended without all of its 1 epochs"):
        study.look()
    store.trials.drop([3, 4])
    store.flush()
    with pytest.raises(LostError, match=r"trials \{3, 4\} had ended, and are gone"):
        study.look()
    assert study.lost_or_doubled() == 3
    (study.folder / "trials.parquet").write_bytes(b"PAR1")
    with pytest.raises(BrokenPromiseError, match="cannot be read"):
        study.look()
    assert study.unreadable == 1


def test_what_was_found_is_kept_and_shown(tmp_path: Path) -> None:
    store = tmp_path / "chaos.parquet"
    for count in (1, 2):  # the table is of the last run
        tally = chaos.Tally(injected=count, lost_or_doubled=count - 1, slowest_s=1.25)
        trust.keep([("fault", "driver killed", vars(tally))], 7, store)
    trust.keep([("soak", "threads", {"began": 3, "ended": 4, "most": 5.5})], 7, store)
    text = trust.table(store)
    assert "| driver killed | 2 | 1 | 0 | 0 | 0 | 1.2 |" in text
    assert "| threads | 3 | 4 | 5.5 |" in text
    assert not chaos.Tally(other_figures=1).faultless() and chaos.Tally().faultless()


def test_a_kind_that_was_not_done_again_keeps_its_figures(tmp_path: Path) -> None:
    store = tmp_path / "chaos.parquet"
    names = ["driver killed", "node killed", "train killed"]
    trust.keep([("fault", name, vars(chaos.Tally(injected=3))) for name in names], 7, store)
    table = pq.read_table(store)
    earlier = [
        r | {"measured_at": r["measured_at"] - timedelta(hours=1)} for r in table.to_pylist()
    ]
    pq.write_table(pa.Table.from_pylist(earlier, schema=table.schema), store)
    trust.keep([("fault", "node killed", vars(chaos.Tally(injected=2)))], 8, store)
    text = trust.table(store)
    assert [
        f"| {name} | {count} |" in text for name, count in zip(names, (3, 2, 3), strict=True)
    ] == [True] * 3
    assert "| **all** | **8** |" in text
    assert "\nnode killed: " in text and "; seed 7;" in text and "; seed 8;" in text
