"""One turn's records, without a broker: what is decided, forwarded, parked, and fits into records again."""

from typing import Any

import pytest
from joblog.streams.contract import deadletters, wire
from joblog.streams.contract.codec import VALUE_BYTES_MAX, encode
from joblog.streams.contract.deadletters import internal_error
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.topics import ASSIGNMENT_PARTITIONS, DELAY_TIERS, TopicNames
from joblog.streams.elector import turn as turn_module
from joblog.streams.elector.failed_records import FailedRecords, RecordFailed
from joblog.streams.elector.lane_records import LaneRecord
from joblog.streams.elector.turn import CARRIED_BYTES_MAX, Turn
from joblog.streams.elector.writer import Writer
from joblog.streams.errors import InternalError
from joblog.streams.lane.features.continuations import Continuations
from joblog.streams.lane.job import Job
from joblog.streams.lane.lane import Lane
from joblog.streams.lane.output import BYTES_MAX
from joblog.streams.lane.rules import LaneRules
from joblog.streams.lane.transitions import PARAMETERS_BYTES_MAX, Election
from joblog.streams.lane.verdicts import LISTED_MAX
from msgspec import Raw, structs

from tests.support.scene import NOW, create, id_of, queue_in, succeeded, worker

NAMES = TopicNames()
LANES = 2
#: Headers with a name that is not UTF-8, as the client gives them.
UNREADABLE = object()
#: What the client lets into one record, with some room for what Kafka adds.
RECORD_BYTES_MAX = 2_000_000 - 1_000
QUEUE = queue_in(0, LANES)
#: JSON that would be longer if it were written anew: escapes, numbers with an exponent.
LONGER = Raw(b"[" + b",".join([b"1e15"] * 200_000) + b',"\\u0041"]')


class Record:
    """A record as confluent-kafka gives it."""

    def __init__(self, topic: str, value: bytes | None, headers: Any = None, key: bytes | None = b"k") -> None:
        self._topic, self._value, self._headers, self._key = topic, value, headers, key
        self._is_asked = False

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 41

    def timestamp(self) -> tuple[int, int]:
        return 2, NOW

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> Any:
        assert self._headers is not UNREADABLE or not self._is_asked, "asked again, the client kills the process"
        self._is_asked = True
        if self._headers is UNREADABLE:
            raise SystemError("<method 'headers'> returned a result with an exception set")
        return self._headers

    def key(self) -> bytes | None:
        return self._key


class Records(list[tuple[str, int]]):
    """A producer that keeps each record's topic and size."""

    def produce(self, topic: str, value: Any, key: Any = None, _partition: int = -1, headers: Any = ()) -> None:
        sizes = [len(one if isinstance(one, bytes) else str(one).encode()) for one in (value or b"", key or b"")]
        carried = sum(len(name.encode()) + len(one or b"") + 10 for name, one in headers or ())
        self.append((topic.removeprefix(NAMES.prefix), sum(sizes) + carried))


def new_turn(failed_records: FailedRecords | None = None) -> tuple[Turn, Lane]:
    lane = Lane(0, LANES, LaneRules())
    return Turn(
        NAMES, {0: lane}, Election(NOW, 0, lambda _job, event, *_: (event,), frozenset()), failed_records
    ), lane


def command(said: wire.Command, *, extension: int = 0, **about: Any) -> Any:
    value = encode(wire.CloudEvent("1.0", "c-1", "/s", said.type, data=said))
    padding = b',"x":"%s"}' % (b"x" * extension) if extension else b"}"
    return Record(NAMES.commands, value[:-1] + padding, **about)


def written(turn: Turn) -> Records:
    """What the turn's transaction would hold."""
    records = Records()
    tiers = {tier: NAMES.delay(tier) for tier in DELAY_TIERS}
    turn.write(Writer(records, LANES, NAMES, tiers, {}), {0: LaneRecord("e", 1, 2)})  # type: ignore[arg-type]
    return records


def headers_written(turn: Turn) -> dict[str, bytes]:
    """The headers of the turn's dead letter."""
    found: dict[str, bytes] = {}

    class Headers(Records):
        def produce(self, topic: str, *_: Any, headers: Any = (), **__: Any) -> None:
            if topic == NAMES.deadletters:
                found.update(headers)

    turn.write(Writer(Headers(), LANES, NAMES, {}, {}), {})  # type: ignore[arg-type]
    return found


