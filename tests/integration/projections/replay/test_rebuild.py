"""Tables that are built anew from the log, and put in the place of those that are in use."""

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer
from confluent_kafka.cimpl import TopicPartition
from joblog.projections.monitor.monitor import Monitor
from joblog.projections.projector.event_batch import Entries
from joblog.projections.projector.tables import Tables
from joblog.projections.replay.rebuild import rebuild as steps
from joblog.projections.replay.rebuild.catch_up import CatchUp
from joblog.projections.replay.rebuild.place import Place
from joblog.projections.replay.rebuild.rebuild import Differs, Rebuilt, rebuild
from joblog.projections.replay.rebuild.schemas import Refused
from joblog.projections.schema import migrate
from joblog.services.embedded.stack import StackAddresses
from joblog.streams.contract.states import State
from joblog.streams.errors import LogLost, OffsetConflict
from joblog.streams.kafka import clients
from joblog.streams.progress import Stopped, Told
from psycopg import sql

from tests.support import projection_settings
from tests.support.log_comparison import differences, read_log
from tests.support.projection_events import Story, rejected_event, worker_event
from tests.support.projection_settings import Setting, WaitUntil, interleaved, jobs, running, write

# The fixtures that this module uses.
dsn = projection_settings.dsn
setting = projection_settings.setting
writer = projection_settings.writer
pytestmark = [pytest.mark.broker, pytest.mark.database]

CATALOG = """
SELECT c.relname::text, 'column', a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull::text,
    coalesce(pg_get_expr(d.adbin, d.adrelid), ''), coalesce(c.reloptions::text, ''), c.relpersistence::text
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = %(schema)s::text::regnamespace AND c.relkind = 'r'
UNION ALL
SELECT tablename, 'index', indexname, replace(indexdef, %(schema)s::text || '.', ''), '', '', '', ''
FROM pg_indexes WHERE schemaname = %(schema)s::text
UNION ALL
SELECT conrelid::regclass::text, 'constraint', conname, pg_get_constraintdef(oid), '', '', '', ''
FROM pg_constraint WHERE connamespace = %(schema)s::text::regnamespace
UNION ALL
SELECT t.typname, 'label', e.enumlabel, e.enumsortorder::text, '', '', '', ''
FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid WHERE t.typnamespace = %(schema)s::text::regnamespace
ORDER BY 1, 2, 3
"""
PROCESS = """
import sys
from joblog.projections.replay.rebuild.place import Place
from joblog.projections.replay.rebuild.rebuild import rebuild
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.clients import KafkaConfig

if __name__ == "__main__":
    bootstrap, prefix, lanes, dsn, schema, rate = sys.argv[1:]
    place = Place(KafkaConfig(bootstrap), TopicNames(prefix), int(lanes), dsn, schema)
    rebuild(place, rate=float(rate))
"""


@pytest.fixture
def lanes() -> int:
    return 3


@pytest.fixture
def place(setting: Setting) -> Iterator[Place]:
    made = Place(setting.kafka, setting.names, setting.lanes, setting.dsn, setting.schema)
    yield made
    with psycopg.connect(setting.dsn, options="-c lock_timeout=10s", autocommit=True) as connection:
        for name in (made.schemas.new, made.schemas.old):
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


def ask(setting: Setting, query: Any, *parameters: Any, schema: str = "") -> list[Any]:
    options = f"-c search_path={schema or setting.schema}"
    with psycopg.connect(setting.dsn, options=options, autocommit=True) as connection:
        return connection.execute(query, *parameters).fetchall()


def identity(setting: Setting, schema: str = "") -> int:
    """What tells one set of tables from another, whatever its name."""
    [(oid,)] = ask(setting, "SELECT 'offsets'::regclass::oid::int8", schema=schema)
    return int(oid)


def schemas(setting: Setting) -> set[str]:
    found = ask(setting, "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s)", [setting.schema])
    return {name for (name,) in found}


def contents(setting: Setting, schema: str = "") -> dict[str, list[Any]]:
    """All rows of all tables but what says when they were applied."""
    queries = {
        "jobs": "SELECT to_jsonb(jobs) FROM jobs ORDER BY id",
        "history": """SELECT job, version + place - 1, event FROM history
            CROSS JOIN unnest(events) WITH ORDINALITY AS one (event, place) ORDER BY job, 2""",
        "counts": "SELECT lane, queue, state, n FROM counts WHERE n <> 0 ORDER BY 1, 2, 3",
        "outcomes": "SELECT * FROM outcomes ORDER BY 1, 2, 3, 4",
        "workers": "SELECT to_jsonb(workers) FROM workers ORDER BY id",
        "rejected": "SELECT * FROM rejected ORDER BY 1, 2",
        "parked": "SELECT * FROM parked ORDER BY 1, 2",
        "offsets": "SELECT lane, next_offset FROM offsets ORDER BY 1",
    }
    return {name: ask(setting, query, schema=schema) for name, query in queries.items()}


