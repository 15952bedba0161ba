"""Use of a text model: loading, scoring, prediction and export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from bbam_ray import load_model
from bbam_ray.cli.main import app
from bbam_ray.core.ensembles import Standardization
from bbam_ray.data.example_texts import compose
from bbam_ray.engine.ensemble_folder import EnsembleMember, save_ensemble
from bbam_ray.engine.export import PROGRAM, export_model
from bbam_ray.engine.model_folder import save_model
from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import UsageError

Stored = tuple[Trainer, Path]
TEXTS, _ = compose(25, seed=5)


@pytest.fixture(scope="module", params=["tiny-text", "transformer"])
def stored(
    request: pytest.FixtureRequest,
    text_trainer: Callable[..., Trainer],
    run_to_end: Callable,
    tiny_bert: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Stored:
    weights = {"weights": str(tiny_bert)} if request.param == "transformer" else {}
    trainer = text_trainer(backbone=request.param, evaluation_batch=16, **weights)
    run_to_end(trainer)
    folder = tmp_path_factory.mktemp("text") / "model"
    save_model(folder, trainer, [0.1 * k - 0.5 for k in range(10)])
    return trainer, folder


def test_a_loaded_model_scores_texts_as_in_training(stored: Stored, text_folder: Path) -> None:
    trainer, folder = stored
    model = load_model(folder, "cpu")
    texts = pd.read_csv(text_folder / "train.csv")["text"].tolist()
    expected = trainer.score(trainer.data.inputs, np.arange(len(texts))).numpy()
    np.testing.assert_allclose(model.logits(texts), expected, atol=1e-5)
    tokens = np.asarray(trainer.data.inputs)
    np.testing.assert_allclose(model.logits(tokens), expected, atol=1e-5)
    assert model.takes_texts and model.predict(texts[:3]).shape == (3, 10)
    assert model.logits([]).shape == (0, 10)


def test_what_is_no_text_is_refused(stored: Stored) -> None:
    model = load_model(stored[1], "cpu")
    for wrong, message in (
        ("one text", "give a list of texts"),
        (np.zeros((2, 500), np.int32), "up to 48"),
        (np.zeros((2, 4), np.float32), "takes texts"),
        (np.full((1, 4), 9999, np.int32), "token 9999; this model's vocabulary has"),
    ):
        with pytest.raises(UsageError, match=message):
            model.logits(wrong)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_kind_of_table_gets_the_same_scores(
    suffix: str, stored: Stored, tmp_path: Path
) -> None:
    source = tmp_path / f"new{suffix}"
    names = [f"n{row}" for row in range(len(TEXTS))]
    frame = pd.DataFrame({"id": names, "text": TEXTS})
    if suffix == ".csv":
        frame.to_csv(source, index=False)
    elif suffix == ".jsonl":
        frame.to_json(source, orient="records", lines=True)
    else:
        pq.write_table(pa.Table.from_pandas(frame), source, row_group_size=10)
    output = tmp_path / "scores.parquet"
    ended = CliRunner().invoke(
        app,
        [*("predict", "--model", str(stored[1]), "--input", str(source)), "--output", str(output)],
    )
    assert ended.exit_code == 0, ended.output
    found = pq.read_table(output).to_pandas()
    assert found["name"].tolist() == names and found["error"].isna().all()
    expected = load_model(stored[1], "cpu").predict_proba(TEXTS)
    scores = found[[c for c in found.columns if c.startswith("score_")]].to_numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_a_row_without_text_has_its_reason_and_stops_nothing(
    stored: Stored, tmp_path: Path
) -> None:
    source, output = tmp_path / "new.jsonl", tmp_path / "scores.csv"
    source.write_text(
        "".join(json.dumps({"text": t}) + "\n" for t in (TEXTS[0], None, "  ", TEXTS[1]))
    )
    ended = CliRunner().invoke(
        app,
        [*("predict", "--model", str(stored[1]), "--input", str(source)), "--output", str(output)],
    )
    assert ended.exit_code == 0, ended.output
    found = pd.read_csv(output)
    assert found["error"].fillna("").tolist() == ["", "no text", "no text", ""]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "hello", "expected .csv"),
        ("a.csv", "words\nhello\n", "no column 'text'"),
        ("a.parquet", "no", "not a complete Parquet file"),
    ],
)
def test_an_input_that_holds_no_texts_ends_with_2(
    name: str, content: str, message: str, stored: Stored, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    ended = CliRunner().invoke(
        app,
        [
            *("predict", "--model", str(stored[1]), "--input", str(tmp_path / name)),
            *("--output", str(tmp_path / "o.csv")),
        ],
    )
    assert ended.exit_code == 2 and message in " ".join(ended.output.split())


def test_an_exported_model_is_self_contained_in_every_format(
    stored: Stored, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    _, folder = stored
    output = tmp_path / "out"
    ended = CliRunner().invoke(
        app,
        [
            *("export", "--model", str(folder), "--output", str(output)),
            *("--format", "torch.export", "--format", "onnx"),
        ],
    )
    assert ended.exit_code == 0, ended.output
    model = load_model(output, "cpu")
    expected = load_model(folder, "cpu").logits(TEXTS)
    np.testing.assert_allclose(model.logits(TEXTS), expected, atol=1e-5)
    session = onnxruntime.InferenceSession(output / "model.onnx")
    program = torch.export.load(output / "model.pt2").module()
    for tokens in (model.stored(TEXTS)[:1], model.stored(TEXTS)[:7, :32]):
        by_model = model.logits(tokens)
        (by_onnx,) = session.run(None, {"inputs": tokens})
        np.testing.assert_allclose(by_onnx, by_model, atol=1e-4)
        by_program = program(torch.from_numpy(tokens)).detach().numpy()
        np.testing.assert_allclose(by_program, by_model, atol=1e-4)
    card = (output / "README.md").read_text()
    assert "texts of up to 48 tokens" in card and "`tokenizer.json`" in card


def test_a_program_made_with_short_texts_takes_all_lengths(stored: Stored, tmp_path: Path) -> None:
    model = load_model(stored[1], "cpu")
    tokens = model.stored(TEXTS)
    assert tokens.shape[1] == 48
    export_model(model, tmp_path, [PROGRAM], tokens[:, :16])
    program = torch.export.load(tmp_path / PROGRAM).module()
    for length in (2, 16, 17, 48):
        part = np.ascontiguousarray(tokens[:5, :length])
        found = program(torch.from_numpy(part)).detach().numpy()
        np.testing.assert_allclose(found, model.logits(part), atol=1e-4)


def test_an_ensemble_takes_texts(stored: Stored, tmp_path: Path) -> None:
    single = load_model(stored[1], "cpu").logits(TEXTS)
    moments = Standardization(torch.arange(10).double(), torch.full((10,), 2.0).double())
    members = [EnsembleMember(stored[1], weight, moments) for weight in (0.5, 1.0)]
    save_ensemble(tmp_path / "e", members, [0.0] * 10)
    model = load_model(tmp_path / "e", "cpu")
    assert model.takes_texts and model.networks == 2
    np.testing.assert_allclose(model.logits(TEXTS), 1.5 * (single - np.arange(10)) / 2, atol=1e-4)
    tokens = model.stored(TEXTS)
    (tmp_path / "out").mkdir()
    differences = export_model(model, tmp_path / "out", [PROGRAM], tokens)
    assert set(differences) == {"ensemble.json", PROGRAM}


@pytest.mark.parametrize("name", ["tokenizer.json", "encoder.json"])
def test_a_missing_file_is_named(name: str, stored: Stored, tmp_path: Path) -> None:
    shutil.copytree(stored[1], tmp_path / "m")
    if not (tmp_path / "m" / name).exists():
        pytest.skip("the small encoder has no file of its own")
    (tmp_path / "m" / name).unlink()
    with pytest.raises(UsageError, match=name):
        load_model(tmp_path / "m")