def test_commands_and_reports_are_decided_by_their_lane_in_one_turn() -> None:
    turn, lane = new_turn()
    turn.take(command(create("a", queue=QUEUE)))
    turn.take(Record(NAMES.reports, encode(worker(queues=(QUEUE,)))))
    turn.assign()
    turn.take(Record(NAMES.reports, encode(succeeded("a", 2))))
    assert turn.offsets == {(NAMES.commands, 0): 42, (NAMES.reports, 0): 42}
    assert [topic for topic, _ in written(turn)] == ["events"] * 3 + ["assignments", "state", "state", "state"]
    assert lane.ended.get(id_of("a")) == (State.SUCCEEDED, 3)


def test_a_command_of_another_lane_is_forwarded_as_it_came() -> None:
    turn, lane = new_turn()
    turn.take(command(create("a", lane=1, lanes=LANES), headers=[("trace", b"1")]))
    assert [target for _, _, target in turn.forwards] == [1]
    assert not lane.jobs
    assert [topic for topic, _ in written(turn)] == ["state", "commands"]


@pytest.mark.parametrize(
    "record",
    [
        Record(NAMES.commands, b"garbage"),
        Record(NAMES.commands, None),
        command(create("a", queue=QUEUE), headers=UNREADABLE),
        command(create("a", lane=1, lanes=LANES), headers=[("", None)] * CARRIED_BYTES_MAX),
        command(create("a", lane=LANES, lanes=LANES + 1)),
        command(create("a", lane=1, lanes=LANES), key=b"k" * (CARRIED_BYTES_MAX + 1)),
        command(create("a", lane=1, lanes=LANES), headers=[("h", b"h" * CARRIED_BYTES_MAX)]),
    ],
)
def test_a_command_that_no_lane_could_take_is_parked_and_rejected_and_the_turn_goes_on(record: Any) -> None:
    turn, _ = new_turn()
    turn.take(record)
    turn.take(command(create("b", queue=QUEUE)))
    assert len(turn.parked) == 1
    assert [kind for _, kind, *_ in turn.outputs[0].events] == ["command.rejected", "job.enqueued"]
    assert [topic for topic, _ in written(turn)] == ["events", "events", "state", "state", "deadletters"]
    assert not turn.empty


@pytest.mark.parametrize(
    "value",
    [
        b'{"type":"run.succeeded"}',
        b'{"type":"run.succeeded","job_id":"\xc3(","lease":1,"worker":"w","duration_ms":1,"started_ms":0}',
    ],
)
def test_a_report_that_cannot_be_read_is_parked_and_nothing_else_happens(value: bytes) -> None:
    turn, _ = new_turn()
    turn.take(Record(NAMES.reports, value))
    assert [topic for topic, _ in written(turn)] == ["state", "deadletters"]


def test_a_run_whose_report_cannot_be_read_fails_with_the_reason_and_the_record_is_parked() -> None:
    turn, lane = new_turn()
    turn.take(command(create("a", queue=QUEUE)))
    turn.take(Record(NAMES.reports, encode(worker(queues=(QUEUE,)))))
    turn.assign()
    said = {"type": "run.succeeded", "job_id": id_of("a"), "lease": 2, "worker": "w", "duration_ms": "long"}
    turn.take(Record(NAMES.reports, encode({**said, "lease": 1})))
    assert lane.jobs[id_of("a")].state is State.PROCESSING
    turn.take(Record(NAMES.reports, encode(said)))
    assert lane.jobs[id_of("a")].state is State.FAILED
    exception = turn.outputs[0].events[-1][3].exception
    assert exception.type == "joblog.Unreadable"
    assert "The report run.succeeded cannot be read: " in exception.message
    assert "Expected `float`, got `str` - at `$.duration_ms`" in exception.message
    assert len(turn.parked) == 2


@pytest.mark.parametrize(
    "report",
    [
        wire.ContinuationAdded(job_id=id_of("a"), child="not an id", on=ContinueOn.SUCCEEDED),
        wire.ContinuationAdded(job_id=id_of("a"), child=new_job_id(LANES, NOW, 1), on=ContinueOn.SUCCEEDED),
        worker(queues=(QUEUE,), partition=ASSIGNMENT_PARTITIONS),
        worker("w" * 201, queues=(QUEUE,)),
    ],
)
def test_a_report_that_would_lead_to_a_record_nobody_can_write_is_parked(report: wire.AnyReport) -> None:
    turn, lane = new_turn()
    turn.take(Record(NAMES.reports, encode(report)))
    assert len(turn.parked) == 1
    assert not list(lane.workers)
    lane.tick(True, Election(NOW + 600_000, 600_000, lambda _job, event, *_: (event,), frozenset()), turn.outputs[0])
    assert max(size for _, size in written(turn)) < RECORD_BYTES_MAX


