"""Images per second from the cache, and from a plain loader that decodes an image for every use.

    python -m benchmarks.loader [--images 5000] [--write benchmarks/README.md]

Plain: a torch DataLoader with a worker process per CPU opens each JPEG with PIL and makes two views of it
with torchvision's transforms. Ours: shuffled batches of rows of the cache, and only the view that is used.
Both return normalized float32 batches at 224 x 224. Rounds of both alternate; the table shows medians.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bbam_ray.data.cache.images import cached_images
from bbam_ray.data.cache.row_file import StoredRows
from bbam_ray.data.formats.image_sources import ImageFiles
from bbam_ray.data.views.images import NOISE_WIDTH, Views
from bbam_ray.engine.evaluation import read_rows
from benchmarks.page import hardware, write_section
from benchmarks.plain_images import SETTINGS, PlainImages, make_images, plain_loader

SIDE, BATCH, ROUNDS = 224, 128, 3
CPU = torch.device("cpu")


def plain_epoch(loader: DataLoader[tuple[Tensor, Tensor, int]]) -> Iterator[Tensor]:
    for weak, _, _ in loader:
        yield weak


def cached_epoch(rows: StoredRows, kind: str) -> Iterator[Tensor]:
    views = Views(SETTINGS, 0.5, 0.5)
    generator = torch.Generator().manual_seed(0)
    for batch in np.array_split(
        np.random.default_rng(0).permutation(len(rows)), -(-len(rows) // BATCH)
    ):
        inputs = read_rows(rows, batch).to(CPU)
        if kind == "bytes":
            yield inputs
        elif kind == "plain":
            yield views.plain(inputs)
        else:
            noise = torch.rand(len(batch), NOISE_WIDTH, generator=generator)
            yield getattr(views, kind)(inputs, noise)


def rate(epoch: Callable[[], Iterator[Tensor]], count: int) -> float:
    """Images per second of one epoch."""
    started = time.perf_counter()
    loaded = sum(len(batch) for batch in epoch())
    assert loaded == count
    return count / (time.perf_counter() - started)


def run(count: int) -> list[str]:
    """Lines of a Markdown table: images per second of each loader, also relative to the plain one."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["BBAM_RAY_CACHE"] = str(Path(name) / "cache")
        paths = make_images(Path(name), count)
        source = ImageFiles(paths, Path(name))
        started = time.perf_counter()
        rows = cached_images("benchmark", source, SIDE)
        built = time.perf_counter() - started
        started = time.perf_counter()
        rows = cached_images("benchmark", source, SIDE)
        reopened = time.perf_counter() - started
        loader = plain_loader(PlainImages(paths, SIDE), BATCH)
        next(iter(loader))  # starts the processes
        loaders: dict[str, Callable[[], Iterator[Tensor]]] = {
            "decoded each time, two views (plain)": lambda: plain_epoch(loader),
            "cache, bytes sent to the device": lambda: cached_epoch(rows, "bytes"),
            "cache, plain view (refresh, evaluation)": lambda: cached_epoch(rows, "plain"),
            "cache, weak view": lambda: cached_epoch(rows, "weak"),
            "cache, strong view": lambda: cached_epoch(rows, "strong"),
        }
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        for _ in range(ROUNDS):
            for name, epoch in loaders.items():
                rates[name].append(rate(epoch, count))
    plain = next(iter(rates))
    lines = ["| loader | images / s | times plain |", "|---|---|---|"]
    for name, measured in rates.items():
        ratio = statistics.median(a / b for a, b in zip(measured, rates[plain], strict=True))
        lines.append(f"| {name} | {statistics.median(measured):.0f} | {ratio:.1f} |")
    return [
        *lines,
        "",
        f"{count} JPEGs, {ROUNDS} alternating rounds; the cache ({rows.nbytes / 1e6:.0f} MB) took "
        f"{built:.0f} s to build, a second trial opened it in {reopened:.2f} s. {hardware()}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    multiprocessing.set_start_method("forkserver")
    text = "\n".join(run(arguments.images))
    print(text)
    if arguments.write:
        write_section(arguments.write, "loader", text)


if __name__ == "__main__":
    main()
