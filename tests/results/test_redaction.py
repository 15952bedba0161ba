"""No secret survives in what is kept or shown, and ordinary commands stay as they are."""

from __future__ import annotations

import json
import logging
import re
import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bbam_ray.cli.main import app
from bbam_ray.data import DATASETS
from bbam_ray.errors import UsageError
from bbam_ray.methods import METHODS, known_settings
from bbam_ray.results.redaction import MARK, redacted, redacted_command, redacted_words
from bbam_ray.results.remote import check_local, open_study
from bbam_ray.results.storage import Storage
from bbam_ray.results.store import StudyStore
from bbam_ray.results.study import command_line

ROOT = Path(__file__).parents[2]
SECRET = "s3cr3t/With+Signs="


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://AKIDKEY:pass@bucket/results", "s3://REDACTED@bucket/results"),
        ("s3:/key:pass@bucket/results", "s3:/REDACTED@bucket/results"),
        ("http://user:p@ss@host:5000/x is down", "http://REDACTED@host:5000/x is down"),
        ("https://token-alone@host/x", "https://REDACTED@host/x"),
        ("s3://b/r?access_key=a&secret_key=b/c&region=eu", None),
        ("s3://b/r?sig=abc&key=def#x", "s3://b/r?sig=REDACTED&key=REDACTED"),
        ("--set hub.token=abc --set scale=20", "--set hub.token=REDACTED --set scale=20"),
        ("tune --api-key abc --name x", "tune --api-key REDACTED --name x"),
        ("AWS_SECRET_ACCESS_KEY='a b' failed", "AWS_SECRET_ACCESS_KEY=REDACTED failed"),
        ("{'password': 'a b', 'user': 'me'}", "{'password': 'REDACTED', 'user': 'me'}"),
        ("  secret_key: abc\nregion: eu", "  secret_key: REDACTED\nregion: eu"),
        ("Authorization: Bearer abcdefghij.k", "Authorization: Bearer REDACTED"),
        ("S3FileSystem(access_key='abc', region='eu')", None),
        ("AccountName=n;AccountKey=abc==;x", "AccountName=n;AccountKey=REDACTED"),
        (f"key AKIA{'A' * 16} is refused", f"key {MARK} is refused"),
        (f"hf_{'a' * 34}", MARK),
        (f"ghp_{'a' * 36}", MARK),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", MARK),
    ],
)
def test_secrets_are_taken_out_and_the_rest_stays(text: str, expected: str | None) -> None:
    found = redacted(text)
    if expected is None:
        assert MARK in found and "eu" in found and "abc" not in found and "b/c" not in found
    else:
        assert found == expected
    assert redacted(found) == found


@pytest.mark.parametrize(
    "text",
    [
        "python launch/tune.py --name mine --num-samples 40 --labeled-fraction 0.1 --resume",
        "bbam-ray tune --results s3://bucket/path@v1/results --set tokenizer=bert-base-uncased",
        "s3://b/r?endpoint_override=127.0.0.1:9000&scheme=http&region=us-east-1",
        "http://127.0.0.1:8080/a@b and 12:30 and me@example.org and git@host:repo",
        "--set max_tokens=64: texts of up to 64 tokens; the token that is absent",
        "--set scale: expected key=value, for example --set scale=20",
        "token: every node has the one of the head",
        "commit 011f7d62a3b4c5d6e7f8091a2b3c4d5e6f708192, keyboard=us, monkeys=3, keep=0.5",
    ],
)
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text and redacted_command(text) == text
    assert redacted_words(text.split()) == text.split()


def test_no_setting_and_no_option_of_this_program_is_taken_for_a_secret() -> None:
    settings = {s for d in DATASETS for m in METHODS for s in known_settings(d, m)}
    assert len(settings) > 60
    for name in settings:
        words = ["--set", f"{name}=value"]
        assert redacted_words(words) == words and redacted(" ".join(words)) == " ".join(words)
    help_ = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["tune", "--help"]).output
    options = set(re.findall(r"--[a-z][a-z\-]+", help_))
    assert len(options) > 20
    for option in options:
        assert redacted_words([option, "value"]) == [option, "value"]


