"""A whole semi-supervised epoch, and its data loading alone, on images in the layout of VOC 2012."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bbam_ray.data.datasets.voc2012 import LABELS
from bbam_ray.engine.evaluation import evaluation_batches
from bbam_ray.engine.minibatches import EpochSteps
from bbam_ray.engine.process import keep_freed_memory
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import run_config
from bbam_ray.models import build_network
from benchmarks.measure import Measured, SeparateProcess, alternate
from benchmarks.plain_epoch import PlainEpoch, PlainLoaders
from benchmarks.plain_images import PlainImages, make_images, plain_loader

LABELED_BATCH, UNLABELED_BATCH = 2, 30


@contextmanager
def voc_like(count: int) -> Iterator[Path]:
    """A temporary folder like VOC 2012 with ``count`` images of 224 x 224, and a temporary cache."""
    with tempfile.TemporaryDirectory() as name:
        root, user_cache = Path(name) / "VOC2012", os.environ.get("BBAM_RAY_CACHE")
        (root / "JPEGImages").mkdir(parents=True)
        lists = root / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        names = [path.stem for path in make_images(root / "JPEGImages", count, 224, 225)]
        marks = np.where(np.random.default_rng(0).random((count, 20)) < 1.5 / 20, 1, -1)
        marks[np.arange(count), np.arange(count) % 20] = 1
        for part, rows in (("train", range(count)), ("val", range(20))):
            (lists / f"{part}.txt").write_text("".join(f"{names[row]}\n" for row in rows))
            for column, label in enumerate(LABELS):
                lines = [f"{names[row]} {marks[row, column]:2d}\n" for row in rows]
                (lists / f"{label}_{part}.txt").write_text("".join(lines))
        os.environ["BBAM_RAY_CACHE"] = str(Path(name) / "cache")
        try:
            yield root
        finally:
            os.environ.pop("BBAM_RAY_CACHE")
            if user_cache is not None:
                os.environ["BBAM_RAY_CACHE"] = user_cache


def make_trainer(root: Path, **settings: Any) -> Trainer:
    """Our trainer, with no warm-up."""
    common: dict[str, Any] = {"dataset": "voc2012", "data_dir": str(root), "device": "cpu"}
    common |= {"backbone": "resnet18", "weights": "none", "validation_fraction": 0}
    common |= {"epochs": 40, "warmup_epochs": 0, "labeled_fraction": 0.1}
    common |= {"labeled_batch": LABELED_BATCH, "unlabeled_batch": UNLABELED_BATCH}
    config = run_config({**common, **settings}, "benchmark")
    return Trainer(config, *prepare_training(config))


@dataclass(frozen=True)
class PlainJob:
    """What the process of the plain implementation needs, with the same split as ours.

    Args:
        labeled, unlabeled: paths of images.
        known: (N_l, K) labels of the labelled images.
        side: of the views, in pixels.
        strong_in_refresh: whether the refresh makes strong views, too.
    """

    labeled: list[Path]
    unlabeled: list[Path]
    known: Tensor
    side: int
    strong_in_refresh: bool

    @classmethod
    def like(cls, trainer: Trainer, root: Path, side: int, *, strong_in_refresh: bool) -> PlainJob:
        names = sorted((root / "JPEGImages").glob("*.jpg"))
        data = trainer.data
        return cls(
            [names[row] for row in data.labeled],
            [names[row] for row in data.unlabeled],
            data.labels,
            side,
            strong_in_refresh,
        )

    def make(self) -> PlainEpoch:
        parts = {"labeled": self.labeled, "unlabeled": self.unlabeled}
        sizes = {"labeled": LABELED_BATCH, "unlabeled": UNLABELED_BATCH}
        loaders = {}
        for kind, paths in parts.items():
            images = PlainImages(paths, self.side, strong=self.strong_in_refresh)
            loaders[f"{kind}_in_order"] = plain_loader(images, 128, shuffle=False)
            loaders[kind] = plain_loader(PlainImages(paths, self.side), sizes[kind])
        shape = (3, self.side, self.side)
        model = build_network("resnet18", shape, 20, hidden_dim=512, feature_dim=256)
        return PlainEpoch(model, self.known, PlainLoaders(**loaders))


def plain_work(job: PlainJob) -> Callable[[], Any]:
    return job.make().run


def plain_input(job: PlainJob) -> Callable[[], Any]:
    """Data loading of a plain epoch: unlabelled images twice in order, labelled once, then the steps."""
    loaders = job.make().loaders
    in_order = [loaders.unlabeled_in_order, loaders.labeled_in_order, loaders.unlabeled_in_order]

    def work() -> None:
        for batches in (*in_order, loaders.unlabeled):
            for _ in batches:
                pass

    return work


def our_input(trainer: Trainer) -> None:
    """Data loading of our epoch: each image once for the refresh, then the strong views of the steps."""
    data, device = trainer.data, trainer.device
    batch = trainer.config.training.evaluation_batch
    for rows in (data.labeled, data.unlabeled):
        for _ in evaluation_batches(data.inputs, rows, batch, trainer.views, device):
            pass
    steps = EpochSteps(
        trainer.config.training, data, trainer.views, trainer.labels, 1, main_phase=True
    )
    for step in steps:
        step.labeled.view("strong")
        if step.unlabeled is not None:
            step.unlabeled.view("strong")


def run(full: bool, sides: tuple[int, ...] = (64, 96)) -> list[Measured]:
    """On 600 images if ``full``, else on 240."""
    count, measured = 600 if full else 240, []
    keep_freed_memory()
    with voc_like(count) as root:
        for side in sides:
            case = f"{count:,} JPEGs of 224 px at {side} px, ResNet-18, batches of 2 + 30"
            ours = {"float32": make_trainer(root, image_size=side)}
            ours["bfloat16"] = make_trainer(root, image_size=side, amp_cpu=True)
            for views in (2, 1):
                suffix = "" if views == 2 else "; plain refresh makes one view"
                job = PlainJob.like(ours["float32"], root, side, strong_in_refresh=views == 2)
                plain = SeparateProcess(plain_work, job)
                for name in ("float32", "bfloat16") if views == 2 else ("bfloat16",):
                    timed = alternate(plain, ours[name].run_epoch, 5)
                    measured.append(Measured("epoch", f"{case}; ours in {name}{suffix}", **timed))
                plain.end()
                plain = SeparateProcess(plain_input, job)
                timed = alternate(plain, partial(our_input, ours["float32"]), 5)
                measured.append(Measured("input", case + suffix, **timed))
                plain.end()
    return measured