def everything(setting: Setting, count: int) -> list[tuple[int, bytes]]:
    """Jobs of all kinds, workers, rejected commands, and what cannot be read."""
    rare = [(n % setting.lanes, value) for n, value in enumerate((worker_event("worker.started"), rejected_event()))]
    again = Story(lane=0, random=9_999_991).enqueued().deleted().created_again().enqueued().processing().succeeded()
    broken = [(n % setting.lanes, b"no event %d" % n) for n in range(5)]
    return [*rare, *interleaved([*jobs(count, setting.lanes), again]), *broken]


def project(setting: Setting, wait_until: WaitUntil, records: int) -> None:
    """Let a projector fill the live tables."""
    with running(setting.projector()):
        wait_until(lambda: setting.applied() == records, 60, "the live tables")


class Readers:
    """Threads that ask everything that monitoring can ask, and note errors and what must not be."""

    def __init__(self, setting: Setting, job: str, least: int, *, forward: bool) -> None:
        self.setting, self.job, self.least, self.forward = setting, job, least, forward
        self.stop, self.asked, self.wrong = threading.Event(), 0, list[str]()

    def read(self) -> None:
        seen = 0
        with Monitor(self.setting.dsn, self.setting.schema) as monitor:
            while not self.stop.is_set():
                try:
                    statistics = monitor.statistics()
                    total = sum(statistics.counts.values())
                    details = monitor.job(self.job)
                    listed = monitor.jobs(state=State.SUCCEEDED, limit=5).items
                    series = sum(one.succeeded for one in monitor.by_day(30))
                    if total < max(self.least, seen if self.forward else 0):
                        self.wrong.append(f"{total} jobs after {seen}, and at least {self.least}")
                    seen = total
                    if details is None or len(details.history) != 3:
                        self.wrong.append(f"the job has the history {details and details.history}")
                    if len(listed) < 5 or not monitor.queues() or not monitor.offsets() or series < 0:
                        self.wrong.append("an empty list")
                except Exception as error:  # noqa: BLE001 - the test looks at them
                    self.wrong.append(f"{type(error).__name__}: {error} ({error.__cause__})")
                self.asked += 1

    @contextmanager
    def reading(self) -> Iterator[None]:
        with ThreadPoolExecutor(2) as pool:
            reads = [pool.submit(self.read) for _ in range(2)]
            try:
                yield
            finally:
                self.stop.set()
        for one in reads:
            one.result()


def test_new_tables_are_equal_to_the_live_ones_and_to_the_log(
    setting: Setting, place: Place, writer: Producer, wait_until: WaitUntil
) -> None:
    values = everything(setting, 400)
    write(writer, setting.names, values)
    project(setting, wait_until, len(values))
    live, catalog, before = contents(setting), ask(setting, CATALOG, {"schema": setting.schema}), identity(setting)
    phases: list[str] = []
    done = rebuild(place, lambda step, _done, _total: phases.append(step))
    assert (done.records, done.applied, done.verified) == (len(values), len(values), True)
    assert (done.live, done.kept) == (setting.schema, f"{setting.schema}_old")
    assert list(dict.fromkeys(phases)) == ["filling", "verifying: reading the log", "swapping"]
    assert identity(setting) != before == identity(setting, place.schemas.old)
    assert contents(setting) == live == contents(setting, place.schemas.old)
    assert ask(setting, CATALOG, {"schema": setting.schema}) == catalog
    assert setting.differences() == []
    assert schemas(setting) == {setting.schema, place.schemas.old}
    migrate.check(setting.dsn, setting.schema)
    assert migrate.upgrade(setting.dsn, setting.schema) == migrate.head()