secrets = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=6).filter(
    lambda text: not text.startswith("--") and text not in MARK
)
names = st.sampled_from(
    [
        "token",
        "hub.token",
        "SECRET",
        "aws_secret_access_key",
        "db-password",
        "api_key",
        "access-key",
    ]
)


@given(secrets, names)
def test_a_secret_never_survives_in_a_command(secret: str, name: str) -> None:
    marked = f"q{secret}q"  # so that it is no part of another word
    for words in (
        ["tune", "--set", f"{name}={marked}", "--name", "x"],
        ["tune", f"--{name}", marked, "--name", "x"],
        ["tune", f"--{name}={marked}", "--name", "x"],
    ):
        hidden = redacted_words(words)
        assert len(hidden) == len(words) and hidden[0] == "tune" and hidden[-1] == "x"
        assert not [word for word in hidden if marked in word]
        assert marked not in redacted_command(shlex.join(words))
        assert redacted_words(hidden) == hidden


unescaped = st.text(
    st.characters(codec="utf-8", categories=("L", "N"), include_characters="-._~%+="), min_size=6
).filter(lambda text: text not in MARK)


@given(unescaped, unescaped, names)
def test_a_secret_never_survives_in_a_uri_or_a_text(user: str, secret: str, name: str) -> None:
    user, secret = f"q{user}q", f"q{secret}q"
    for text in (
        f"s3://{user}:{secret}@bucket/results",
        f"cannot reach http://{user}:{secret}@host:5000/api; try again",
        f"s3://bucket/r?{name}={secret}&region=eu",
        f"error: {name}={secret}, region=eu",
        f"{{'{name}': '{secret}', 'x': 1}}",
    ):
        found = redacted(text)
        assert secret not in found and redacted(found) == found
        assert secret not in " ".join(redacted_words(["--results", text]))


def test_what_is_kept_of_a_study_has_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["launch/tune.py", "--results", f"s3://k:{SECRET}@b/r", "--set", f"x.token={SECRET}"]
    monkeypatch.setattr(sys, "argv", words)
    assert SECRET not in command_line() and command_line().startswith("python launch/tune.py")
    store = StudyStore(tmp_path, {"scale": "float"})
    row = {"study": "x", "trial_id": "t0", "number": 0, "state": "FAILED"}
    store.trials.put([row | {"error": f"OSError: https://u:{SECRET}@host refused"}])
    store.flush()
    (kept,) = store.trials.rows()
    assert kept["error"] == "OSError: https://REDACTED@host refused"


def test_what_is_said_of_object_storage_has_no_secrets(tmp_path: Path) -> None:
    uri = f"nowhere://k:{SECRET}@bucket/results/digits/x"
    for call in (
        lambda: Storage(uri),
        lambda: open_study(uri),
        lambda: check_local("--output", Path(uri)),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        assert SECRET not in str(caught.value) and MARK in str(caught.value)
    for command in (
        ["tune", "--results", uri],
        ["train", "--results", uri],
        ["report", uri],
        ["watch", uri],
        ["predict", "--model", uri, "--input", "x", "--output", str(tmp_path / "o.csv")],
    ):
        ended = CliRunner().invoke(app, command)
        assert ended.exit_code == 2 and MARK in ended.output and SECRET not in ended.output


def test_a_tracker_that_fails_tells_no_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from bbam_ray.scale.study.trackers import Tracker

    tracker = Tracker("tensorboard", tmp_path, "x")
    tracker._on = True
    with caplog.at_level(logging.WARNING):
        tracker._switch_off(RuntimeError(f"POST http://u:{SECRET}@host/api?token={SECRET} failed"))
    assert "the study continues" in caplog.text and SECRET not in caplog.text
    assert json.dumps(MARK) == '"REDACTED"'
