"""How the cost of a refresh grows with samples N and labels K, and the bytes sent between workers."""

from __future__ import annotations

import time
from statistics import median

import numpy as np

from bbam_ray.core.angle_histogram import ANGLE_BINS
from bbam_ray.data.sampling.batches import epoch_batches
from benchmarks.measure import Measured, extra_memory
from benchmarks.refresh import draw, refreshed

WIDTH = 64


def bytes_sent(num_labels: int, width: int, selections: int = 2 + 1) -> int:
    """Bytes of all messages of one refresh, for any N and any number of workers (a test counts them)."""
    sums = 8 * num_labels * (width + 1) + 48 * num_labels + 2 * ANGLE_BINS * 8 * num_labels
    return sums + 8 * num_labels + selections * 40_960 * num_labels


def at(samples: int, num_labels: int, rounds: int) -> Measured:
    """Seconds and memory of a refresh of one size, and seconds to draw the order of an epoch."""
    labeled = max(50, samples // 20)
    cosine, features, known = draw(labeled, samples - labeled, num_labels, WIDTH)
    seconds = []
    for _ in range(rounds):
        copy = cosine.clone()
        started = time.perf_counter()
        refreshed(copy, features, known)
        seconds.append(time.perf_counter() - started)
    used = extra_memory(lambda: refreshed(cosine, features, known))
    started = time.perf_counter()
    epoch_batches(samples, 96, 1, np.random.default_rng(0))
    order_s = time.perf_counter() - started
    return Measured(
        "growth",
        f"refresh, N = {samples:,}, K = {num_labels:,}, D = {WIDTH}",
        None,
        median(seconds),
        None,
        rounds,
        {
            "ns_per_entry": 1e9 * median(seconds) / (samples * num_labels),
            "memory_mb": used / 1e6,
            "matrix_mb": 4 * samples * num_labels / 1e6,
            "sent_mb": bytes_sent(num_labels, WIDTH) / 1e6,
            "order_s": order_s,
        },
    )


def run(full: bool) -> list[Measured]:
    """N from 10^4 at K = 20 and K from 100 at N = 10^4, up to 10^6 and 10^4 if ``full``, else a tenth."""
    samples = [10_000, 100_000, 1_000_000] if full else [10_000, 100_000]
    labels = [100, 1_000, 10_000] if full else [100, 1_000]
    return [at(n, 20, 3) for n in samples] + [at(10_000, k, 3) for k in labels]