def test_the_projector_and_readers_go_on_through_the_swap_and_back(
    setting: Setting, place: Place, writer: Producer, wait_until: WaitUntil
) -> None:
    first = jobs(300, setting.lanes)
    write(writer, setting.names, interleaved(first))
    written, ended = len(first) * 3, threading.Event()

    def produce() -> None:
        nonlocal written
        n = 0
        while not ended.wait(0.02):
            n += 1
            values = interleaved(jobs(20, setting.lanes, first=1_000 + 20 * n), seed=n)
            write(writer, setting.names, values)
            written += len(values)

    with running(setting.projector()), ThreadPoolExecutor(1) as pool:
        wait_until(lambda: setting.applied() >= written, 30, "the first jobs")
        producing = pool.submit(produce)
        try:
            readers, before = Readers(setting, first[0].id, len(first), forward=True), identity(setting)
            with readers.reading():
                rebuild(place)
                at, asked = setting.applied(), readers.asked
                wait_until(lambda: setting.applied() > at + 200, 30, "the projector to go on in the new tables")
                wait_until(lambda: readers.asked > asked + 20, 30, "questions after the swap")
            after = identity(setting)
            assert before != after
            assert readers.wrong == []
            # Time goes backwards now: the old tables are as the swap left them, until the projector caught up.
            readers = Readers(setting, first[0].id, len(first), forward=False)
            with readers.reading():
                steps.roll_back(place)
                assert (identity(setting), identity(setting, place.schemas.old)) == (before, after)
                at, asked = setting.applied(), readers.asked
                wait_until(lambda: setting.applied() > at + 200, 30, "the projector to go on in the old tables")
                wait_until(lambda: readers.asked > asked + 20, 30, "questions after the way back")
            assert readers.wrong == []
        finally:
            ended.set()
        producing.result()
        wait_until(lambda: setting.applied() == written, 60, "all events")
        wait_until(lambda: setting.health.ready, 10, "the projector")
    assert setting.differences() == []
    assert steps.drop_old(place) == place.schemas.old
    assert schemas(setting) == {setting.schema}
    assert steps.drop_old(place) is None


def test_readers_see_the_one_tables_or_the_others_however_often_they_change(
    setting: Setting, place: Place, writer: Producer, wait_until: WaitUntil
) -> None:
    made = jobs(60, setting.lanes)
    write(writer, setting.names, interleaved(made))
    project(setting, wait_until, len(made) * 3)
    rebuild(place)
    readers = Readers(setting, made[0].id, len(made), forward=True)
    with readers.reading():
        for _ in range(30):
            asked = readers.asked
            steps.roll_back(place)
            wait_until(lambda least=asked: readers.asked > least + 2, 30, "questions")  # type: ignore[misc]
    assert readers.wrong == []


def test_killed_five_times_it_ends_as_a_fresh_fold(
    setting: Setting, place: Place, writer: Producer, wait_until: WaitUntil
) -> None:
    chance = random.Random(11)
    values = everything(setting, 4_000)
    write(writer, setting.names, values)
    arguments = [setting.kafka.bootstrap_servers, setting.names.prefix, str(setting.lanes), setting.dsn]
    with running(setting.projector()):
        before, reached = identity(setting), 0
        for _ in range(5):
            process = subprocess.Popen([sys.executable, "-c", PROCESS, *arguments, setting.schema, "1500"])
            try:
                wait_until(lambda least=reached: applied_new(setting, place) > least, 60, "progress")  # type: ignore[misc]
                threading.Event().wait(chance.random())
            finally:
                process.send_signal(signal.SIGKILL)
                assert process.wait(30) == -signal.SIGKILL
            reached = applied_new(setting, place)
            assert reached < len(values)
            assert identity(setting) == before
        wait_until(lambda: setting.applied() == len(values), 60, "the live tables")
        done = wait_until(lambda: rebuilt(place), 60, "the lock of the killed process to be free")
        assert done.applied < len(values) - 500
        assert identity(setting) != before
        wait_until(lambda: setting.applied() == len(values), 60, "the new tables")
    assert setting.differences() == []
    assert contents(setting) == contents(setting, place.schemas.old)


def rebuilt(place: Place) -> Rebuilt | None:
    """What a rebuild did; None while the lock of one that was killed is still held."""
    try:
        return rebuild(place)
    except Refused as refused:
        if "another process is rebuilding" not in str(refused):
            raise
        return None


def applied_new(setting: Setting, place: Place) -> int:
    if place.schemas.new not in schemas(setting):
        return 0
    [(applied,)] = ask(setting, "SELECT coalesce(sum(next_offset), 0)::int FROM offsets", schema=place.schemas.new)
    return int(applied)


def stopped_by(stop: threading.Event) -> Told:
    """As Ctrl-C does it, when the event is set."""

    def told(step: str, done: int, _total: int) -> None:
        if stop.is_set():
            raise Stopped(f"stopped while {step}: {done} records are done")

    return told


def stopped_at(begin: str) -> Told:
    """As Ctrl-C does it, in the step whose name begins so."""

    def told(step: str, _done: int, _total: int) -> None:
        if step.startswith(begin):
            raise Stopped(step)

    return told


