"""Texts as token rows: tokenizers, what is stored, views, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trees import TREES

from bbam_ray.data import DATASETS
from bbam_ray.data.cache.row_file import write_rows
from bbam_ray.data.cache.token_rows import TokenRows, trimmed
from bbam_ray.data.example_texts import TOPICS, compose, write_example
from bbam_ray.data.formats.tokenizer import ABSENT, TokenEncoder, load_tokenizer, train_tokenizer
from bbam_ray.data.views.texts import strong_tokens
from bbam_ray.errors import UsageError

TEXTS, LABELS = compose(80, seed=3)


def load(folder: Path, part: str = "train", **options: Any) -> Any:
    dataset = DATASETS["text"]
    built = dataset.Options.build({"vocabulary": 300, "max_length": 32, **options}, "test")
    dataset.check(built, folder)
    return dataset.load(built, folder, part)


def test_a_trained_tokenizer_is_the_same_each_time_and_marks_both_ends() -> None:
    content = train_tokenizer(TEXTS, 300)
    assert content == train_tokenizer(TEXTS, 300)
    encode = TokenEncoder(content, 16)
    assert 100 < encode.vocabulary <= 300
    rows = encode(["the rocket", "the", " ".join(["rocket"] * 50)])
    assert rows.shape == (3, 16) and rows.dtype == np.int32
    vocabulary = json.loads(content)["model"]["vocab"]
    assert set(rows[:, 0]) == {vocabulary["[CLS]"]}
    assert rows[1].tolist()[2:] == [vocabulary["[SEP]"]] + [ABSENT] * 13
    assert rows[2, -1] == vocabulary["[SEP]"] and (rows[2] != ABSENT).all()
    assert TokenEncoder(content, 16)([]).shape == (0, 16)


def test_the_tokenizer_of_a_folder_is_taken_and_nothing_is_fetched(tmp_path: Path) -> None:
    content = train_tokenizer(TEXTS, 300)
    (tmp_path / "tokenizer.json").write_text(content)
    assert load_tokenizer(str(tmp_path)) == content
    with pytest.raises(UsageError, match="hf download no/such-encoder"):
        load_tokenizer("no/such-encoder")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="tokenizer cannot be read"):
        TokenEncoder(load_tokenizer(str(tmp_path)), 16)


def test_stored_rows_are_no_wider_than_their_longest(tmp_path: Path) -> None:
    rows = np.full((3, 64), ABSENT, np.int32)
    rows[0, :5], rows[1, :20], rows[2, :64] = 7, 8, 9
    write_rows(tmp_path / "t.rows", rows, (64,), np.int32, {"lengths": [5, 20, 64]})
    stored = TokenRows(tmp_path / "t.rows")
    assert stored.shape == (3, 64)
    assert [stored[np.array(chosen)].shape[1] for chosen in ([0], [0, 1], [2], [2, 0])] == [
        *(16, 32, 64, 64)
    ]
    assert stored[np.array([1])][0, :20].tolist() == [8] * 20
    assert stored[np.array([], dtype=np.int64)].shape[0] == 0
    assert trimmed(np.full((2, 32), ABSENT, np.int32)).shape == (2, 16)


def test_texts_and_labels_of_a_table_belong_together(tmp_path: Path) -> None:
    folder = TREES["text"](tmp_path / "t")
    train, test = load(folder), load(folder, "test")
    assert (len(train.inputs), len(test.inputs)) == (40, 20)
    assert train.names[3] == "post 3" and test.names[0] == "post 40"
    texts, labels = compose(60, seed=1)
    encode = TokenEncoder(train.views.tokenizer, 32)
    np.testing.assert_array_equal(np.asarray(train.inputs), encode(texts[:40]))
    names = list(TOPICS)
    for row in (0, 17):
        assert [
            n for n, y in zip(train.label_names, train.labels[row], strict=True) if y
        ] == sorted(names[k] for k in labels[row].nonzero()[0])


def test_the_tokenizer_never_sees_the_test_part(tmp_path: Path) -> None:
    folder = TREES["text"](tmp_path / "t")
    before = load(folder).views.tokenizer
    rare = (folder / "test.csv").read_text().replace("the", "zyzzyva")
    (folder / "test.csv").write_text(rare)
    assert load(folder).views.tokenizer == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.csv", "words,labels\na,b\n", r"no column 'text' \(columns: words, labels\)"),
        ("train.csv", "text,labels\n ,b\n", "line 2: no text"),
        ("train.jsonl", '{"text": 5, "labels": ["a"]}\n', "line 1: no text"),
        ("test.csv", "text,labels\na,b\n", "no train.csv"),
        ("train.csv", "text,labels\nhello,\nyou,a\n", "labels are blank"),
    ],
)
def test_what_is_no_table_of_texts_is_named(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=message):
        load(tmp_path)


def test_a_folder_or_file_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs --data-dir"):
        load(None)  # type: ignore[arg-type]
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(UsageError, match=r"expected .csv, .tsv, .jsonl, .parquet"):
        load(tmp_path / "x.txt")


def test_an_abstract_of_several_ohsumed_categories_has_them_all(tmp_path: Path) -> None:
    dataset = DATASETS["ohsumed"]
    folder = TREES["ohsumed"](tmp_path / "o")
    options = dataset.Options.build({"tokenizer": "trained", "vocabulary": 300}, "test")
    train = dataset.load(options, folder, "train")
    assert len(train.labels) == 46 and train.label_names[:2] == ("C01", "C02")
    place = train.names.index("training/0000001")
    assert train.labels[place].nonzero()[0].tolist() == [1, 7]
    (folder / "test" / "C05").rename(folder / "test" / "elsewhere")
    with pytest.raises(UsageError, match="C05: no such folder"):
        dataset.check(options, folder)


def test_aapd_takes_training_and_validation_lines_together(tmp_path: Path) -> None:
    dataset = DATASETS["aapd"]
    folder = TREES["aapd"](tmp_path / "a")
    options = dataset.Options.build({"tokenizer": "trained", "vocabulary": 300}, "test")
    assert len(dataset.load(options, folder, "train").labels) == 50
    test = dataset.load(options, folder, "test")
    _, labels = compose(20, seed=20)
    assert [test.label_names[k] for k in test.labels[4].nonzero()[0]] == [
        f"cs.{k}" for k in labels[4].nonzero()[0]
    ]
    lines = (folder / "label_val").read_text().splitlines()
    (folder / "label_val").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(UsageError, match=r"label_val: 9 lines for 10 lines of text_val"):
        dataset.load(options, folder, "train")


@pytest.mark.parametrize(("magnitude", "cutout"), [(0.0, 0.0), (1.0, 0.0), (0.0, 0.8), (1.0, 0.8)])
def test_the_strong_view_lacks_inner_tokens_alone(magnitude: float, cutout: float) -> None:
    rng = torch.Generator().manual_seed(0)
    lengths = torch.tensor([2, 3, 10, 40, 48])
    tokens = torch.randint(5, 90, (5, 48), generator=rng, dtype=torch.int32)
    tokens[torch.arange(48) >= lengths[:, None]] = ABSENT
    noise = torch.rand(5, 12, generator=rng)
    strong = strong_tokens(tokens, noise, magnitude, cutout)
    kept = strong != ABSENT
    assert torch.equal(strong[kept], tokens[kept])
    assert torch.equal(strong[:, 0], tokens[:, 0])
    for row, length in enumerate(lengths.tolist()):
        assert strong[row, length - 1] == tokens[row, length - 1]
        gone = int((~kept[row, :length]).sum())
        if not magnitude:
            assert gone == int(cutout**2 * (length - 2))
            places = (~kept[row, :length]).nonzero().flatten()
            assert gone < 2 or int(places[-1] - places[0]) == gone - 1  # one span
    if magnitude:
        assert int((~kept[4]).sum()) > 4
    # A wider batch changes nothing.
    wide = torch.nn.functional.pad(tokens, (0, 16), value=ABSENT)
    assert torch.equal(strong_tokens(wide, noise, magnitude, cutout)[:, :48], strong)


def test_the_example_is_written_once_and_can_be_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "example"
    write_example(folder, 60, 30)
    train = load(folder)
    assert len(train.labels) == 60 and len(train.label_names) == 10
    assert train.labels.sum(1).min() >= 1 and train.labels.sum(1).max() <= 3
    with pytest.raises(UsageError, match="exists already"):
        write_example(folder)
