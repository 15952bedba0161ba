"""The benchmark of the published protocol at toy size: what each cell runs, and the table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.protocol import (
    ALL,
    PLAIN,
    SETS,
    SWITCHES,
    applies,
    changes_nothing,
    config_of,
    measure,
    settings_of,
    table,
)

DATA = Path("data")
TOY = {
    "scenes": 400,
    "test_scenes": 60,
    "epochs": 3,
    "warmup_epochs": 1,
    "warmup_passes": 2,
    "hidden_dim": 16,
    "feature_dim": 8,
}


@pytest.mark.parametrize("name", SETS)
def test_a_switch_changes_the_settings_that_it_names_and_no_others(name: str) -> None:
    plain = config_of(settings_of(name, PLAIN, 3, DATA)).flat()
    together: set[str] = set()
    for switch, row in SWITCHES.items():
        if not applies(switch, name):
            continue
        found = config_of(settings_of(name, switch, 3, DATA)).flat()
        changed = {key for key in found if found[key] != plain[key]}
        setting = switch.split()[0]
        if setting == "batch_composition":
            assert changed == {setting, "labeled_batch", "unlabeled_batch", "unlabeled_weight"}
        else:
            assert changed == {setting}
        if row.together:
            together |= changed
    everything = config_of(settings_of(name, ALL, 3, DATA)).flat()
    assert {key for key in everything if everything[key] != plain[key]} == together
    assert everything["cycle_epochs"] == round((plain["epochs"] - plain["warmup_epochs"]) / 0.7)


def test_a_switch_that_a_set_has_already_is_not_measured() -> None:
    assert changes_nothing("warmup_batch", "digits", DATA)  # 16 is its labelled batch
    assert not changes_nothing("warmup_batch", "scene", DATA)
    assert not changes_nothing("shuffle", "digits", DATA)
    of_images = ["warmup_views", "strong_view", "normalize"]
    assert [s for s in SWITCHES if not applies(s, "scene")] == [*of_images, "amp_dtype"]


def test_cells_with_and_without_all_switches_are_measured() -> None:
    maps = [measure(settings_of("digits", switch, 0, DATA, **TOY)) for switch in (PLAIN, ALL)]
    assert all(0 < each["last_map"] <= 1 and 0 < each["warmup_map"] <= 1 for each in maps)
    assert maps[0] != maps[1]


def test_the_table_has_a_row_per_switch_and_paired_differences() -> None:
    rows = [
        {"set": "digits", "switch": switch, "seed": seed, "last_map": value + seed / 10}
        for switch, value in ((PLAIN, 0.7), ("shuffle", 0.69), (ALL, 0.6))
        for seed in (0, 1)
    ]
    lines = table(pd.DataFrame(rows)).splitlines()
    assert len(lines) == 2 + len(SWITCHES) + 2
    (shuffle,) = [line for line in lines if "`shuffle`" in line]
    assert "| order of samples | `shuffle` | true | false | -1.0 [-1.0, -1.0] |" in shuffle
    assert "-10.0 [-10.0, -10.0]" in lines[-2]
    assert "0.750 (2 seeds)" in lines[-1]
    assert "no images" in next(line for line in lines if "`warmup_views`" in line)
    assert "GPU only" in next(line for line in lines if "`amp_dtype`" in line)
    empty = table(pd.DataFrame()).splitlines()
    assert len(empty) == len(lines) and "-1.0" not in "".join(empty)
