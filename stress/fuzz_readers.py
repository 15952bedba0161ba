"""Read a user's files as the commands do, and check that nothing invalid is accepted.

Every reader takes a folder and raises a UsageError for what cannot be used. Any other exception is a
defect.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bbam_ray.data import DATASETS
from bbam_ray.data.cache.folder import opened
from bbam_ray.data.cache.row_file import write_rows
from bbam_ray.data.download.unpack import extract
from bbam_ray.data.formats.image_decoding import UnreadableImageError, read_image
from bbam_ray.data.prediction.inputs import find_chunks
from bbam_ray.errors import UsageError
from bbam_ray.methods import run_config
from bbam_ray.scale.search.space_file import read_space

_ROWS = np.arange(60, dtype=np.float32).reshape(12, 5)


def configuration(folder: Path) -> None:
    from bbam_ray.documents import read_yaml_mapping

    path = folder / "c.yaml"
    run_config(read_yaml_mapping(path), str(path)).flat()


def assignments(folder: Path) -> None:
    """Each line is an argument of ``--set``, as the operating system passes it."""
    from bbam_ray.documents import parse_assignments

    if (folder / "set.txt").is_file():
        content = (folder / "set.txt").read_bytes().replace(b"\0", b"")
        lines = content.decode("utf-8", "surrogateescape").split("\n")
        run_config(parse_assignments([line for line in lines if line]), "--set").flat()


def search_space(folder: Path) -> None:
    """Values can be drawn from each parameter of a search space that is accepted."""
    space = read_space(folder / "s.yaml", "digits", "bbam", {"epochs": 30})
    for parameter in space.parameters.values():
        parameter.distribution()


def dataset(name: str, file: str = "", **options: Any) -> Callable[[Path], None]:
    """Returns a reader that checks and loads both parts of a data set, as a run does."""

    def read(folder: Path) -> None:
        settings = {"dataset": name, "data_dir": str(folder / file), **options}
        config = run_config(settings, "test")
        source, data_dir = DATASETS[name], config.training.data_dir
        source.check(config.data, data_dir)
        source.state(config.data, data_dir)
        parts = [source.load(config.data, data_dir, part) for part in ("train", "test")]
        assert parts[0].label_names == parts[1].label_names
        for samples in parts:
            inputs, labels = np.asarray(samples.inputs[:]), samples.labels
            assert np.isfinite(inputs).all() and np.isin(labels, (0, 1)).all() and len(labels)
            known = np.ones(len(labels), bool) if samples.is_labeled is None else samples.is_labeled
            "".join(samples.names or ()).encode()  # split.parquet needs valid text
            assert not labels[~known].any() and all(samples.label_names)

    return read


def one_image(folder: Path) -> None:
    """An image that is reported as unreadable counts as refused."""
    try:
        assert read_image(folder / "i.png", 8).shape == (3, 8, 8)
    except UnreadableImageError as error:
        raise UsageError(str(error)) from None


def archive(folder: Path) -> None:
    """An archive that is refused leaves no files behind."""
    paths = sorted(folder.glob("*.*"))
    target = folder / "unpacked"
    try:
        extract(paths[0] if paths else folder / "a.zip", target, max_bytes=10**6)
    except UsageError:
        assert not target.exists() or not list(target.iterdir()), "a part was unpacked"
        raise
    assert not {path.name for path in folder.iterdir()} - {"unpacked", *(p.name for p in paths)}


def make_rows(folder: Path) -> None:
    write_rows(folder / "r.rows", iter(_ROWS), (5,), np.float32, {"names": ["a"] * 12})


def stored_rows(folder: Path) -> None:
    """Rows that differ from those written are never accepted."""
    rows = opened(folder / "r.rows")
    if rows is None:
        raise UsageError("will be rebuilt")
    assert rows.metadata == {"names": ["a"] * 12}
    assert rows.dtype == np.float32 and np.array_equal(np.asarray(rows), _ROWS)
    rows.verify()


def inputs(
    shape: tuple[int, ...], file: str = "", *, texts: bool = False
) -> Callable[[Path], None]:
    """Returns a reader that reads all samples of a folder or file for prediction."""

    def read(folder: Path) -> None:
        for chunk in find_chunks(folder / file, shape, ["a", "b"], texts):
            count = 0
            for batch in chunk.batches(3):
                count += len(batch.names)
                assert len(batch.names) == len(batch.inputs) == len(batch.problems)
                batch.names[0].encode()  # a table of predictions needs valid text
                assert texts or np.isfinite(batch.inputs).all()
            assert count == chunk.count, "some samples are missing"

    return read