def test_stopped_in_between_it_goes_on_later_and_another_is_refused_meanwhile(
    setting: Setting, place: Place, writer: Producer, wait_until: WaitUntil
) -> None:
    values = interleaved(jobs(4_000, setting.lanes))
    write(writer, setting.names, values)
    project(setting, wait_until, len(values))
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(rebuild, place, stopped_by(stop), rate=600.0)
        try:
            wait_until(lambda: applied_new(setting, place) > 0, 60, "progress")
            for other in (rebuild, steps.roll_back):
                with pytest.raises(Refused, match="another process is rebuilding"):
                    other(place)
        finally:
            stop.set()
        with pytest.raises(Stopped, match="filling"):
            going.result()
    done = applied_new(setting, place)
    assert 0 < done < len(values)
    assert steps.plan(place).done == done
    assert rebuild(place).applied == len(values) - done
    assert setting.differences() == []


def test_a_rate_is_kept(setting: Setting, place: Place, writer: Producer) -> None:
    values = interleaved(jobs(4_000, setting.lanes))
    write(writer, setting.names, values)
    began = time.monotonic()
    done = rebuild(place, rate=4_000.0)
    # It is near the end when each lane lacks a thousand records.
    assert time.monotonic() - began > (len(values) - 3 * steps.NEAR_RECORDS) / 4_000 * 0.8
    assert done.records == len(values)


def test_tables_that_differ_from_the_log_are_not_put_in_place(
    setting: Setting, place: Place, writer: Producer, wait_until: WaitUntil
) -> None:
    values = interleaved(jobs(50, setting.lanes))
    write(writer, setting.names, values)
    with pytest.raises(Stopped):
        rebuild(place, stopped_at("verifying"))
    before = identity(setting)
    with CatchUp(place, place.schemas.new) as rest:  # of so few events it may not have waited for the last ones
        rest.to_end(lambda: None)
    with psycopg.connect(setting.dsn) as connection:
        connection.execute(sql.SQL("UPDATE {}.jobs SET task = 'other'").format(sql.Identifier(place.schemas.new)))
    with pytest.raises(Differs, match=r"task differ.*'task': 'other'.*'task': 'demo.add'.*; and 47 more"):
        rebuild(place)
    assert identity(setting) == before
    assert rebuild(place, anew=True).applied == len(values)
    assert setting.differences() == []


def test_a_batch_is_before_the_swap_or_after_it(setting: Setting, place: Place, writer: Producer) -> None:
    write(writer, setting.names, interleaved(jobs(50, setting.lanes)))
    records = [*read_log(setting.kafka, setting.names, setting.lanes)]
    tables = Tables(setting.dsn, setting.schema, range(setting.lanes))
    begun, finish = threading.Event(), threading.Event()

    def meanwhile() -> None:
        begun.set()
        assert finish.wait(30)

    with ThreadPoolExecutor(2) as pool:
        batch = pool.submit(tables.apply, Entries(records), meanwhile)
        assert begun.wait(30)
        swap = pool.submit(rebuild, place, verify=False)
        # The swap waits for the transaction that has begun, which ends in the tables in which it began.
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'offsets'::regclass"
        deadline = time.monotonic() + 30
        while not ask(setting, waiting)[0][0]:
            assert time.monotonic() < deadline
        assert not swap.done()
        finish.set()
        assert batch.result() == []
        swap.result()
    assert contents(setting) == contents(setting, place.schemas.old)
    more = Story(lane=0, random=8_888).enqueued().values
    write(writer, setting.names, [(0, value) for value in more])
    # The connection knows the old tables, although it is exactly where the new ones are.
    known = {(record.lane, record.offset) for record in records}
    log = read_log(setting.kafka, setting.names, setting.lanes)  # its lanes come in any order
    [later] = [record for record in log if (record.lane, record.offset) not in known]
    with pytest.raises(OffsetConflict, match="a rebuild replaced the tables"):
        tables.apply(Entries([later]), lambda: None)
    tables.close()
    again = Tables(setting.dsn, setting.schema, range(setting.lanes))
    again.apply(Entries([later]), lambda: None)
    again.close()
    assert setting.differences() == []


