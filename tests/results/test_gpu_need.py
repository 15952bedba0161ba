"""What trials needed of a GPU, and the fraction that a search proposes at its end."""

from __future__ import annotations

import pytest

from bbam_ray.results.gpu_need import CONTEXT, GpuNeed, gpu_need, proposal, trials_per_gpu

GIB = 1 << 30


def need(memory: float, use: float | None, total: float = 80) -> GpuNeed:
    return GpuNeed(int(memory * GIB), int(total * GIB), use)


@pytest.mark.parametrize(
    ("memory", "use", "expected"),
    [
        (2, 0.1, 8),
        (9, 0.1, 8),  # 72 of 80 GiB: 0.9
        (9.1, 0.1, 4),
        (18.1, 0.1, 2),
        (36.1, 0.1, None),
        (2, 0.15, 8),  # 1.2 of the time
        (2, 0.16, 4),
        (2, 0.31, 2),
        (2, 0.60, 2),
        (2, 0.61, None),
        (2, None, 8),
        (20, None, 2),
    ],
)
def test_as_many_as_memory_and_time_allow(
    memory: float, use: float | None, expected: int | None
) -> None:
    assert trials_per_gpu(need(memory, use), gpus=1, waiting=100) == expected


@pytest.mark.parametrize(
    ("waiting", "expected"), [(100, 8), (8, 8), (7, 4), (3.5, 4), (3, 2), (1, None), (0, None)]
)
def test_no_more_than_there_are_trials(waiting: float, expected: int | None) -> None:
    assert trials_per_gpu(need(1, 0.1), gpus=1, waiting=waiting) == expected


@pytest.mark.parametrize(
    ("gpus", "expected"), [(2, 4), (1, 4), (0.5, 4), (1 / 3, 4), (0.25, None), (0.1, None)]
)
def test_only_more_than_now(gpus: float, expected: int | None) -> None:
    assert trials_per_gpu(need(15, 0.1), gpus=gpus, waiting=100) == expected


def test_the_need_is_the_highest_peak_and_the_mean_use() -> None:
    rows = [
        {"gpu_memory": 2.0 * GIB, "gpu_memory_total": 80.0 * GIB, "gpu_use": 20.0},
        {"gpu_memory": 3.0 * GIB, "gpu_memory_total": 80.0 * GIB, "gpu_use": 40.0},
        {"gpu_memory": 1.0 * GIB, "gpu_memory_total": 40.0 * GIB, "gpu_use": None},
        {"gpu_memory": None, "gpu_memory_total": None, "gpu_use": None},  # not on a GPU
        {"gpu_memory": 70.0 * GIB},  # of an older version
    ]
    found = gpu_need(rows, 1)
    assert found == GpuNeed(3 * GIB + CONTEXT, 40 * GIB, pytest.approx(0.3))
    # two trials at once had half of the measured use each
    assert gpu_need(rows, 0.5) == GpuNeed(3 * GIB + CONTEXT, 40 * GIB, pytest.approx(0.15))
    assert gpu_need(rows, 2) == found
    assert gpu_need(rows[3:], 1) is None and gpu_need([], 1) is None
    assert gpu_need(rows[2:], 1) == GpuNeed(GIB + CONTEXT, 40 * GIB, None)


def test_the_sentence_names_memory_and_use() -> None:
    text = need(2.1, 0.306, 139).sentence
    assert (
        text == "GPU: a trial needed at most 2.1 of 139 GiB and kept the GPU busy 31% of the time"
    )
    assert "not measured (install nvidia-ml-py to measure it)" in need(2.1, None).sentence
    assert proposal(4) == "`--gpus-per-worker 0.25` runs 4 trials at once on each"
    assert proposal(8).startswith("`--gpus-per-worker 0.125`")
