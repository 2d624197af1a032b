"""`--map` of a redrive: what it makes of a job's arguments, and what it says of a mapping that cannot be used."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from joblog.projections.monitor.models import Job
from joblog.services.cli.commands.replay.mapping import mapping_of
from joblog.streams.contract.states import State
from joblog.streams.errors import InvalidData

SNAPSHOT: dict[str, Any] = {"spec": {"args": [1], "kwargs": {"width": 320, "height": 200}}, "parameters": {}}
AT = datetime(2027, 1, 1, tzinfo=UTC)


def job() -> Job:
    fields = dict.fromkeys(Job.model_fields)
    known = {"id": "j", "state": State.FAILED, "task": "t", "queue": "q", "exception": None}
    return Job.model_construct(**{**fields, **known})


def mapped(tmp_path: Path, text: str, name: str = "fix.json") -> Any:
    path = tmp_path / name
    path.write_text(text)
    place = str(path) if name.endswith(".json") else f"{path}:fix"
    return mapping_of(place)(job(), SNAPSHOT)


def test_a_file_adds_named_arguments_or_replaces_positional_ones(tmp_path: Path) -> None:
    assert mapped(tmp_path, '{"kwargs": {"width": 640}}') == ([1], {"width": 640, "height": 200})
    assert mapped(tmp_path, '{"args": [2, 3]}') == ([2, 3], {"width": 320, "height": 200})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n  "args": [1,\n}', "line 3, column 1"),
        ('{\n  "args": [1],\n  "kwarg": {}\n}', "line 3: there is no field 'kwarg': write args or kwargs"),
        ('{\n\n  "args": "a.png"\n}', "line 3: args is 'a.png': give a list"),
        ('{"args": [],\n "kwargs": [640]}', "line 2: kwargs is [640]: give an object"),
        ("[]", "write an object with args or kwargs"),
        ("{}", "write an object with args or kwargs"),
        ('{"args": ' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_line_and_field(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidData) as raised:
        mapped(tmp_path, text)
    assert said in str(raised.value)
    assert "fix.json" in str(raised.value)


def test_a_file_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "fix.json").write_bytes(b'{"args": ["\xff"]}')
    with pytest.raises(InvalidData, match=r"not UTF-8 \(byte 11\)"):
        mapping_of(str(tmp_path / "fix.json"))
    with pytest.raises(InvalidData, match="No such file"):
        mapping_of(str(tmp_path / "other.json"))


def test_a_function_gives_new_arguments_or_none(tmp_path: Path) -> None:
    assert mapped(tmp_path, "def fix(job):\n    return [9], {**job['kwargs'], 'width': 1}\n", "fix.py") == (
        [9],
        {"width": 1, "height": 200},
    )
    assert mapped(tmp_path, "def fix(job):\n    return None\n", "none.py") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def fix(job):\n    wide = 1\n    return job['kwarg']\n", "job j: KeyError: 'kwarg' (line 3 of "),
        ("def fix(job):\n    return 5\n", "job j: 5 is not (args, kwargs), nor None"),
        ("def fix(job):\n    return [1]\n", "job j: [1] is not (args, kwargs)"),
        ("def fix(job):\n    return 'a', {}\n", "job j: args is 'a': give a list"),
        ("def fix(job):\n    return [], {1: 2}\n", "job j: kwargs is {1: 2}: give an object"),
        ("def fix(job)\n    return 5\n", "line 1"),
        ("def other(job):\n    return 5\n", "give MODULE:FUNCTION, FILE.py:FUNCTION or a JSON file"),
    ],
)
def test_a_function_that_cannot_be_used_is_told_with_line_and_job(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidData) as raised:
        mapped(tmp_path, text, "fix.py")
    assert said in str(raised.value)
