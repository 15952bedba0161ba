"""The command that started a study, and commands for the same study with other options."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePath
from typing import Any

from bbam_ray.report.report_data import ReportData
from bbam_ray.results.redaction import redacted_command
from bbam_ray.results.remote import address_of

_SCRIPTS = ("tune.py", "train.py")
#: Settings that ``bbam-ray tune`` takes as flags, or sets by itself.
_FLAGS = ("dataset", "method", "seed", "data_dir", "folds", "device")
#: Options of a search that ``study.json`` has only as part of the command.
NOT_RECORDED = ("--final", "--confirm-pools", "--no-baselines")
_PLAIN = re.compile(r"(?!(?:true|false|null|yes|no|on|off)$)[A-Za-z][\w./-]*", re.IGNORECASE)


@dataclass(frozen=True)
class StudyCommand:
    """A command line of ``tune`` or ``train``.

    Args:
        program: its first words, for example ``python launch/tune.py`` or ``bbam-ray tune``.
        subcommand: tune or train.
        options: all other words.
        is_recorded: whether it is the recorded command, not one made from the recorded settings, which
            lack ``NOT_RECORDED``.
    """

    program: Sequence[str]
    subcommand: str
    options: Sequence[str]
    is_recorded: bool = True

    @classmethod
    def parse(cls, recorded: str) -> StudyCommand | None:
        """Read a command as ``study.json`` has it; None for another program, a notebook for example."""
        try:
            words = shlex.split(redacted_command(recorded))  # old records may hold secrets
        except ValueError:
            return None
        for index, word in enumerate(words[:3]):
            name = PurePath(word).name
            if name in _SCRIPTS:
                return cls(words[: index + 1], PurePath(word).stem, words[index + 1 :])
            if name == "bbam-ray" and words[index + 1 : index + 2] in (["tune"], ["train"]):
                program = [*words[:index], "bbam-ray", words[index + 1]]
                return cls(program, words[index + 1], words[index + 2 :])
        return None

    @classmethod
    def of_study(cls, data: ReportData) -> StudyCommand:
        """The recorded command; for another program, ``bbam-ray tune`` with the recorded settings."""
        command = str(data.record["command"])
        if (recorded := cls.parse(command)) is not None:
            return recorded
        program = ["bbam-ray", "tune"]
        words = command.split()
        if words[1:] and PurePath(words[1]).name == "compare.py":
            program = [words[0], str(PurePath(words[1]).with_name("tune.py"))]
        return cls(program, "tune", _options_of_record(data.record), is_recorded=False)

    def value(self, flag: str) -> str | None:
        """The last value of an option; None without it."""
        last = None
        for word, following in zip_longest(self.options, self.options[1:]):
            if word == flag:
                last = following
            elif word.startswith(f"{flag}="):
                last = word.removeprefix(f"{flag}=")
        return last

    def line(self, *words: str, without: Iterable[str] = (), switches: Iterable[str] = ()) -> str:
        """The command with further words at its end, quoted for a shell.

        Args:
            words: to add.
            without: options with a value that are left out.
            switches: options without a value that are left out.
        """
        return shlex.join([*self.program, *self._remaining(set(without), set(switches)), *words])

    def _remaining(self, without: set[str], switches: set[str]) -> list[str]:
        remaining: list[str] = []
        is_value = False
        for word in self.options:
            dropped = is_value or word.partition("=")[0] in without or word in switches
            if not dropped:
                remaining.append(word)
            is_value = not is_value and word in without
        return remaining

    def other(self, subcommand: str, *words: str) -> str:
        """Another command of the same program, quoted for a shell."""
        last = self.program[-1]
        if PurePath(last).name in _SCRIPTS:
            program = [*self.program[:-1], str(PurePath(last).with_name(f"{subcommand}.py"))]
        else:
            program = ["bbam-ray", subcommand]
        return shlex.join([*program, *words])


def study_address(data: ReportData, command: StudyCommand) -> str:
    """The study's folder for a command in the folder where it was started, or its URI."""
    results = command.value("--results") or "results"
    uri = address_of(results)
    dataset, name = str(data.record["dataset"]), data.folder.name
    if uri is not None:
        return f"{uri.rstrip('/')}/{dataset}/{name}"
    recorded = Path(results) / dataset / name
    same = recorded.resolve() == data.folder.resolve()
    return str(recorded if same else data.folder.absolute())


def as_text(value: Any) -> str:
    """A setting's value as ``--set`` reads it."""
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return json.dumps(value)


def _options_of_record(record: Mapping[str, Any]) -> list[str]:
    """Options of ``bbam-ray tune`` for the recorded settings, space and rules."""
    settings = dict(record.get("settings") or {})
    fixed = record["space"].get("fixed") or {}
    rules = record.get("rules") or {}
    stopping = rules.get("stopping") or {}
    confirm = record.get("confirm") or {}
    flags = {
        "--dataset": record["dataset"],
        "--data-dir": settings.get("data_dir"),
        "--method": record["method"],
        "--space": record.get("space_file"),
        "--num-samples": record.get("num_samples"),
        "--seed": record.get("seed"),
        "--folds": settings.get("folds"),
        "--sampler": rules.get("sampler"),
        "--scheduler": stopping.get("scheduler"),
        "--grace-epochs": stopping.get("grace"),
        "--reduction-factor": stopping.get("reduction"),
        "--confirm-top": confirm.get("top"),
        "--confirm-seeds": confirm.get("seeds"),
    }
    words = [
        word for flag, value in flags.items() if value is not None for word in (flag, str(value))
    ]
    for name, value in settings.items():
        if name not in _FLAGS and fixed.get(name, ...) != value:
            words += ["--set", f"{name}={as_text(value)}"]
    return words
