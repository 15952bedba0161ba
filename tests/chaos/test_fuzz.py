"""A short fuzz test of every reader, and the cases that were defects before."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from stress import fuzz
from stress.fuzz_cases import READERS
from stress.fuzz_folders import Files, npz, parquet

_LAUGHS = "a0: &a0 [x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 10)
)
_MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 10)}]}}\n" for k in range(1, 10)
)


@pytest.mark.parametrize("name", READERS)
def test_readers_accept_a_file_or_refuse_it_in_one_sentence(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (counts,) = fuzz.run(12 if name in ("study", "report") else 30, 7, [name])
    assert counts.defects == 0, capsys.readouterr().out
    assert counts.cases == counts.accepted + counts.refused > 0


def claimed_array(shape: str) -> bytes:
    """An ``.npz`` file with an array of eight numbers whose header states another shape."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        array = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + b"\0" * 32
        archive.writestr("features.npy", array)
        archive.writestr("labels.npy", b"\x93NUMPY\x01\0\x10\0{'descr': '<f4',")
    return content.getvalue()


def changed(name: str, **files: bytes | str | None) -> Files:
    """The valid folder of a reader with some files replaced or, where None, removed."""
    changes = {path.replace("__", "/").replace("_DOT_", "."): c for path, c in files.items()}
    whole = dict(READERS[name].valid()) | {k: v for k, v in changes.items() if v is not None}
    return {path: content for path, content in whole.items() if changes.get(path, b"") is not None}


def study_record(**entries: Any) -> bytes:
    """The ``study.json`` of a valid study with other entries; None removes an entry."""
    content = READERS["study"].valid()["s/study.json"]
    assert isinstance(content, bytes)
    whole = json.loads(content) | entries
    return json.dumps({k: v for k, v in whole.items() if v is not None}).encode()


def checkpoint_pickle(pickled: bytes) -> bytes:
    """A checkpoint that is a valid zip file with this pickle in it."""
    content = io.BytesIO()
    torch.save({"format": 1, "state": {}}, content)
    stream = io.BytesIO()
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickled if name.endswith("data.pkl") else old.read(name))
    return stream.getvalue()


def schema_version(version: bytes) -> bytes:
    content = READERS["study"].valid()["s/history.parquet"]
    assert isinstance(content, bytes)
    table = pq.read_table(io.BytesIO(content))
    stream = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({b"schema_version": version}), stream)
    return stream.getvalue()


