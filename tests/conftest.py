"""Fixtures for all tests: a private cache, one thread, tiny runs and exact comparison."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from pyarrow import fs

from bbam_ray.config import RunConfig
from bbam_ray.data.example_texts import compose, write_example
from bbam_ray.data.formats.tokenizer import train_tokenizer
from bbam_ray.engine.fitted_trainer import make_trainer
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import EpochRecord, Trainer
from bbam_ray.methods import run_config

# A slow machine must not fail a test; tests of speed count operations.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")

TINY: dict[str, Any] = {
    "dataset": "digits",
    "scenes": 120,
    "test_scenes": 40,
    "labeled_fraction": 0.3,
    "epochs": 4,
    "warmup_epochs": 2,
    "warmup_passes": 1,
    "hidden_dim": 16,
    "feature_dim": 8,
    "device": "cpu",
}


@pytest.fixture(scope="session", autouse=True)
def _private_cache_and_threads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Write generated data to a folder of this session, never to the user's cache; use one thread.

    With more threads on two shared cores tiny runs take 30 times as long: 6 s instead of 0.2 s for four
    epochs, with another process on each core.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BBAM_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., RunConfig]:
    """Returns a function that makes the configuration of a tiny run; arguments replace settings."""
    return lambda **changes: run_config({**TINY, **changes}, "test")


@pytest.fixture(scope="session")
def tiny_trainer(tiny_config: Callable[..., RunConfig]) -> Callable[..., Trainer]:
    """Returns a function that makes the trainer of a tiny run; arguments replace settings."""

    def make(**changes: Any) -> Trainer:
        config = tiny_config(**changes)
        return make_trainer(config, *prepare_training(config))

    return make


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as on the Hugging Face Hub: a BERT of two small layers with random weights, a tokenizer."""
    from transformers import BertConfig, BertModel

    texts, _ = compose(200, seed=9)
    content = train_tokenizer(texts, 400)
    folder = tmp_path_factory.mktemp("bert")
    config = BertConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(content, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``--data-dir`` with example texts."""
    folder = tmp_path_factory.mktemp("texts") / "example"
    write_example(folder, 120, 40)
    return folder


@pytest.fixture(scope="session")
def text_trainer(text_folder: Path) -> Callable[..., Trainer]:
    """Returns a function that makes the trainer of a tiny run on texts; arguments replace settings."""

    def make(**changes: Any) -> Trainer:
        settings = {k: v for k, v in TINY.items() if not k.endswith("scenes")}
        settings |= {"dataset": "text", "data_dir": str(text_folder), "labeled_fraction": 0.4}
        settings |= {"max_length": 48, "vocabulary": 400}
        config = run_config({**settings, **changes}, "test")
        return make_trainer(config, *prepare_training(config))

    return make


@pytest.fixture(scope="session")
def run_to_end() -> Callable[[Trainer], list[EpochRecord]]:
    """Returns a function that trains until the trainer is finished and returns its epoch records."""

    def run(trainer: Trainer) -> list[EpochRecord]:
        records = []
        while not trainer.finished:
            records.append(trainer.run_epoch())
        return records

    return run


@pytest.fixture(scope="session")
def figures() -> Callable[[EpochRecord], dict[str, Any]]:
    """Returns a function that makes a mapping of a record, without times."""

    def of(record: EpochRecord) -> dict[str, Any]:
        times = ("seconds_", "images_per_second")
        scalars = {k: v for k, v in record.scalars.items() if not k.startswith(times)}
        return scalars | {"labels": record.labels}

    return of


@pytest.fixture(scope="session")
def identical() -> Callable[[Any, Any], bool]:
    """Returns a function that tests nested values and tensors for exact equality; NaN equals NaN."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, torch.Tensor):
            if not isinstance(b, torch.Tensor) or (a.shape, a.dtype) != (b.shape, b.dtype):
                return False
            known = ~torch.isnan(a)
            return torch.equal(known, ~torch.isnan(b)) and torch.equal(a[known], b[known])
        if isinstance(a, dict):
            return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
        if isinstance(a, (list, tuple)):
            return len(a) == len(b) and all(map(same, a, b))
        both_nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
        return both_nan or bool(a == b)

    return same


@pytest.fixture(scope="session")
def gloo_group() -> Callable[[Path, int, Path], list[Any]]:
    """Returns a function that runs a worker script (see gloo_group.py) and returns each rank's result."""

    def run(script: Path, world_size: int, folder: Path) -> list[Any]:
        tests = Path(__file__).parent
        path = [str(tests.parent), str(tests), os.environ.get("PYTHONPATH", "")]
        ended = subprocess.run(
            [sys.executable, str(script), str(folder), str(world_size)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, path)),
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert ended.returncode == 0, ended.stderr
        return [torch.load(folder / f"rank-{rank}.pt") for rank in range(world_size)]

    return run


@pytest.fixture(scope="session")
def s3_server() -> Iterator[subprocess.Popen[bytes]]:
    """A local S3 server with an empty bucket ``results``; the environment points to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    bucket = "s3://results?allow_bucket_creation=true"
                    fs.FileSystem.from_uri(bucket)[0].create_dir("results")
                    break
                except OSError:
                    assert server.poll() is None and time.monotonic() < deadline
                    time.sleep(0.2)
            yield server
        finally:
            server.kill()
            server.wait()
