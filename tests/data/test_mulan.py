"""Mulan folders as published: their parts and labels, and clear refusals of all else."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from bbam_ray.data.formats import mulan
from bbam_ray.data.formats.mulan import is_mulan, mulan_files, read_mulan
from bbam_ray.errors import UsageError

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "mulan"
XML = '<?xml version="1.0" encoding="utf-8"?>\n<labels xmlns="http://mulan.sourceforge.net/labels">\n{}</labels>'
BASE = """% made by hand
@RELATION 'r: -C 2'

@attribute a numeric
@attribute c {x,y,'z z'}
@ATTRIBUTE L {0,1}
@attribute\tM  {1,0}
@Data
1.5,x,0,1
% between
{0 -2e0,2 1}
0,'z z',1,0
"""
FEATURES = [[1.5, 1, 0, 0], [-2, 1, 0, 0], [0, 0, 0, 1]]  # a, and c as one-hot
LABELS = [[1, 0], [1, 1], [0, 1]]  # M, L; the sparse row leaves out M, whose first value is 1


def folder(
    root: Path, *names: str, train: str | bytes = BASE, test: str | bytes | None = None
) -> Path:
    labels = "".join(f'<label name="{name}"></label>\n' for name in names or ("M", "L"))
    parts = {"d.xml": XML.format(labels), "d-train.arff": train, "d-test.arff": test}
    for file, text in parts.items():
        if text is not None:
            (root / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def refused(root: Path, *words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_mulan(root)
    message = str(caught.value)
    assert "\n" not in message and "\0" not in message
    assert [word for word in words if word not in message] == [], message


def replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


def test_dense_and_sparse_rows_give_the_declared_meaning_in_the_order_of_the_xml(
    tmp_path: Path,
) -> None:
    test = "\n".join([*BASE.splitlines()[:8], "{}", "{3 0 , 1 y}"])
    parts, names = read_mulan(folder(tmp_path, train=BASE, test=test))
    assert names == ("M", "L") and list(parts) == ["train", "test"]
    np.testing.assert_array_equal(parts["train"].features, FEATURES)
    np.testing.assert_array_equal(parts["train"].labels, LABELS)
    np.testing.assert_array_equal(parts["test"].features, [[0, 1, 0, 0], [0, 0, 1, 0]])
    np.testing.assert_array_equal(parts["test"].labels, [[1, 0], [0, 0]])
    assert {str(part.features.dtype) for part in parts.values()} == {"float32"}
    assert {str(part.labels.dtype) for part in parts.values()} == {"uint8"}


BAD_LABELS = [
    (
        "L {0,1}",
        "L {red,blue}",
        ["d-train.arff line 6", "'L'", "values other than 0 and 1", "{0,1}"],
    ),
    ("L {0,1}", "L {0,1,2}", ["d-train.arff line 6", "'L'", "values other than 0 and 1"]),
    (
        "L {0,1}",
        "L1 {0,1}",
        ["d.xml", "'L' is not an attribute of d-train.arff", "did you mean 'L1'"],
    ),
]


@pytest.mark.parametrize(("old", "new", "words"), BAD_LABELS)
def test_a_label_that_no_binary_attribute_carries_is_refused(
    old: str, new: str, words: list[str], tmp_path: Path
) -> None:
    refused(folder(tmp_path, train=replaced(BASE, old, new)), *words)
    words = [word.replace("train", "test") for word in words]
    refused(folder(tmp_path, test=replaced(BASE, old, new)), *words)


def test_a_bad_row_or_header_is_refused_in_either_part(tmp_path: Path) -> None:
    for old, new, words in (
        ("1.5,x,0,1", "?,x,0,1", "line 9: attribute 'a'"),
        ("a numeric", "a string", "line 4: attribute 'a'"),
    ):
        bad = replaced(BASE, old, new)
        refused(folder(tmp_path, train=bad, test=BASE), "d-train.arff", words)
        refused(folder(tmp_path, test=bad), "d-test.arff", words)


@pytest.mark.parametrize("value", ["2", "0.5", "-1"])
def test_a_numeric_label_must_hold_0_and_1_only(value: str, tmp_path: Path) -> None:
    text = replaced(BASE, "L {0,1}", "L numeric")
    np.testing.assert_array_equal(
        read_mulan(folder(tmp_path, train=text))[0]["train"].labels, LABELS
    )
    bad = replaced(text, "0,'z z',1,0", f"0,'z z',{value},0")
    refused(folder(tmp_path, train=bad), "d-train.arff line 12", "'L'", value, "not 0 or 1")


@pytest.mark.parametrize(
    ("old", "new"),
    [("a numeric", "b numeric"), ("a numeric", "a {0,1}"), ("c {x,y,'z z'}", "c {y,x,'z z'}"),
     ("a numeric", "a numeric\n@attribute b real"), ("@Data", "@attribute b real\n@Data"),
     ("@attribute c {x,y,'z z'}\n", "")],
)  # fmt: skip
def test_other_features_in_the_test_part_are_refused(old: str, new: str, tmp_path: Path) -> None:
    for train, test in itertools.permutations([BASE, replaced(BASE, old, new)]):
        root = folder(tmp_path, train=train, test=test)
        refused(root, "d-test.arff: ", "differ from those of d-train.arff, first at", "line")


def test_labels_may_stand_and_be_declared_otherwise_in_the_test_part(tmp_path: Path) -> None:
    other = "@relation r\n@attribute M numeric\n@attribute a numeric\n@attribute L {1,0}\n"
    parts, _ = read_mulan(
        folder(tmp_path, test=other + "@attribute c {x,y,'z z'}\n@data\n1,7,0,x\n{1 7}")
    )
    np.testing.assert_array_equal(parts["test"].labels, [[1, 0], [0, 1]])
    np.testing.assert_array_equal(parts["test"].features, [[7, 1, 0, 0]] * 2)


def test_a_binary_feature_may_be_declared_in_either_order(tmp_path: Path) -> None:
    train = replaced(BASE, "{0 -2e0,2 1}", "{0 -2e0}")
    test = replaced(train, "L {0,1}", "L {1,0}")
    parts, _ = read_mulan(folder(tmp_path, "M", train=train, test=test))
    np.testing.assert_array_equal(parts["train"].features[:, -1], [0, 0, 1])
    np.testing.assert_array_equal(parts["test"].features[:, -1], [0, 1, 1])


def test_a_table_that_would_be_too_large_is_refused_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "".join(f"@attribute word{number} numeric\n" for number in range(1000))
    folder(tmp_path, "L", train=f"@relation r\n{words}@attribute L {{0,1}}\n@data\n{{}}\n")
    monkeypatch.setattr(mulan, "MAX_BYTES", 4001)  # 1 row of 1,000 features and 1 label
    assert read_mulan(tmp_path)[0]["train"].features.shape == (1, 1000)
    monkeypatch.setattr(mulan, "MAX_BYTES", 4000)
    refused(tmp_path, "1 rows of 1,000 features")
    monkeypatch.undo()
    with (tmp_path / "d-train.arff").open("a") as file:
        file.write("{}\n" * 2_200_000)
    size = ["2,200,001 rows of 1,000 features", "8.2 GiB", "the limit is 8 GiB"]
    refused(tmp_path, "d-train.arff", *size)


def test_a_table_of_labels_alone_is_refused(tmp_path: Path) -> None:
    text = "@relation r\n@attribute L {0,1}\n@data\n1\n"
    refused(folder(tmp_path, "L", train=text), "d-train.arff", "all attributes are labels")


XMLS = [
    ("", ["no <label name=...>"]),
    ("<label/>", ["has no name"]),
    ('<label name="L"/><label name="M"/><label name="L"/>', ["duplicate label 'L'"]),
    ('<label name="L">', ["not valid XML", "mismatched tag"]),
    ('<label name="l"/>', ["'l' is not an attribute of d-train.arff"]),
]


@pytest.mark.parametrize(("inner", "words"), XMLS)
def test_bad_lists_of_labels_are_refused(inner: str, words: list[str], tmp_path: Path) -> None:
    (folder(tmp_path) / "d.xml").write_text(XML.format(inner))
    refused(tmp_path, "d.xml", *words)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_dtd_is_refused_however_it_is_encoded(encoding: str, tmp_path: Path) -> None:
    bomb = '<!DOCTYPE labels [<!ENTITY a "L"><!ENTITY b "&a;&a;">]>\n<labels><label name="&b;"/></labels>'
    (folder(tmp_path) / "d.xml").write_bytes(bomb.encode(encoding))
    refused(tmp_path, "d.xml", "null bytes" if "16" in encoding else "<!DOCTYPE")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_nested_labels_all_count_and_names_may_be_latin_1(encoding: str, tmp_path: Path) -> None:
    nested = '<label name="M"><label name="Größe"/></label>'
    (folder(tmp_path) / "d.xml").write_bytes(XML.format(nested).encode(encoding))
    train = replaced(BASE, "@ATTRIBUTE L", "@ATTRIBUTE Größe").encode("latin-1")
    (tmp_path / "d-train.arff").write_bytes(train)
    parts, names = read_mulan(tmp_path)
    assert names == ("M", "Größe")
    np.testing.assert_array_equal(parts["train"].labels, LABELS)


def test_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    assert not is_mulan(tmp_path) and not is_mulan(tmp_path / "nowhere")
    refused(tmp_path / "nowhere", "nowhere", "no .xml file")
    folder(tmp_path)
    (tmp_path / "d-train.arff").rename(tmp_path / "d.arff")
    assert is_mulan(tmp_path)
    assert mulan_files(tmp_path) == [tmp_path / "d.xml", tmp_path / "d.arff"]
    assert list(read_mulan(tmp_path)[0]) == ["train"]
    folder(tmp_path, test=BASE)  # d.arff is the union now, and is not read
    (tmp_path / "._d.xml").write_text("left by an unpacker")
    files = [tmp_path / name for name in ("d.xml", "d-train.arff", "d-test.arff")]
    assert mulan_files(tmp_path) == files
    (tmp_path / "d-train.arff").unlink()
    refused(tmp_path, "no d-train.arff next to d.xml", "unpack")
    (tmp_path / "e-train.arff").write_text(BASE)
    refused(tmp_path, "e-train.arff", "does not belong to d.xml", "move it")
    (tmp_path / "e.xml").write_text(XML)
    refused(tmp_path, "d.xml and e.xml", "one data set")
    assert is_mulan(tmp_path)  # so the refusal is shown
    (tmp_path / "d.xml").rename(tmp_path / "f.xml")
    (tmp_path / "e.xml").unlink()
    assert not is_mulan(tmp_path)


FIRST = {
    "emotions": (0.034741, 391, 202, 72),
    "scene": (0.646467, 1211, 1196, 294),
    "yeast": (0.0937, 1500, 917, 103),
}
POSITIVE = {  # (part, row): numbers of the positive labels in the XML's order, read off the files
    "emotions": (("test", -1), [1]), "scene": (("test", -1), [5]), "yeast": (("train", 0), [2, 4]),
}  # fmt: skip


@pytest.mark.parametrize("name", FIRST)
def test_published_data_sets_are_read(name: str) -> None:
    root = PUBLISHED / name
    if not root.is_dir():
        pytest.skip(f"no shared/data/mulan/{name} beside the repository")
    value, train, test, width = FIRST[name]
    assert is_mulan(root)
    parts, names = read_mulan(root)
    assert names == tuple(re.findall(r'name="([^"]*)"', (root / f"{name}.xml").read_text()))
    assert parts["train"].features[0, 0] == np.float32(value)
    (part, row), positive = POSITIVE[name]
    assert np.flatnonzero(parts[part].labels[row]).tolist() == positive
    for part, count in (("train", train), ("test", test)):
        head, body = re.split("(?i)@data", (root / f"{name}-{part}.arff").read_text())
        columns = re.findall(r"(?im)^@attribute\s+(\S+)", head)
        table = np.array([line.split(",") for line in body.split()], dtype=np.float64)
        inputs = [place for place, column in enumerate(columns) if column not in names]
        assert parts[part].features.shape == (count, width)
        np.testing.assert_array_equal(parts[part].features, table[:, inputs].astype(np.float32))
        labels = table[:, [columns.index(label) for label in names]]
        np.testing.assert_array_equal(parts[part].labels, labels)
