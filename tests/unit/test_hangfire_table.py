"""What deploy/hangfire.md says of Hangfire's capabilities: each row is whole, and the tests that it names exist."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "deploy" / "hangfire.md"
TEXT = DOCUMENT.read_text("utf-8")
#: A name in the first column is bold; every row has one, and nothing else begins so.
NAMED = re.compile(r"\*\*.+?\*\*")
#: A test, and where it is: `tests/unit/test_x.py::test_y`.
TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
#: As many as there are tables: one for each part of Hangfire, and one for its users' wishes.
TABLES = 7


def rows() -> Iterator[list[str]]:
    """The cells of each row of each table, without the heads."""
    lines = TEXT.splitlines()
    for above, line in zip(["", *lines], lines, strict=False):
        is_head = line.startswith("|") and not above.startswith("|")
        if line.startswith("|") and not is_head and set(line) - set("|- "):
            yield [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]


def test_every_row_names_a_capability_what_joblog_has_and_what_shows_it() -> None:
    assert TEXT.count("\n|---|---|---|\n") == TABLES
    wrong = [row for row in rows() if len(row) != 3 or not all(row) or not NAMED.match(row[0])]
    assert wrong == []
    names = [row[0] for row in rows()]
    assert len(names) > 100
    assert sorted(names) == sorted(set(names))


def test_every_test_that_is_named_exists() -> None:
    named = set(TEST.findall(TEXT))
    assert len(named) > 100
    assert TEXT.count("::") == len(TEST.findall(TEXT)), "a test is named in another form"
    missing = {f"{path}::{name}" for path, name in named if not is_there(path, name)}
    assert missing == set()


def is_there(path: str, name: str) -> bool:
    file = ROOT / path
    return file.is_file() and re.search(rf"^(async )?def {name}\(", file.read_text("utf-8"), re.MULTILINE) is not None


def test_a_row_without_a_test_says_why() -> None:
    short = [row[0] for row in rows() if not TEST.search(row[2]) and "TODO" not in row[2] and len(row[2]) < 40]
    assert short == []


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert links
    assert [link for link in links if not (DOCUMENT.parent / link).exists()] == []


def test_nothing_is_left_to_fill_in() -> None:
    assert [row[0] for row in rows() if "TODO" in " ".join(row)] == []
