"""ARFF tables row by row: what they mean, and what is refused with file and line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bbam_ray.data.formats.arff import ArffTable, Attribute
from bbam_ray.data.formats.arff_rows import ArffRows
from bbam_ray.errors import UsageError

HEAD = """% made by hand
@RELATION 'r: -C 2'

@attribute a numeric
@ATTRIBUTE\tc  {x,y,'z z'}
@attribute L{ 0, 1 } % no blank needed
@Attribute 'it\\'s "M"' {1,0}
@Data
"""
BAD_ROWS = r"""
?,x,0,1          | 'a' | the value is missing (?)
1.5,?,0,1        | 'c' | the value is missing (?)
{0 ?}            | 'a' | the value is missing (?)
{2 1, 1 ?}       | 'c' | the value is missing (?)
NaN,x,0,1        | 'a' | 'NaN' is not finite
{0 -inf}         | 'a' | '-inf' is not finite
Infinity,x,0,1   | 'a' | 'Infinity' is not finite
1e39,x,0,1       | 'a' | '1e39' | float32 | scale
{0 -1e400}       | 'a' | '-1e400' | float32 | scale
1_0,x,0,1        | 'a' | '1_0' is not a number
0x1p3,x,0,1      | 'a' | '0x1p3' is not a number
'?',x,0,1        | 'a' | '?' is not a number
1.5,w,0,1        | 'c' | 'w' is not declared | known: x, y, z z
1.5,zz,0,1       | 'c' | 'zz' | did you mean 'z z'
1.5,x,2,1        | 'L' | declared as 0 or 1 | '2'
{2 0.5}          | 'L' | declared as 0 or 1 | '0.5'
1.5,x,0,1,0      | 5 values for 4
1.5,,x,0,1       | 5 values for 4
1.5,x,0,1,,      | 5 values for 4
1.5,x,0,         | 3 values for 4
1.5,'x',0,       | 3 values for 4
1.5,x,0          | 3 values for 4
1.5,z z,0,1      | 5 values for 4 | quotes
1.5,x % 0,1      | 2 values for 4
1.5,'x,0,1       | the quote ' is not closed
{4 1}            | index 4 is too large | 0 to 3
{0 1, 4 'q'}     | index 4 is too large | 0 to 3
{2 1,0 1,2 1}    | index 2 is a duplicate
{2 '1',2 1}      | index 2 is a duplicate
{-1 1}           | '-1 1' is not 'index value'
{a 1}            | 'a 1' is not 'index value'
{1.0 1}          | '1.0 1' is not 'index value'
{99999999999999999999 1} | is not 'index value'
{0 1,}           | '' is not 'index value'
{0 1 2}          | '0 1 2' is not 'index value'
{0}              | '0' is not 'index value'
{? 1}            | '? 1' is not 'index value'
{,}              | '' is not 'index value'
1.5,x,0,1,{5}    | instance weight ({5}) | remove the weights
{0 1}, {5}       | instance weight ({5}) | remove the weights
{0 1             | braces do not match
0 1}             | braces do not match
{0 1},2          | braces do not match
{0 1}{2          | braces do not match
{                | braces do not match
"""
BAD_HEADS = r"""
a string          | 'a' is of type string | remove it | StringToWordVector
'b c' DATE 'yyyy' | 'b c' is of type date
a relational      | 'a' is of type relational
a b numeric       | is not '@attribute name numeric' | quotes
a                 | is not '@attribute name numeric'
{ numeric         | is not '@attribute name numeric'
{ {0,1}           | is not '@attribute name numeric'
a numeric {2}     | is not '@attribute name numeric'
a {0,1} {2}       | is not '@attribute name numeric'
a {x,y            | is not '@attribute name numeric'
a x,y             | is not '@attribute name numeric'
'a numeric        | the quote ' is not closed
a {x,,y}          | 'a' declares an empty
a {}              | 'a' declares an empty
a {x,?}           | 'a' declares an empty, missing (?)
a {x,y,x}         | 'a' declares | duplicate value
L numeric         | duplicate attribute 'L' | rename
"""


def table(root: Path, text: str, encoding: str = "utf-8") -> ArffTable:
    (root / "t.arff").write_bytes(text.encode(encoding))
    return ArffTable(root / "t.arff")


def refused(root: Path, text: str, line: int, *words: str) -> None:
    with pytest.raises(UsageError) as caught:
        list(ArffRows(table(root, text)))
    message = str(caught.value)
    assert message.startswith(f"{root / 't.arff'} line {line}: ")
    assert "\n" not in message and "\0" not in message and len(message) < 400
    assert [word for word in words if word not in message] == [], message


def cases(text: str) -> list[tuple[str, ...]]:
    return [tuple(part.strip() for part in line.split(" | ")) for line in text.strip().split("\n")]


def test_names_kinds_and_lines_of_the_attributes_are_read(tmp_path: Path) -> None:
    assert table(tmp_path, HEAD + "{}").attributes == [
        Attribute("a", 4, None),
        Attribute("c", 5, ("x", "y", "z z")),
        Attribute("L", 6, ("0", "1")),
        Attribute('it\'s "M"', 7, ("1", "0")),
    ]


ROWS: dict[str, tuple[list[int], list[float]]] = {
    "-1.5e2,y,1,0": ([0, 1, 2, 3], [-150, 1, 1, 0]),
    " .5 ,\tx , 1 ,+0": ([0, 1, 2, 3], [0.5, 0, 1, 0]),
    "5.\tx 1\t0": ([0, 1, 2, 3], [5, 0, 1, 0]),
    "7,'z z',\"1\",0 % said twice": ([0, 1, 2, 3], [7, 2, 1, 0]),
    "2,x,1,0,": ([0, 1, 2, 3], [2, 0, 1, 0]),
    "2,x,1,0 , % comma": ([0, 1, 2, 3], [2, 0, 1, 0]),
    "2,'y',1,0,": ([0, 1, 2, 3], [2, 1, 1, 0]),
    "{3 1, 0 2.5}": ([3, 0], [1, 2.5]),
    "{ 1 'z z' ,\t2 1 } % note": ([1, 2], [2, 1]),
    "{1 y}": ([1], [1]),
    "{}": ([], []),
    "{ }%": ([], []),
}


def test_rows_give_attributes_and_values(tmp_path: Path) -> None:
    text = HEAD + "\n% between\n".join(ROWS)
    made = table(tmp_path, text)
    assert made.rows == len(ROWS)
    rows = list(ArffRows(made))
    assert [(at.tolist(), values.tolist()) for _, at, values in rows] == list(ROWS.values())
    assert [line for line, _, _ in rows] == [9 + 2 * number for number in range(len(ROWS))]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_line_ends_and_encodings_do_not_matter(end: str, encoding: str, tmp_path: Path) -> None:
    text = HEAD.replace("@Data", "@attribute Größe {ä,'\xa0'}\n@DATA") + "1,x,0,1,'\xa0'\n"
    made = table(tmp_path, text.replace("\n", end), encoding)
    assert made.attributes[-1] == Attribute("Größe", 8, ("ä", "\xa0"))
    assert [(line, values.tolist()) for line, _, values in ArffRows(made)] == [
        (10, [1, 0, 0, 1, 1])
    ]


@pytest.mark.parametrize("case", cases(BAD_ROWS), ids=lambda case: case[0])
def test_a_bad_row_is_refused(case: tuple[str, ...], tmp_path: Path) -> None:
    row, *words = case
    refused(tmp_path, f"{HEAD}1,y,0,1\n% between\n{row}\n0,x,0,1\n", 11, *words)


@pytest.mark.parametrize(
    "row", ["{2 1,0 " + "9" * 5000 + "}", "{" + "9" * 5000 + " 1}", "x" * 5000]
)
def test_endless_texts_are_refused_in_a_short_sentence(row: str, tmp_path: Path) -> None:
    refused(tmp_path, HEAD + row, 9)


@pytest.mark.parametrize("case", cases(BAD_HEADS), ids=lambda case: case[0])
def test_a_bad_declaration_is_refused(case: tuple[str, ...], tmp_path: Path) -> None:
    declaration, *words = case
    text = HEAD.replace("@Data", f"@attribute {declaration}\n@Data")
    refused(tmp_path, text + "{}\n", 8, *words)


def test_torn_and_foreign_files_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, "", 1, "without @data", "torn")
    refused(tmp_path, HEAD.replace("@Data\n", ""), 7, "without @data")
    refused(tmp_path, HEAD + "\n  \n% no row\n", 8, "no row after @data")
    refused(tmp_path, "@relation r\n\n@data\n1\n", 3, "no @attribute before @data")
    refused(tmp_path, "a,b\n1,2\n", 1, "expected @relation, @attribute or @data, not 'a,b'")
    refused(tmp_path, HEAD.replace("@Data", "@end r\n@Data") + "{}", 8, "not '@end r'")


def test_a_hint_does_not_list_hundreds_of_values(tmp_path: Path) -> None:
    many = ",".join(f"word{number}" for number in range(300))
    text = HEAD.replace("x,y", f"x,y,{many}") + "1,QQ,0,1"
    refused(tmp_path, text, 9, "'QQ'", "none of the 303 known names is similar")


def test_quoting_a_row_changes_no_value(tmp_path: Path) -> None:
    """The quick way for plain rows and the careful one are the same reader."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=50) * 10.0 ** rng.integers(-30, 30, 50)
    cells = [
        [repr(value), "xy"[n % 2], str(n % 3 % 2), "1"] for n, value in enumerate(numbers.tolist())
    ]
    rows = [
        *(",".join(row) for row in cells),
        *(",".join(f"'{text}'" for text in row) for row in cells),
        *("{" + ",".join(f"{a} {text}" for a, text in enumerate(row)) + "}" for row in cells),
    ]
    read = [values for _, _, values in ArffRows(table(tmp_path, HEAD + "\n".join(rows)))]
    values = np.array(read).reshape(3, 50, 4)
    np.testing.assert_array_equal(values[0, :, 0], numbers)
    np.testing.assert_array_equal(values[1:], [values[0]] * 2)