def test_a_reader_sees_one_set_of_tables_and_holds_the_swap_up(
    setting: Setting, place: Place, writer: Producer, wait_until: WaitUntil
) -> None:
    values = interleaved(jobs(50, setting.lanes))
    write(writer, setting.names, values)
    project(setting, wait_until, len(values))
    with psycopg.connect(setting.dsn, options=f"-c search_path={setting.schema}") as reader:
        reader.execute("SELECT count(*) FROM jobs")
        with pytest.raises(Refused, match=r"were in use for 1 s, now by .*process \d+"):
            rebuild(place, try_s=1)
        assert reader.execute("SELECT 'jobs'::regclass::oid = tableoid FROM history LIMIT 1").fetchone() == (False,)
        with ThreadPoolExecutor(1) as pool:
            swap = pool.submit(rebuild, place)
            reader.execute("SELECT count(*) FROM history")
            reader.commit()
            swap.result()


def test_rights_of_others_go_over(setting: Setting, place: Place, stack: StackAddresses, writer: Producer) -> None:
    write(writer, setting.names, interleaved(jobs(5, setting.lanes)))
    name = f"{setting.schema}_guest"
    guest, schema = sql.Identifier(name), sql.Identifier(setting.schema)
    with psycopg.connect(stack.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {}").format(guest))
        try:
            connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, guest))
            connection.execute(sql.SQL("GRANT SELECT ON {}.jobs TO {} WITH GRANT OPTION").format(schema, guest))
            connection.execute(sql.SQL("GRANT SELECT (lane) ON {}.counts TO PUBLIC").format(schema))
            rebuild(place)
            connection.execute(sql.SQL("SET ROLE {}").format(guest))
            counted = connection.execute(sql.SQL("SELECT count(*) FROM {}.jobs").format(schema)).fetchone()
            assert counted == (5,)
            connection.execute(sql.SQL("SELECT lane FROM {}.counts").format(schema))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(sql.SQL("SELECT * FROM {}.counts").format(schema))
        finally:
            connection.execute("RESET ROLE")
            connection.execute(sql.SQL("DROP OWNED BY {}").format(guest))
            connection.execute(sql.SQL("DROP ROLE {}").format(guest))


def test_what_would_be_left_behind_is_refused(setting: Setting, place: Place, writer: Producer) -> None:
    write(writer, setting.names, interleaved(jobs(5, setting.lanes)))
    schema = sql.Identifier(setting.schema)
    with psycopg.connect(setting.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE VIEW {}.mine AS SELECT id FROM {}.jobs").format(schema, schema))
        with pytest.raises(Refused, match=r"these views read tables .*mine"):
            rebuild(place)
        connection.execute(sql.SQL("DROP VIEW {}.mine").format(schema))
        connection.execute(sql.SQL("CREATE TABLE {}.mine ()").format(schema))
        with pytest.raises(Refused, match="no migration of this version makes: mine"):
            rebuild(place)
        connection.execute(sql.SQL("DROP TABLE {}.mine").format(schema))
    rebuild(place)
    with pytest.raises(Refused, match=r"still kept from an earlier rebuild.*--drop-old"):
        rebuild(place)


def test_a_log_without_its_beginning_is_rebuilt_only_when_asked_to(
    setting: Setting, place: Place, writer: Producer, wait_until: WaitUntil
) -> None:
    values = interleaved(jobs(30, setting.lanes))
    write(writer, setting.names, values)
    project(setting, wait_until, len(values))
    admin = clients.admin(setting.kafka)
    [deleted] = admin.delete_records([TopicPartition(setting.names.events, 0, 3)]).values()
    deleted.result()
    with pytest.raises(LogLost, match=r"lost its beginning .*\{0: 3\}.*--partial"):
        rebuild(place)
    rebuild(place, partial=True)
    assert differences(setting.dsn, setting.schema, read_log(setting.kafka, setting.names, setting.lanes)) == []


def test_the_status_says_which_schema_is_what(
    setting: Setting, place: Place, writer: Producer, wait_until: WaitUntil
) -> None:
    values = interleaved(jobs(30, setting.lanes))
    write(writer, setting.names, values)
    assert [(one.role, one.records, one.behind) for one in steps.status(place)] == [("live", 0, len(values))]
    with pytest.raises(Refused, match=r"no .*_old.* to go back to"):
        steps.roll_back(place)
    rebuild(place)
    live, old = steps.status(place)
    assert (live.schema, live.role, live.records, live.behind) == (setting.schema, "live", len(values), 0)
    assert (old.schema, old.role, old.records, old.behind) == (place.schemas.old, "old", 0, len(values))
    assert (live.remark or "").startswith("joblog: live since")
    assert "--rollback" in (old.remark or "")
    steps.roll_back(place)
    live, old = steps.status(place)
    assert (live.records, old.records) == (0, len(values))
