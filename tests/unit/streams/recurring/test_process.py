"""The recurring process without its broker: what it plans of the rows that it holds."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import inf

import pytest
from confluent_kafka import KafkaError, KafkaException
from joblog.streams.contract.codec import VALUE_BYTES_MAX
from joblog.streams.contract.recurring import Definition, Overlap, Progress
from joblog.streams.contract.topics import TopicNames
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.recurring import process as module
from joblog.streams.recurring.awake import ASLEEP_S, Awake, Slept
from joblog.streams.recurring.deciding import NOTED_EACH, UNREAD
from joblog.streams.recurring.ends import Watched
from joblog.streams.recurring.held import MARK, SILENT_S, Held, Silent
from joblog.streams.recurring.jobs import Installation
from joblog.streams.recurring.membership import Read
from joblog.streams.recurring.parking import PARKED
from joblog.streams.recurring.process import UNDECIDED, Recurring
from joblog.streams.recurring.rows import encode_aspect
from joblog.streams.recurring.sender import Record

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(minutes=1)
NOWHERE = KafkaConfig("127.0.0.1:1")


class Broken:
    """A schedule in which somebody made a mistake."""

    def next_after(self, instant: datetime) -> datetime | None:
        raise RuntimeError(f"nobody foresaw {instant}")


class Sent:
    """A sender that keeps what it is given; `meanwhile` happens while it waits for Kafka, and may raise."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.records: list[Record] = []
        self._meanwhile = meanwhile

    def send(self, records: Sequence[Record]) -> datetime | None:
        self.records += records
        self._meanwhile()
        return START


@pytest.fixture
def meters() -> Meters:
    return Meters()


@pytest.fixture
def process(meters: Meters) -> Recurring:
    """A process that holds partition 0, with the definition `a`."""
    where = Installation(2, {}, {})
    made = Recurring(NOWHERE, TopicNames("t."), where, meters=meters, health=Health("recurring"))
    made._held[0] = Held()
    take(made, b"a", definition("a"))
    return made


def take(process: Recurring, key: bytes, value: bytes) -> None:
    """Let the process read a record of partition 0."""
    process._take(Read(0, 0, key, value, []))


async def perform(process: Recurring) -> None:
    """Do what is due, as a tick does."""
    await process._perform(list(process._plans(NOW)))
    await process._note()


def definition(recurring_id: str, overlap: Overlap = Overlap.ALLOW, schedule: str = "* * * * *") -> bytes:
    made = Definition(id=recurring_id, schedule=schedule, task="t", starts_at=START, overlap=overlap)
    return encode_aspect(made)


def planned(process: Recurring) -> list[str]:
    """The definitions for which something is to be done."""
    return [made.row.id for *_, made in process._plans(NOW)]


def test_nothing_is_decided_before_the_own_mark_was_read(process: Recurring) -> None:
    take(process, MARK.encode(), b"the mark of another process")
    assert planned(process) == []
    take(process, MARK.encode(), process._held[0].mark)
    assert planned(process) == ["a"]


def test_nothing_is_decided_before_it_is_known_whether_the_job_before_has_ended(process: Recurring) -> None:
    process._held[0].is_ready = True
    take(process, b"a", definition("a", Overlap.SKIP))
    progress = Progress(through=START, last_job_id="01a31bcf-c400-8001-8000-00000000002a", last_created_at=START)
    take(process, b"a|progress", encode_aspect(progress))
    assert planned(process) == [], "its lane has not been read"
    of_no_lane = progress.model_copy(update={"last_job_id": "01a31bcf-c400-8fff-8000-00000000002a"})
    take(process, b"a|progress", encode_aspect(of_no_lane))
    assert planned(process) == ["a"], "nobody runs a job of a lane that does not exist"


class Ended:
    """Endings of jobs that have all ended; it keeps which ones are watched."""

    def __init__(self) -> None:
        self.watched: dict[str, Watched] = {}

    def watch(self, jobs: Mapping[str, Watched]) -> None:
        self.watched = dict(jobs)

    def is_running(self, job_id: str) -> bool | None:
        return False if job_id in self.watched else None


