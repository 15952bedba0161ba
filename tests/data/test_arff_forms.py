"""ARFF as Weka, MOA, MEKA and exporters write it: the same samples in every notation, or a refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bbam_ray.data.datasets.features import Features, FeaturesOptions
from bbam_ray.data.formats.mulan import is_mulan, mulan_files, read_mulan
from bbam_ray.errors import UsageError

CASES = Path(__file__).parents[3] / "shared" / "cases"
RNG = np.random.default_rng(3)
VECTORS = RNG.normal(size=(30, 3)).round(3)
LABELS = (np.arange(30)[:, None] >> np.arange(2) & 1).astype(np.uint8)
XML = '<labels><label name="c1"/><label name="c2"/></labels>'


def rows(words: tuple[str, str] = ("0", "1"), end: str = "", first: bool = False) -> list[str]:
    """Lines of data; labels are last, or first."""
    lines = []
    for vector, label in zip(VECTORS.tolist(), LABELS, strict=True):
        cells = [list(map(repr, vector)), [words[bit] for bit in label]]
        lines.append(
            ",".join(text for group in (cells[::-1] if first else cells) for text in group) + end
        )
    return lines


def arff(
    lines: list[str], kind: str = "{0,1}", relation: str = "x", first: bool = False, tail: str = ""
) -> str:
    groups = [
        "".join(f"@attribute a{k} numeric\n" for k in range(3)),
        "".join(f"@attribute c{k} {kind}\n" for k in (1, 2)),
    ]
    head = "".join(groups[::-1] if first else groups)
    return f"@relation {relation}\n{head}@data\n" + "\n".join(lines) + "\n" + tail


def folder(root: Path, text: str, name: str = "x.arff", xml: str | None = XML) -> Path:
    root.mkdir(exist_ok=True)
    (root / name).write_text(text)
    if xml is not None:
        (root / "x.xml").write_text(xml)
    return root


def check(root: Path) -> tuple[str, ...]:
    """The samples are the expected ones; returns the notes."""
    parts, names = read_mulan(root)
    assert names == ("c1", "c2") and list(parts) == ["train"]
    np.testing.assert_array_equal(parts["train"].features, VECTORS.astype(np.float32))
    np.testing.assert_array_equal(parts["train"].labels, LABELS)
    assert parts["train"].is_labeled.all()
    return parts["train"].notes


def refused(root: Path, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        read_mulan(root)
    assert "\n" not in str(caught.value)


PAIRS = {
    "{0,1}": ("0", "1"),
    "{1,0}": ("0", "1"),
    "{0.0,1.0}": ("0.0", "1.0"),
    "{1.00,0.00}": ("0.00", "1.00"),
    "{0.,1.}": ("0.", "1."),
    "{false,true}": ("false", "true"),
    "{True, False}": ("False", "True"),
    "{TRUE,FALSE}": ("FALSE", "TRUE"),
    "{no,yes}": ("no", "yes"),
    "{'YES','NO'}": ("NO", "YES"),
    "{n,y}": ("n", "y"),
    "{T,F}": ("F", "T"),
    "{-1,1}": ("-1", "1"),
    "{+1,-1}": ("-1", "+1"),
    "{-1.0,1.0}": ("-1.0", "1.0"),
    "numeric": ("0", "1.0"),
    "integer": ("0", "1"),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_labels_in_any_words(kind: str, tmp_path: Path) -> None:
    words = PAIRS[kind]
    assert not check(folder(tmp_path / "dense", arff(rows(words), kind)))
    sparse, default = [], kind.strip("{").replace("'", "").split(",")[0]
    for vector, label in zip(VECTORS.tolist(), LABELS, strict=True):
        pairs = [f"{k} {value!r}" for k, value in enumerate(vector)]
        cells = [(k + 3, words[bit]) for k, bit in enumerate(label)]
        pairs += [f"{k} {w}" for k, w in cells if w != default]
        sparse.append("{" + ", ".join(pairs) + "}")
    check(folder(tmp_path / "sparse", arff(sparse, kind)))


@pytest.mark.parametrize(
    "kind", ["{0,1,2}", "{a,b}", "{0,true}", "{0,0.0}", "{no,true}", "{0,1,?}", "{-1,0,1}", "{2}"]
)
def test_other_words_are_refused(kind: str, tmp_path: Path) -> None:
    refused(folder(tmp_path, arff(rows(), kind)), r"line 5: (label|attribute) 'c1' (is )?declare")


def test_a_label_of_which_only_one_value_occurs(tmp_path: Path) -> None:
    lines = [line[: line.rindex(",")] + ",0" for line in rows()]
    text = arff(lines).replace("c2 {0,1}", "c2 {0}")
    np.testing.assert_array_equal(
        read_mulan(folder(tmp_path, text))[0]["train"].labels[:, 1], np.zeros(30)
    )


@pytest.mark.parametrize("end", [",", " ,", ",\t", ", % note"])
@pytest.mark.parametrize("words", ["{0,1}", "{false,true}"])
def test_commas_at_the_end_of_rows(end: str, words: str, tmp_path: Path) -> None:
    check(folder(tmp_path, arff(rows(PAIRS[words], end), words)))


@pytest.mark.parametrize("tail", ["@end\n", "@END\n\n", "  @end % x\n% more\n", "@end x\n"])
def test_a_line_that_ends_the_data(tail: str, tmp_path: Path) -> None:
    check(folder(tmp_path, arff(rows(), tail=tail)))


def test_rows_after_the_end_are_refused(tmp_path: Path) -> None:
    refused(folder(tmp_path, arff(rows(), tail="@end\n1,2,3,0,1\n")), "line 39: a line after @end")


@pytest.mark.parametrize("change", ["crlf", "case", "comments", "tabs", "quotes", "bom", "latin"])
def test_notations_that_change_nothing(change: str, tmp_path: Path) -> None:
    text = arff(rows())
    if change == "crlf":
        text = text.replace("\n", "\r\n")
    elif change == "case":
        text = text.replace("@attribute", "@ATTRIBUTE").replace("numeric", "REAL")
        text = text.replace("@data", "@Data").replace("@relation", "@Relation")
    elif change == "comments":
        text = "% by hand\n%\n\n" + text.replace("@data\n", "\n% rows\n\n@data\n% first\n\n")
    elif change == "tabs":
        text = text.replace(" numeric", "\tnumeric").replace(",", ",\t")
    elif change == "quotes":
        text = text.replace("c1 {0,1}", "'c1' {'0',\"1\"}").replace("a0", '"a 0"')
    root = folder(tmp_path, text)
    content = text.encode("utf-8-sig" if change == "bom" else "utf-8")
    if change == "latin":
        content = ("% Größe\n" + text).encode("latin-1")
    (root / "x.arff").write_bytes(content)
    check(root)


@pytest.mark.parametrize(
    ("relation", "first"),
    [
        ("'Music: -C 2'", True),
        ('"Music: -C 2"', True),
        ("'M:-C 2'", True),
        ("'made: -C -2'", False),
        ("'made: -C -2 -split-number 20'", False),
    ],
)
def test_labels_that_the_relation_names(relation: str, first: bool, tmp_path: Path) -> None:
    text = arff(rows(first=first), relation=relation, first=first)
    root = folder(tmp_path, text, xml=None)
    assert is_mulan(root) and mulan_files(root) == [root / "x.arff"]
    notes = check(root)
    assert any("x.arff: 2 labels by -C" in note and "c1 ... c2" in note for note in notes)
    assert any("-split" in note for note in notes) == ("-split" in relation)


@pytest.mark.parametrize("relation", ["x", "'x: -C'", "'x: -C 0'", "'x: -C 5'", "'x: -C -9'"])
def test_a_table_that_does_not_say_its_labels_is_refused(relation: str, tmp_path: Path) -> None:
    root = folder(tmp_path, arff(rows(), relation=relation), xml=None)
    refused(root, r"x\.arff: which of its 5 attributes are labels is not known .*x\.xml.*-C 6")


def test_the_xml_decides_and_a_relation_that_differs_is_named(tmp_path: Path) -> None:
    notes = check(folder(tmp_path, arff(rows(), relation="'x: -C 2'")))
    assert any("says -C 2, but the 2 labels are those of x.xml" in note for note in notes)
    assert check(folder(tmp_path, arff(rows(), relation="'x: -C -2'"))) == ()


def test_rows_without_labels_are_not_labelled(tmp_path: Path) -> None:
    for kind, words in (("{0,1}", ("0", "1")), ("{no,yes}", ("no", "yes")), ("real", ("0", "1"))):
        lines = rows(words)
        for row in (4, 7):
            lines[row] = ",".join([*map(repr, VECTORS[row].tolist()), "?", "?"])
        lines[8] = "{" + ", ".join(f"{k} {v!r}" for k, v in enumerate(VECTORS[8])) + ",3 ?, 4 ?}"
        lines[8] = lines[8].replace("np.float64(", "").replace(")", "")
        root = folder(tmp_path, arff(lines, kind))
        part = read_mulan(root)[0]["train"]
        assert np.flatnonzero(~part.is_labeled).tolist() == [4, 7, 8]
        np.testing.assert_array_equal(part.features, VECTORS.astype(np.float32))
        expected = LABELS.copy()
        expected[[4, 7, 8]] = 0
        np.testing.assert_array_equal(part.labels, expected)
        assert part.notes == ("x.arff: 3 of 30 rows have no labels (?)",)
        samples = Features().load(FeaturesOptions(), root, "train")
        assert samples.is_labeled is not None and (~samples.is_labeled).sum() == 3
        assert samples.notes == part.notes


def test_partly_missing_labels_and_missing_features_are_refused(tmp_path: Path) -> None:
    lines = rows()
    lines[4] = lines[4][:-1] + "?"
    refused(folder(tmp_path, arff(lines)), r"line 12: label 'c2' is missing \(\?\), but others")
    lines = rows()
    lines[4] = "?" + lines[4][lines[4].index(",") :]
    refused(folder(tmp_path, arff(lines)), r"line 12: attribute 'a0': the value is missing \(\?\)")
    lines = rows()
    lines[4] = lines[4][:-3] + "?,?"
    root = folder(tmp_path, arff(rows()), "x-train.arff")
    (root / "x-test.arff").write_text(arff(lines))
    refused(root, r"x-test\.arff line 12: label 'c1' is missing \(\?\), but a test row needs")


def test_a_data_set_without_any_label_is_refused(tmp_path: Path) -> None:
    lines = [line[:-3] + "?,?" for line in rows()]
    root = folder(tmp_path, arff(lines))
    assert not read_mulan(root)[0]["train"].is_labeled.any()
    with pytest.raises(UsageError, match=r"all labels of all 30 rows are missing \(\?\)"):
        Features().load(FeaturesOptions(), root, "train")


@pytest.mark.parametrize("kind", ["string", "STRING", "date 'yyyy-MM-dd'", "relational"])
def test_texts_are_refused_with_a_way_out(kind: str, tmp_path: Path) -> None:
    text = arff(rows()).replace("a0 numeric", f"a0 {kind}")
    refused(folder(tmp_path, text), "attribute 'a0' is of type .*remove it or convert it")


def test_weights_of_rows_are_refused(tmp_path: Path) -> None:
    refused(
        folder(tmp_path, arff([f"{line},{{2}}" for line in rows()])), r"instance weight \(\{2\}"
    )


FURTHER = ["x.arff", "x-train-fold1.arff", "y.arff", "x.count", "x.rdf", "README.md", "readme.txt"]


@pytest.mark.parametrize("xml", [True, False])
def test_the_needed_files_are_chosen_and_the_others_named(xml: bool, tmp_path: Path) -> None:
    text = arff(rows(), relation="'x: -C -2'")
    for name in ("x-train.arff", "x-test.arff"):
        folder(tmp_path, text, name, XML if xml else None)
    for name in FURTHER if xml else [n for n in FURTHER if n[0] != "y" and "fold" not in n]:
        (tmp_path / name).write_text("@relation broken")
    (tmp_path / "._x-train.arff").write_bytes(b"\0\5")
    if xml:
        (tmp_path / "build.xml").write_text("<project/>")
    parts, _ = read_mulan(tmp_path)
    assert list(parts) == ["train", "test"] and len(parts["test"].labels) == 30
    named = parts["train"].notes[0]
    assert "not read: " in named and "README" not in named and "readme" not in named
    assert ("build.xml" in named and "and 3 more" in named) if xml else "x.arff, x.count" in named


@pytest.mark.parametrize("names", [("x_train.arff", "x_test.arff"), ("train.arff", "test.arff")])
def test_other_names_of_parts(names: tuple[str, str], tmp_path: Path) -> None:
    for name in names:
        folder(tmp_path, arff(rows(), relation="'x: -C -2'"), name, None)
    assert list(read_mulan(tmp_path)[0]) == ["train", "test"]


def test_two_data_sets_are_refused(tmp_path: Path) -> None:
    for name in ("x.arff", "y.arff"):
        folder(tmp_path, arff(rows(), relation="'x: -C -2'"), name, None)
    refused(tmp_path, r"x\.arff and y\.arff are different data sets")
    (tmp_path / "x.arff").rename(tmp_path / "y-test.arff")
    (tmp_path / "y.arff").unlink()
    refused(tmp_path, r"y-test\.arff has no training part")


@pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases")
@pytest.mark.parametrize(
    ("case", "count", "width", "names", "positives"),
    [
        ("arff_float01", 30, 3, ("c1", "c2"), [15, 14]),
        ("arff_truefalse", 30, 3, ("c1", "c2"), [15, 14]),
        ("arff_trailing_comma", 30, 3, ("c1", "c2"), [15, 14]),
        ("meka_Music", 592, 71, ("amazed-suprised", "angry-aggresive"), [173, 189]),
        ("mekax_missing", 592, 71, ("amazed-suprised", "angry-aggresive"), [0, 0]),
    ],
)
def test_the_cases(
    case: str, count: int, width: int, names: tuple[str, str], positives: list[int]
) -> None:
    parts, labels = read_mulan(CASES / case)
    part = parts["train"]
    assert part.features.shape == (count, width) and (labels[0], labels[-1]) == names
    assert part.labels.sum(axis=0)[[0, -1]].tolist() == positives
    assert part.is_labeled.all() != (case == "mekax_missing")
