"""Synthetic posts about one to three of ten topics each, to try ``--dataset text``."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from bbam_ray.errors import UsageError

# Words of each topic, most frequent first.
TOPICS = {
    "space": "orbit rocket launch moon shuttle satellite astronaut mars telescope solar comet crew "
    "payload lunar booster station gravity probe capsule thruster docking mission",
    "medicine": "patient doctor disease treatment symptom dose infection vaccine surgery clinic pain "
    "diagnosis blood therapy nurse allergy fever chronic tumor antibiotic pulse trial",
    "hockey": "goal season puck playoff team coach goalie league score defenseman overtime rink trade "
    "penalty slapshot captain roster period referee draft faceoff arena",
    "graphics": "image pixel render color polygon texture shader screen format vector palette raster "
    "display bitmap animation contour lighting mesh viewer resolution curve shading",
    "cars": "engine brake wheel dealer clutch mileage gear tire sedan diesel steering oil transmission "
    "bumper exhaust highway torque hood axle convertible sensor coolant",
    "security": "key encrypt password cipher secret attack hash protocol certificate privacy token "
    "signature firewall breach leak random audit policy wiretap decrypt agency public",
    "electronics": "circuit voltage resistor chip amplifier battery signal diode wire capacitor solder "
    "antenna current relay transistor socket oscilloscope ground filter pin coil fuse",
    "religion": "church faith prayer scripture belief soul priest sin worship gospel prophet temple "
    "grace heaven creed sermon ritual blessing covenant mercy pilgrim psalm",
    "market": "sale price offer shipping buyer condition cash discount manual box warranty bid obo "
    "invoice used shelf seller receipt bargain catalogue deposit package",
    "politics": "vote law congress tax senator election policy reform budget treaty debate minister "
    "campaign rights party amendment court governor coalition ballot embargo census",
}
_COMMON = [
    "the",
    "of",
    "and",
    "to",
    "a",
    "in",
    "that",
    "it",
    "is",
    "was",
    "for",
    "on",
    "are",
    "as",
    "with",
    "be",
    "at",
    "by",
    "this",
    "have",
    "from",
    "or",
    "had",
    "not",
    "but",
    "what",
    "all",
    "were",
    "when",
    "we",
    "there",
    "can",
    "an",
    "your",
    "which",
    "their",
    "said",
    "if",
    "do",
    "will",
    "each",
    "about",
    "how",
    "up",
    "out",
    "them",
    "then",
    "she",
    "many",
    "some",
    "so",
    "these",
    "would",
    "other",
    "into",
    "has",
    "more",
    "two",
    "like",
    "him",
    "see",
    "time",
    "could",
    "no",
    "make",
    "than",
    "first",
    "been",
    "its",
    "who",
    "now",
    "people",
    "my",
    "made",
    "over",
    "did",
    "down",
    "only",
    "way",
    "find",
    "use",
    "may",
    "long",
    "little",
    "very",
    "after",
    "words",
    "just",
    "where",
    "most",
    "know",
    "get",
    "through",
    "back",
    "much",
    "before",
    "also",
    "around",
    "another",
    "came",
    "come",
    "work",
    "three",
    "word",
    "must",
    "because",
    "does",
    "part",
]
_OPENINGS = (
    "i wonder whether",
    "has anybody seen",
    "in reply to your post",
    "thanks for the note on",
)


def compose(count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Texts and their topics (N, 10) 0/1; one to three each, of very different frequencies."""
    rng = np.random.default_rng([seed, 707])
    names = list(TOPICS)
    words = [text.split() for text in TOPICS.values()]
    frequency = np.linspace(3, 0.6, len(names))
    frequency /= frequency.sum()
    labels = np.zeros((count, len(names)), dtype=np.uint8)
    texts = []
    for row in range(count):
        several = rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15])
        topics = rng.choice(len(names), several, replace=False, p=frequency)
        labels[row, topics] = 1
        post = [_OPENINGS[rng.integers(len(_OPENINGS))]]
        for _ in range(rng.integers(25, 80)):
            kind = rng.random()
            if kind < 0.16:
                post.append(_word(words[topics[rng.integers(several)]], rng))
            elif kind < 0.20:  # of any topic
                post.append(_word(words[rng.integers(len(names))], rng))
            else:
                post.append(_word(_COMMON, rng))
        texts.append(" ".join(post) + ".")
    return texts, labels


def _word(words: list[str], rng: np.random.Generator) -> str:
    """A random word; those at the front are more frequent."""
    return words[min(int(rng.exponential(len(words) / 3)), len(words) - 1)]


def write_example(folder: Path, train: int = 1200, test: int = 600) -> None:
    """Write ``train.csv`` and ``test.csv`` with the columns ``text`` and ``labels`` into a new folder.

    Args:
        folder: new or empty.
        train, test: number of texts.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--output {folder}: exists already; give another name or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    names = list(TOPICS)
    for seed, (part, count) in enumerate((("train", train), ("test", test))):
        texts, labels = compose(count, seed)
        with (folder / f"{part}.csv").open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(["text", "labels"])
            for text, row in zip(texts, labels, strict=True):
                writer.writerow([text, "|".join(names[k] for k in row.nonzero()[0])])
