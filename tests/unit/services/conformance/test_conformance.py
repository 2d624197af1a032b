"""The judge decides as an elector does, and reads files as producers write them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.services.cli.app import app
from joblog.services.conformance.cases import CASES, LANES, Case
from joblog.services.conformance.judge import Judge, Outcome, SentRecord
from joblog.services.conformance.records import read_records
from joblog.streams.contract.ids import hashed_job_id, lane_of_job, lane_of_queue
from joblog.streams.errors import InvalidData
from typer.testing import CliRunner

EVENT = {"specversion": "1.0", "id": "4711", "source": "/shop", "type": "job.create"}


def event(**data: Any) -> bytes:
    return json.dumps(EVENT | {"data": {"task": "mails.send", "queue": "mails"} | data}).encode()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_case_comes_out_as_it_says(case: Case) -> None:
    judge = Judge(LANES)
    verdicts = [judge.judge(one.record()) for one in case.records]
    assert [(verdict.outcome, verdict.code) for verdict in verdicts] == list(case.expected)


def test_the_cases_do_not_disturb_each_other() -> None:
    judge = Judge(LANES)
    for case in CASES:
        assert [judge.judge(one.record()).outcome for one in case.records] == [one for one, _ in case.expected]


def test_the_names_of_cases_differ() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_job_is_where_its_queue_is_whatever_lane_the_record_came_in() -> None:
    for partition in (None, *range(LANES)):
        verdict = Judge(LANES).judge(SentRecord(event(), b"mails", partition=partition))
        home = lane_of_queue("mails", LANES)
        assert verdict.job_id == hashed_job_id(home, "/shop", "4711")
        assert (verdict.outcome, verdict.lane, lane_of_job(verdict.job_id)) == (Outcome.TAKEN, home, home)
        assert verdict.forwarded == (partition not in {None, home})


def test_shards_count_for_ids_of_keys() -> None:
    ids = {Judge(LANES, {"mails": 4}).judge(SentRecord(event(idempotency_key=str(n)))).lane for n in range(50)}
    assert len(ids) == LANES


@given(st.binary(max_size=60), st.one_of(st.none(), st.binary(max_size=10)))
def test_any_bytes_get_a_verdict(value: bytes, key: bytes | None) -> None:
    assert Judge(LANES).judge(SentRecord(value, key)).outcome is Outcome.REFUSED


def written(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join(lines))
    return path


def test_a_file_holds_events_and_records(tmp_path: Path) -> None:
    record = {"key": "mails", "headers": {"ce_id": "1"}, "value": {"task": "t"}, "partition": 3}
    file = written(tmp_path / "a.jsonl", event(), b"", json.dumps(record).encode(), b"{not json", b'{"value": null}')
    assert list(read_records(file)) == [
        ("a.jsonl:1", SentRecord(event())),
        ("a.jsonl:3", SentRecord(b'{"task":"t"}', b"mails", [("ce_id", "1")], 3)),
        ("a.jsonl:4", SentRecord(b"{not json")),
        ("a.jsonl:5", SentRecord(None)),
    ]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_file_may_be_one_document(tmp_path: Path, indent: int | None) -> None:
    one = json.loads(event())
    file = written(tmp_path / "one.json", json.dumps(one, indent=indent).encode())
    assert [json.loads(record.value or b"") for _, record in read_records(file)] == [one]
    file = written(tmp_path / "two.json", json.dumps([one, one], indent=indent).encode())
    assert [place for place, _ in read_records(file)] == ["two.json:1", "two.json:2"]


@pytest.mark.parametrize("line", [b'{"value": 1, "kye": "a"}', b'{"value_base64": "*"}', b'{"value": 1, "key": 2}'])
def test_a_record_with_a_mistake_is_named(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(InvalidData, match=r"r\.jsonl:1: a record has value, key, headers"):
        list(read_records(written(tmp_path / "r.jsonl", line)))


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["contract", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_command_says_what_becomes_of_each_record(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", event(), event(), event(task=7), b'{"key":"other","value":{}}')
    code, out, said = run("check", str(file), "--output", "json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["outcome"] for row in rows] == ["taken", "duplicate", "refused", "refused"]
    assert "job.create.task" in rows[2]["reason"]
    assert "1 taken, 1 duplicate, 2 refused" in said
    assert code == 1


def test_the_command_is_content_with_what_is_taken(tmp_path: Path) -> None:
    code, out, _ = run("check", str(written(tmp_path / "a.jsonl", event(), event())))
    assert code == 0
    assert "job.enqueued" in out


@pytest.mark.parametrize("arguments", [(), ("a.jsonl", "--topic", "t")])
def test_the_command_reads_files_or_a_topic(arguments: tuple[str, ...]) -> None:
    with pytest.raises(InvalidData, match="give files, or --topic"):
        run("check", *arguments)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidData, match=r"nowhere\.jsonl: No such file"):
        run("check", "nowhere.jsonl")


def test_the_cases_are_printed() -> None:
    code, out, _ = run("cases")
    assert code == 0
    assert [one["name"] for one in json.loads(out)["cases"]] == [case.name for case in CASES]