def test_a_turn_that_tells_many_jobs_of_an_end_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_module, "FANOUT_MAX", 100)
    turn, lane = new_turn()
    turn.take(command(create("a", queue=QUEUE)))
    assert not turn.is_full
    many = tuple((new_job_id(1, NOW, n), ContinueOn.FINISHED) for n in range(101))
    lane.jobs[id_of("a")].continuations = many
    lane.pipeline.follow(id_of("a"), next(one for one in lane.features if isinstance(one, Continuations)))
    turn.take(command(wire.DeleteJob(job_id=id_of("a"))))
    assert turn.is_full


def test_a_turn_whose_transaction_is_half_full_takes_no_more() -> None:
    turn, _ = new_turn()
    size = 0
    while not turn.is_full:
        value = command(create(chr(200 + size // 500_000), queue=QUEUE, args=Raw(b'["' + b"x" * 500_000 + b'"]')))
        turn.take(value)
        size += 500_000
        assert size < BYTES_MAX, "it takes whatever comes"
    assert size > BYTES_MAX // 8


def test_markers_are_skipped_after_the_records_before_them() -> None:
    turn, _ = new_turn()
    turn.take(command(create("a", queue=QUEUE)))
    turn.skip_markers({(NAMES.commands, 0): 41, (NAMES.reports, 0): 7})
    assert turn.offsets == {(NAMES.commands, 0): 42, (NAMES.reports, 0): 7}


# --- whatever is taken can be written ---


def largest_job() -> Job:
    """A job that has all that a job may have."""
    padding = "x" * (VALUE_BYTES_MAX - 500)
    turn, lane = new_turn()
    turn.take(command(create("a", queue=QUEUE, args=Raw(encode([padding])))))
    job = lane.jobs[id_of("a")]
    half = "p" * (PARAMETERS_BYTES_MAX // 2 - 100)
    turn.take(command(wire.SetParameter(job_id=job.id, name="p", value=half)))
    turn.take(command(wire.SetParameter(job_id=job.id, name="q", value=half)))
    return lane.jobs[job.id]


def test_the_largest_job_fits_into_every_record_that_it_leads_to() -> None:
    turn, lane = new_turn()
    job = largest_job()
    job.continuations = tuple((new_job_id(0, NOW, n), ContinueOn.SUCCEEDED) for n in range(LISTED_MAX))
    lane.load(job.id, job, NOW)
    lane.loaded(NOW)
    turn.take(command(wire.SetParameter(job_id=job.id, name="p", value=1)))
    turn.take(Record(NAMES.reports, encode(worker(queues=(QUEUE,)))))
    turn.assign()
    sizes = written(turn)
    assert {topic for topic, _ in sizes} == {"events", "assignments", "state"}
    assert 1_200_000 < max(size for _, size in sizes) < RECORD_BYTES_MAX


def test_the_largest_command_fits_into_every_record_that_it_leads_to() -> None:
    turn, _ = new_turn()
    args = Raw(encode(["x" * (VALUE_BYTES_MAX - 500)]))
    turn.take(command(create("a", queue=QUEUE, args=args)))
    turn.take(command(create("b", lane=1, lanes=LANES, args=args), headers=[("h", b"h" * (CARRIED_BYTES_MAX - 12))]))
    turn.take(command(create("c", queue=QUEUE), extension=VALUE_BYTES_MAX, key=b"k" * 1_000_000))
    sizes = written(turn)
    assert {topic for topic, _ in sizes} == {"events", "state", "commands", "deadletters"}
    assert max(size for _, size in sizes) < RECORD_BYTES_MAX


def test_a_result_is_written_as_it_came_and_fits_into_its_event() -> None:
    turn, lane = new_turn()
    turn.take(command(create("a", queue=QUEUE)))
    turn.take(Record(NAMES.reports, encode(worker(queues=(QUEUE,)))))
    turn.assign()
    turn.take(Record(NAMES.reports, encode(structs.replace(succeeded("a", 2), result=LONGER))))
    assert lane.ended.get(id_of("a")) == (State.SUCCEEDED, 3)
    assert len(LONGER) < max(size for _, size in written(turn)) < RECORD_BYTES_MAX


def test_a_dead_letter_fits_whatever_it_was() -> None:
    turn, _ = new_turn()
    big = b"x" * 2_000_000
    turn.take(Record(NAMES.commands, big, [("h", big)], big))
    turn.take(Record(NAMES.commands, big, [("", None)] * 1_000_000))
    turn.take(Record(NAMES.reports, big, UNREADABLE))
    sizes = dict(written(turn))
    most = deadletters.VALUE_BYTES_MAX + deadletters.KEY_BYTES_MAX + deadletters.HEADERS_BYTES_MAX + 10_000
    assert sizes["deadletters"] < most < RECORD_BYTES_MAX


# --- what nobody foresaw ---


class Odd(Exception):
    """An error of no kind that anybody expects."""


def failing(*_: Any) -> Any:
    raise Odd("no")


@pytest.mark.parametrize(
    ("reading", "record"),
    [
        ("read_command", command(create("a", queue=QUEUE))),
        ("headers_of", command(create("a", queue=QUEUE))),
        ("read_report", Record(NAMES.reports, encode(succeeded("a", 2)))),
    ],
)
def test_a_record_that_nobody_can_read_for_an_unforeseen_reason_is_parked_and_the_turn_goes_on(
    monkeypatch: pytest.MonkeyPatch, reading: str, record: Any, caplog: pytest.LogCaptureFixture
) -> None:
    turn, lane = new_turn()
    with monkeypatch.context() as patched:
        patched.setattr(f"joblog.streams.elector.turn.{reading}", failing)
        turn.take(record)
    turn.take(command(create("b", queue=QUEUE)))
    assert id_of("b") in lane.jobs
    assert [error.code for _, _, error in turn.parked] == ["internal_error"]
    assert turn.outputs[0].counts["joblog_quarantined_records_total", "internal_error"] == 1
    assert "deadletters" in dict(written(turn))
    (told,) = [one for one in caplog.records if one.message == "elector.unreadable"]
    assert told.exc_info


@pytest.mark.parametrize("error", [Odd("no"), RecursionError(), MemoryError(), AssertionError("x" * 10_000)])
def test_an_exception_out_of_a_lane_names_the_record_and_the_lanes_that_are_not_to_be_trusted(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    turn, lane = new_turn()

    def raising(*_: Any) -> None:
        raise error

    monkeypatch.setattr(lane, "command", raising)
    with pytest.raises(RecordFailed) as caught:
        turn.take(command(create("a", queue=QUEUE)))
    assert caught.value.place == (NAMES.commands, 0, 41)
    assert caught.value.lanes == {0}
    assert caught.value.__cause__ is error
    assert type(error).__name__ in caught.value.error.reason
    assert len(caught.value.error.reason) <= 500


def test_a_command_that_failed_before_is_parked_and_rejected_without_being_decided() -> None:
    known = FailedRecords()
    known.add((NAMES.commands, 0, 41), InternalError("Odd: no", "Traceback"))
    turn, lane = new_turn(known)
    turn.take(command(create("a", queue=QUEUE)))
    assert not lane.jobs
    (event,) = turn.outputs[0].events
    assert (event[1], event[3].code, event[3].reason) == ("command.rejected", "internal_error", "Odd: no")
    assert (event[3].job_id, event[3].command_id) == (id_of("a"), "c-1")
    assert turn.outputs[0].counts["joblog_quarantined_records_total", "internal_error"] == 1
    assert headers_written(turn)["joblog-reason-code"] == b"internal_error"
    assert headers_written(turn)["joblog-reason"] == b"Traceback"


def test_a_report_that_failed_before_fails_its_run_and_if_that_fails_too_is_only_parked() -> None:
    known = FailedRecords()
    turn, lane = new_turn(known)
    turn.take(Record(NAMES.reports, encode(worker(queues=(QUEUE,)))))
    turn.take(command(create("a", queue=QUEUE)))
    turn.assign()
    known.add((NAMES.reports, 0, 41), InternalError("Odd: no", "Traceback"))
    known.add((NAMES.reports, 0, 41), InternalError("Odd: again", "Traceback"))
    turn.take(Record(NAMES.reports, encode(succeeded("a", 2))))
    assert lane.jobs[id_of("a")].state is State.PROCESSING
    known.forget({(NAMES.reports, 0): 42})
    known.add((NAMES.reports, 0, 41), InternalError("Odd: no", "Traceback"))
    turn.take(Record(NAMES.reports, encode(succeeded("a", 2))))
    assert lane.jobs[id_of("a")].state is State.FAILED
    assert [error.reason for _, _, error in turn.parked] == ["Odd: no"] * 2


def test_what_is_said_of_an_unforeseen_error_can_be_written() -> None:
    error = internal_error(Odd("\ud800 and \x00" + "x" * 10_000))
    assert ".Odd: ? and \N{REPLACEMENT CHARACTER}x" in error.reason
    assert len(error.reason) == 500
    assert len(error.details) == 2_000
    assert encode([error.reason, error.details])


def test_a_culprit_is_known_until_the_lane_has_read_beyond_it() -> None:
    known = FailedRecords()
    known.add(("t", 3, 41), InternalError("no"))
    known.forget({("t", 3): 41, ("t", 4): 50, ("u", 3): 50})
    assert known.find(("t", 3, 41)) is not None
    known.forget({("t", 3): 42})
    assert known.find(("t", 3, 41)) is None