def test_an_end_is_noted_now_and_then_so_that_what_happened_before_is_not_read_again(process: Recurring) -> None:
    """A definition may come once a month, and the next process would read the events of a month."""
    sent = process._sender = Sent()  # type: ignore[assignment]
    ended = process._endings = Ended()  # type: ignore[assignment]
    job_id = "01a31bcf-c400-8001-8000-00000000002a"
    progress = Progress(through=NOW, last_job_id=job_id, last_created_at=NOW)
    process._held[0].is_ready = process._held[0].is_marked = True
    process._park_at = inf
    take(process, b"a", definition("a", Overlap.SKIP, "@yearly"))
    take(process, b"a|progress", encode_aspect(progress))

    def tick(now: datetime) -> None:
        process._clock = lambda: now
        asyncio.run(process._tick())

    tick(NOW + NOTED_EACH)
    assert (sent.records, ended.watched) == ([], {job_id: Watched(NOW)})
    later = NOW + NOTED_EACH + 2 * UNREAD
    tick(later)
    tick(later)
    noted = encode_aspect(progress.model_copy(update={"last_ended_at": later - UNREAD}))
    assert sent.records == [Record("t.recurring", 0, "a|progress", noted)]
    take(process, b"a|progress", noted)
    tick(later + NOTED_EACH)
    assert (len(sent.records), ended.watched) == (1, {job_id: Watched(later - UNREAD, has_ended=True)})
    tick(later + 2 * NOTED_EACH)
    assert len(sent.records) == 2


def test_commands_come_first_and_then_what_is_noted(process: Recurring) -> None:
    sent = process._sender = Sent()  # type: ignore[assignment]
    process._held[0].is_ready = True
    asyncio.run(perform(process))
    assert [record.topic for record in sent.records] == ["t.commands", "t.recurring"]
    assert planned(process) == []


def test_a_process_that_was_paused_since_it_decided_sends_nothing_of_that(process: Recurring) -> None:
    sent = process._sender = Sent()  # type: ignore[assignment]
    process._held[0].is_ready = True
    monotonic = iter([0.0, 0.1, ASLEEP_S + 1])
    process._awake = Awake(monotonic.__next__)
    process._awake.look()
    with pytest.raises(Slept):
        asyncio.run(perform(process))
    assert sent.records == []


@pytest.mark.parametrize("why", [Slept("paused for 9 s"), Silent("nothing was read")])
def test_a_process_that_was_paused_or_reads_nothing_starts_over_which_is_no_error(
    why: Exception, process: Recurring, meters: Meters, caplog: pytest.LogCaptureFixture
) -> None:
    stop, turns = threading.Event(), iter([why, None])

    async def joined(_stop: threading.Event) -> None:
        if (error := next(turns)) is not None:
            raise error
        stop.set()

    process._joined = joined  # type: ignore[method-assign]
    asyncio.run(process._run(stop))
    assert meters.registry.get_sample_value("joblog_internal_errors_total", {"role": "recurring"}) in (None, 0)
    assert [one.message for one in caplog.records] == ["recurring.began_again"]


def test_a_partition_of_which_nothing_is_read_is_not_waited_for(process: Recurring) -> None:
    process._sender = Sent()  # type: ignore[assignment]
    held = process._held[0]
    held.read_at -= SILENT_S + 1
    with pytest.raises(Silent, match="partition 0"):
        asyncio.run(process._tick())
    take(process, b"b", definition("b"))
    asyncio.run(process._tick())
    held.is_ready = True
    held.read_at -= SILENT_S + 1
    asyncio.run(process._tick())  # nothing new since it was read is usual


def test_a_mark_is_written_when_all_partitions_are_given_out(process: Recurring) -> None:
    sent = process._sender = Sent()  # type: ignore[assignment]
    asyncio.run(process._tick(can_mark=False))
    assert sent.records == []
    asyncio.run(process._tick())
    assert [record.key for record in sent.records] == [MARK]


