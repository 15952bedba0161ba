"""A matrix that is written in any dialect of ARFF comes back as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bbam_ray.data.formats.mulan import MulanPart, read_mulan

LABELS = {"?": "numeric", "Größe": "{0,1}", "@data": "{1,0}"}
NAMES = ["plain", "with blank", "it's", 'say "so"', "50% {a, b}", "back\\slash", *LABELS]
KINDS = ("numeric", "{0,1}", "{ 1, 0 }", "{red,'light, blue',\"it's\"}")
MEANING = {"red": "red", "light, blue": "'light, blue'", "it's": '"it\'s"'}


def read(root: Path, table: bytes) -> MulanPart:
    (root / "d.arff").write_bytes(table)
    tags = "".join(f'<label name="{label}"/>' for label in LABELS)
    (root / "d.xml").write_text(f"<labels>{tags}</labels>", encoding="utf-8")
    parts, names = read_mulan(root)
    assert names == tuple(LABELS)
    return parts["train"]


def quoted(name: str, quote: str) -> str:
    return quote + name.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote


@settings(
    max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    seed=st.integers(0, 2**32 - 1),
    kinds=st.lists(st.sampled_from(KINDS), min_size=len(NAMES), max_size=len(NAMES)),
    order=st.permutations(range(len(NAMES))),
    quote=st.sampled_from("'\""),
    sparse=st.sampled_from((0.0, 0.5, 1.0)),
    comma=st.sampled_from((",", ", ", " ,\t")),
    end=st.sampled_from(("\n", "\r\n", " \n\n% note\n", "  % note\n")),
    encoding=st.sampled_from(("utf-8", "utf-8-sig", "latin-1")),
)
def test_a_random_matrix_comes_back_from_every_dialect(
    tmp_path: Path,
    seed: int,
    kinds: list[str],
    order: list[int],
    quote: str,
    sparse: float,
    comma: str,
    end: str,
    encoding: str,
) -> None:
    rng, rows = np.random.default_rng(seed), 4
    kinds = [LABELS.get(name, kind) for name, kind in zip(NAMES, kinds, strict=True)]
    texts: list[list[str]] = []
    expected: dict[str, np.ndarray] = {}
    for name, kind in zip(NAMES, kinds, strict=True):
        if "red" in kind:
            codes = rng.integers(0, 3, rows)
            texts.append([list(MEANING.values())[code] for code in codes])
            expected[name] = np.eye(3)[codes]
        elif kind == "numeric" and name not in LABELS:
            values = rng.normal(size=rows) * 10.0 ** rng.integers(-8, 8) * rng.integers(0, 2, rows)
            texts.append([f"{value:{rng.choice(['.6g', '+.8f', '.3E'])}}" for value in values])
            expected[name] = np.array([[float(text)] for text in texts[-1]])
        else:
            bits = rng.integers(0, 2, rows)
            texts.append([str(bit) for bit in bits])
            expected[name] = bits[:, None]
    lines = ["@relation made"]
    for number, column in enumerate(order):
        name = NAMES[column] if column == 0 else quoted(NAMES[column], quote)
        word = ("@attribute", "@ATTRIBUTE", "@Attribute\t")[number % 3]
        lines.append(f"{word} {name} {kinds[column]}")
    lines.append("@data")
    first = {"{0,1}": "0", "{1,0}": "1", "{ 1, 0 }": "1", KINDS[3]: "red"}
    for row in range(rows):
        cells = [texts[column][row] for column in order]
        if rng.random() < sparse:
            pairs = [
                f"{place} {value}"
                for place, (column, value) in enumerate(zip(order, cells, strict=True))
                if value != first.get(kinds[column], "0") or rng.random() < 0.2
            ]
            rng.shuffle(pairs)
            lines.append("{" + comma.join(pairs) + "}")
        else:
            lines.append(comma.join(cells))
    part = read(tmp_path, end.join([*lines, ""]).encode(encoding))
    features = [expected[NAMES[column]] for column in order if NAMES[column] not in LABELS]
    np.testing.assert_array_equal(part.features, np.hstack(features).astype(np.float32))
    np.testing.assert_array_equal(part.labels, np.hstack([expected[label] for label in LABELS]))


def test_a_wide_sparse_table_is_read_into_place(tmp_path: Path) -> None:
    rng, width = np.random.default_rng(0), 30_000
    matrix = np.zeros((40, width), dtype=np.float32)
    matrix[rng.integers(0, 40, 900), rng.integers(0, width, 900)] = rng.integers(1, 9, 900)
    head = "".join(f"@attribute a{column} integer\n" for column in range(width))
    rows = [
        "{" + ",".join(f"{c + 3} {row[c]:g}" for c in np.flatnonzero(row)) + "}\n" for row in matrix
    ]
    labels = "".join(f"@attribute '{label}' {{0,1}}\n" for label in LABELS)
    text = f"@relation wide\n{labels}{head}@data\n" + "".join(rows)
    part = read(tmp_path, text.encode())
    np.testing.assert_array_equal(part.features, matrix)
    np.testing.assert_array_equal(part.labels, np.zeros((40, 3)))