def long_member() -> bytes:
    """A zip file with a link that has a long name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        link = zipfile.ZipInfo("9" * 5000)
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/")
    return stream.getvalue()


def double_column() -> bytes:
    stream = io.BytesIO()
    column = pa.array([[1.0, 2.0, 3.0]] * 4)
    pq.write_table(pa.table([column, column], names=["features", "features"]), stream)
    return stream.getvalue()


_LABELS = np.array([[k % 2, k % 3 == 0] for k in range(8)], np.uint8)
_FEATURES = np.ones((8, 3), np.float32)
_LONG_NAMES = b"".join(b"%d" % k * 5000 + b".png,1\n" for k in range(1, 9))

STATE, SAMPLES = "epoch-00001/state.pt", "epoch-00001/samples-0-of-1.pt"
#: {"format": 1, "state": {}}
_OTHER_STATE = b"\x80\x02}(X\x06\x00\x00\x00formatK\x01X\x05\x00\x00\x00state}u."

# Reader, files, a part of the message.
CASES: list[tuple[str, Callable[[], Files], str]] = [
    ("configuration", lambda: {"c.yaml": b"[" * 5000}, "nested too deeply"),
    ("configuration", lambda: {"c.yaml": _LAUGHS.encode()}, "more than 10000 values"),
    ("configuration", lambda: {"c.yaml": _MERGES.encode()}, "more than 10000 values"),
    ("configuration", lambda: {"c.yaml": b"scale: &a [1, *a]"}, "a value contains itself"),
    ("configuration", lambda: {"c.yaml": b"epochs: 3\nepochs: 30"}, "duplicate key 'epochs'"),
    ("configuration", lambda: {"c.yaml": b"scale: 0x" + b"f" * 5000}, "a number of 20000 bits"),
    ("configuration", lambda: {"c.yaml": b"scale: " + b"x" * 9000}, "scale = 'xxx"),
    ("configuration", lambda: {"c.yaml": b'backbone: "\\ud800"'}, "incomplete character"),
    ("configuration", lambda: {"c.yaml": b'"a\\nb": 1'}, r"unknown setting 'a\nb'"),
    ("configuration", lambda: {"c.yaml": b"dataset: [[1, 2], {a: b}]"}, "unknown data set"),
    ("assignments", lambda: {"set.txt": b"x" * 9000}, "expected key=value"),
    (
        "search space",
        lambda: {
            "s.yaml": b"parameters: {warmup_epochs: {type: int, low: 2, high: 4}}\n"
            b"published: {warmup_epochs: 1" + b"0" * 400 + b"}"
        },
        "outside its range",
    ),
    ("texts .csv", lambda: changed("texts .csv", train_DOT_csv="train.csv"), "cannot be read"),
    ("texts .csv", lambda: changed("texts .csv", labels_DOT_txt=b"\xde\xff"), "not UTF-8"),
    ("texts .csv", lambda: changed("texts .csv", labels_DOT_txt=b"c" * 6000), "unknown label"),
    ("texts .csv", lambda: {"train\n.csv": b"text,a\nb,1"}, "cannot be printed"),
    ("texts .jsonl", lambda: {"train.jsonl": b'{"text": ' + b"[" * 5000}, "nested too deeply"),
    ("texts .jsonl", lambda: {"train.jsonl": b'{"text": "a", "labels": ["\\ud800"]}'}, "not JSON"),
    (
        "texts .parquet",
        lambda: {"train.parquet": parquet(text=["a"] * 4, **{"": [0, 1] * 2})},
        "no name",
    ),
    ("images", lambda: {"labels.csv": b"file_name,a\n" + _LONG_NAMES}, "no file"),
    (
        "images .parquet",
        lambda: {"train.parquet": parquet(image=[5] * 4, a=[0, 1] * 2)},
        "is int64",
    ),
    ("features .npz", lambda: {"f.npz": claimed_array("(10**12, 3)")}, "not an .npz file"),
    (
        "features .npz",
        lambda: {"f.npz": claimed_array("(1000000000000, 3)")},
        "declares 12000000000000 bytes",
    ),
    ("features .npz", lambda: {"f.npz": claimed_array("(8, 1")}, "not an .npz file"),
    (
        "features .npz",
        lambda: {"f.npz": npz(features=_FEATURES.astype("f8") * 1e39, labels=_LABELS)},
        "is inf",
    ),
    (
        "features .npz",
        lambda: {"f.npz": npz(features=_FEATURES, labels=np.array(1))},
        "expected 0 and 1",
    ),
    (
        "features .npz",
        lambda: {
            "f.npz": npz(features=_FEATURES, labels=_LABELS[:, :1], label_names=np.array([""]))
        },
        "a blank name",
    ),
    ("mulan", lambda: changed("mulan", **{"d-test_DOT_arff": "nothing"}), "cannot be read"),
    ("mulan", lambda: changed("mulan", d_DOT_xml="/"), "cannot be read"),
    ("voc2012", lambda: changed("voc2012", ImageSets__Main__train_DOT_txt="/"), "cannot be read"),
    (
        "coco2014",
        lambda: changed("coco2014", annotations__instances_train2014_DOT_json=b"[" * 5000),
        "nested too deeply",
    ),
    ("awa", lambda: changed("awa", classes_DOT_txt=b"1 fox\n2 fox\n3 pig"), "duplicate name 'fox'"),
    ("archive .zip", lambda: {"a.zip": long_member()}, "is a link"),
    ("predict .parquet", lambda: {"f.parquet": double_column()}, "two columns 'features'"),
    ("predict .parquet", lambda: {"f.parquet": parquet(features=["a"] * 4)}, "lists of numbers"),
    (
        "predict .npz",
        lambda: {"f.npz": claimed_array("(1000000000000, 3)")},
        "declares 12000000000000 bytes",
    ),
    ("study", lambda: changed("study", s__study_DOT_json=study_record(space=None)), "'space'"),
    ("study", lambda: changed("study", s__study_DOT_json=study_record(method=7)), "method = 7"),
    (
        "study",
        lambda: changed(
            "study", s__study_DOT_json=study_record(space={"metric": "x", "mode": "max"})
        ),
        "not a metric of its trials",
    ),
    (
        "study",
        lambda: changed("study", s__history_DOT_parquet=schema_version(b"x")),
        "schema version",
    ),
    ("study", lambda: changed("study", s__study_DOT_json=b"[" * 5000), "nested too deeply"),
    (
        "report",
        lambda: changed("report", s__history_DOT_parquet="history.parquet"),
        "cannot be read",
    ),
    (
        "report",
        lambda: changed("report", s__study_DOT_json=study_record(environment=None)),
        "no entry 'environment'",
    ),
    (
        "report",
        lambda: changed("report", s__study_DOT_json=study_record(started_at="yesterday")),
        "started_at = 'yesterday'",
    ),
    (
        "storage",
        lambda: changed("storage", **{"local/d/s/_DOT_storage_DOT_json": b"{}"}),
        "cannot be read",
    ),
    ("model", lambda: changed("model", m__config_DOT_json=b'{"a":' * 5000), "nested too deeply"),
    ("model", lambda: changed("model", m__thresholds_DOT_json=b'["*a", 1]'), "not a threshold"),
    ("model", lambda: changed("model", m__labels_DOT_json=b'["a", "a"]'), "not a label"),
    ("checkpoint", lambda: {STATE: checkpoint_pickle(b"0."), SAMPLES: b""}, "not a readable"),
    (
        "checkpoint of another run",
        lambda: {STATE: checkpoint_pickle(_OTHER_STATE), SAMPLES: checkpoint_pickle(_OTHER_STATE)},
        "not a checkpoint of this run",
    ),
]


@pytest.mark.parametrize(
    ("name", "files", "words"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)]
)
def test_former_defects_are_refused_in_one_sentence(
    name: str, files: Callable[[], Files], words: str
) -> None:
    message = fuzz.refusal(READERS[name], files())
    assert message is not None and words in message