def test_much_that_is_due_is_decided_in_several_ticks(process: Recurring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DECIDING_S", 0)
    process._sender = Sent()  # type: ignore[assignment]
    process._held[0].is_ready = True
    take(process, b"b", definition("b"))
    for recurring_id in ("a", "b"):
        assert planned(process) == [recurring_id]
        asyncio.run(perform(process))
    assert planned(process) == []


def test_a_process_that_lost_a_partition_meanwhile_notes_nothing_there(process: Recurring) -> None:
    sent = process._sender = Sent(lambda: process._assigned([0]))  # type: ignore[assignment]
    process._held[0].is_ready = True
    asyncio.run(perform(process))
    assert [record.topic for record in sent.records] == ["t.commands"]


def test_what_could_not_be_noted_is_noted_at_the_next_tick(process: Recurring) -> None:
    """Else the next owner would decide on it again, when the lane may have forgotten the job."""
    errors = iter([None, KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))])

    def fail_once() -> None:
        if (error := next(errors, None)) is not None:
            raise error

    sent = process._sender = Sent(fail_once)  # type: ignore[assignment]
    process._clock = lambda: NOW
    process._held[0].is_ready = process._held[0].is_marked = True
    asyncio.run(process._tick())
    asyncio.run(process._tick())
    asyncio.run(process._tick())
    assert [record.key for record in sent.records[1:]] == ["a|progress", "a|progress"]
    assert sent.records[1] == sent.records[2]


def test_nothing_is_noted_of_a_definition_that_was_removed_meanwhile(process: Recurring) -> None:
    sent = process._sender = Sent(lambda: process._take(Read(0, 0, b"a", None, [])))  # type: ignore[assignment]
    process._held[0].is_ready = True
    asyncio.run(perform(process))
    assert [record.topic for record in sent.records] == ["t.commands"]


def test_a_process_that_lost_its_partitions_meanwhile_parks_nothing_more(process: Recurring) -> None:
    sent = process._sender = Sent(lambda: process._assigned([]))  # type: ignore[assignment]
    process._held[1] = Held()
    for number, held in process._held.items():
        held.is_ready = True
        process._take(Read(number, 7, b"a|pause", b"?", []))
    asyncio.run(process._park())
    assert [(record.topic, record.key) for record in sent.records] == [
        ("t.deadletters", b"a|pause"),
        ("t.recurring", PARKED),
    ], "those of the first partition, and how far that is"


def test_a_row_that_cannot_be_decided_costs_the_others_nothing(
    process: Recurring, meters: Meters, caplog: pytest.LogCaptureFixture
) -> None:
    process._held[0].is_ready = True
    take(process, b"good", definition("good"))
    row = process._held[0].rows.rows["a"]
    row.schedule = Broken()
    assert planned(process) == ["good"]
    assert (row.error or "").startswith("RuntimeError: nobody foresaw")
    assert row.next_due == NOW + UNDECIDED
    assert meters.registry.get_sample_value("joblog_internal_errors_total", {"role": "recurring"}) == 1
    assert [one.message for one in caplog.records] == ["recurring.undecided"]


def test_a_definition_whose_jobs_are_too_large_costs_the_others_nothing(
    process: Recurring, meters: Meters, caplog: pytest.LogCaptureFixture
) -> None:
    """A client refuses it, but anybody may write to the topic; no elector would read its commands."""
    process._held[0].is_ready = True
    large = Definition(id="a", schedule="* * * * *", task="t", starts_at=START, args=("x" * VALUE_BYTES_MAX,))
    take(process, b"a", encode_aspect(large))
    take(process, b"good", definition("good"))
    assert planned(process) == ["good"]
    row = process._held[0].rows.rows["a"]
    assert "bytes, more than the 1048576 of any command" in (row.error or "")
    assert row.next_due == NOW + UNDECIDED
    assert not meters.registry.get_sample_value("joblog_internal_errors_total", {"role": "recurring"})
    assert [one.message for one in caplog.records] == ["recurring.undecided"]
