"""What the command line does with files that somebody brings, and checks that nothing wrong gets through.

Every reader takes a folder, and raises a UsageError for what cannot be used; anything else that it raises
is a defect.
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
from bbam_ray.data.prediction.inputs import find_pieces
from bbam_ray.errors import UsageError
from bbam_ray.methods import run_config
from bbam_ray.scale.search.space_file import read_space

_ROWS = np.arange(60, dtype=np.float32).reshape(12, 5)


def configuration(folder: Path) -> None:
    from bbam_ray.documents import read_yaml_mapping

    path = folder / "c.yaml"
    run_config(read_yaml_mapping(path), str(path)).flat()


def assignments(folder: Path) -> None:
    """A line an option, as the operating system hands it over."""
    from bbam_ray.documents import parse_assignments

    if (folder / "set.txt").is_file():
        content = (folder / "set.txt").read_bytes().replace(b"\0", b"")
        lines = content.decode("utf-8", "surrogateescape").split("\n")
        run_config(parse_assignments([line for line in lines if line]), "--set").flat()


def space(folder: Path) -> None:
    """What it may hold can also be drawn from."""
    found = read_space(folder / "s.yaml", "digits", "bbam", {"epochs": 30})
    for parameter in found.parameters.values():
        parameter.distribution()


def dataset(name: str, file: str = "", **options: Any) -> Callable[[Path], None]:
    """Checks and loads both parts of a data set, as a run does."""

    def read(folder: Path) -> None:
        given = {"dataset": name, "data_dir": str(folder / file), **options}
        config = run_config(given, "test")
        source, place = DATASETS[name], config.training.data_dir
        source.check(config.data, place)
        source.state(config.data, place)
        parts = [source.load(config.data, place, part) for part in ("train", "test")]
        assert parts[0].label_names == parts[1].label_names
        for samples in parts:
            inputs, labels = np.asarray(samples.inputs[:]), samples.labels
            assert np.isfinite(inputs).all() and np.isin(labels, (0, 1)).all() and len(labels)
            known = np.ones(len(labels), bool) if samples.is_labeled is None else samples.is_labeled
            "".join(samples.names or ()).encode()  # as the table of the split needs it
            assert not labels[~known].any() and all(samples.label_names)

    return read


def one_image(folder: Path) -> None:
    """An image that is told to be unreadable counts as refused."""
    try:
        assert read_image(folder / "i.png", 8).shape == (3, 8, 8)
    except UnreadableImageError as error:
        raise UsageError(str(error)) from None


def archive(folder: Path) -> None:
    """What is refused has left nothing behind."""
    found = sorted(folder.glob("*.*"))
    target = folder / "unpacked"
    try:
        extract(found[0] if found else folder / "a.zip", target, max_bytes=10**6)
    except UsageError:
        assert not target.exists() or not list(target.iterdir()), "a part was unpacked"
        raise
    assert not {path.name for path in folder.iterdir()} - {"unpacked", *(p.name for p in found)}


def make_rows(folder: Path) -> None:
    write_rows(folder / "r.rows", iter(_ROWS), (5,), np.float32, {"names": ["a"] * 12})


def stored_rows(folder: Path) -> None:
    """Other rows than were written are never taken for them."""
    found = opened(folder / "r.rows")
    if found is None:
        raise UsageError("made anew")
    assert found.metadata == {"names": ["a"] * 12}
    assert found.dtype == np.float32 and np.array_equal(np.asarray(found), _ROWS)
    found.verify()


def inputs(
    shape: tuple[int, ...], file: str = "", *, texts: bool = False
) -> Callable[[Path], None]:
    """Divides samples to be scored, and reads all of them."""

    def read(folder: Path) -> None:
        for piece in find_pieces(folder / file, shape, ["a", "b"], texts):
            count = 0
            for batch in piece.batches(3):
                count += len(batch.names)
                assert len(batch.names) == len(batch.inputs) == len(batch.problems)
                batch.names[0].encode()  # as a table of predictions needs it
                assert texts or np.isfinite(batch.inputs).all()
            assert count == piece.count, "some samples are missing"

    return read
