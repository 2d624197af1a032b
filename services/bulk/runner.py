"""Works through bulk operations: finds their jobs page by page, sends a command for each, and notes how far it is.

Theory of operation. The operations that run are rows of the table `bulk`; so are their filters and fences. A job is
changed once, whatever happens: it is found only as long as it had no event since the operation was asked for (its
fence), its command names its version, and an elector refuses a second one. After each page the runner tells the
operation's lane how far it is (`bulk.advance`). One that is killed between the two has sent commands that are not
counted: whoever goes on reads the topic `commands` back, and counts them instead of sending them again.

It runs beside a projector, which has what it needs; two at once would only have commands refused.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from threading import Event
from typing import Final

from confluent_kafka import KafkaException
from joblog.projections.monitor.bulk import Found
from joblog.projections.monitor.models import BulkOperation
from joblog.projections.monitor.monitor import Monitor
from joblog.projections.questions import InvalidQuestion
from joblog.services.bulk.sending import Sent, command_record, sent_of
from joblog.services.client.client import Client
from joblog.services.settings.model import Settings
from joblog.streams.contract.controls import BulkOutcome
from joblog.streams.contract.timestamps import time_ms
from joblog.streams.errors import InvalidData, JoblogError
from joblog.streams.metrics import Meters
from joblog.streams.replay.lineage import CLOCKS_MS
from joblog.streams.replay.log import EventReader

log = logging.getLogger(__name__)

#: How often the table is looked at for operations, in seconds, and how long to wait after an error.
LOOK_S: Final = 1.0
RETRY_S: Final = 2.0
#: An operation that this process has ended is looked at again if the tables do not say so within this time.
BELIEVED_S: Final = 30.0
#: While the tables are further behind in an operation's lane, in seconds, it waits.
LATE_S: Final = 30.0
#: Jobs in a page: as many as in a second, but no more than this, as their snapshots are in memory.
PAGE_MAX: Final = 100


class Course:
    """How far this process is with one operation.

    - next_s: when its next page is due; ended_s: when the lane was told that it has ended; by a monotonic clock.
    """

    def __init__(self, sent: Sent, now_s: float) -> None:
        self.count, self.cursor, self.uncounted = sent.count, sent.cursor, sent.jobs
        self.next_s = now_s
        self.ended_s: float | None = None


class BulkRunner:
    """Runs until it is stopped; errors of Kafka and Postgres are waited out."""

    def __init__(
        self,
        settings: Settings,
        meters: Meters,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        commands: Callable[[BulkOperation], Iterable[bytes]] | None = None,
    ) -> None:
        """`commands`: those in the topic since an operation began; read from Kafka unless given."""
        self._settings, self._meters, self._clock = settings, meters, clock
        self._read_commands = commands or self._commands
        self._courses: dict[str, Course] = {}
        self._began_ms = wall_clock() * 1000
        #: The operations that ran at the first look, late as the tables were, and those that were begun here. Another
        #: one that began later than this process did so under its eyes: nobody has sent anything of it.
        self._seen: set[str] | None = None

    def run(self, stop: Event) -> None:
        """Work on the operations that run, until `stop`."""
        settings = self._settings
        reason = ""
        with (
            Monitor(settings.dsn(), settings.postgres.schema_name, connections_max=1) as monitor,
            ExitStack() as stack,
        ):
            client: Client | None = None
            while not stop.is_set():
                try:
                    running = self._looked(monitor.bulk.operations(state="running"))
                    if running and client is None:
                        client = stack.enter_context(Client.from_settings(settings))
                    for operation in running:
                        if client is not None and not stop.is_set():
                            self.turn(operation, monitor, client)
                    reason = ""
                except (JoblogError, KafkaException) as error:
                    # What was sent is not known any more: it is read back.
                    self._courses, self._seen = {}, None
                    if str(error) != reason:
                        reason = str(error)
                        log.warning("bulk.waiting", extra={"reason": reason})
                    stop.wait(RETRY_S)
                stop.wait(self._pause())

    def turn(self, operation: BulkOperation, monitor: Monitor, client: Client) -> None:
        """Do the next page of an operation, if it is due."""
        course = self._course(operation)
        if course.ended_s is not None or self._clock() < course.next_s:
            return
        try:
            page = monitor.bulk.page(operation, course.cursor, min(max(round(operation.rate), 1), PAGE_MAX))
            self._send(operation, course, page, client)
        except (InvalidQuestion, InvalidData) as error:
            self._end(operation, course, client, BulkOutcome.FAILED, str(error))

    def _send(self, operation: BulkOperation, course: Course, page: list[Found], client: Client) -> None:
        """Send a page, or end the operation if there is none."""
        if not page:
            self._end(operation, course, client, BulkOutcome.DONE, None)
            return
        begun = self._clock()
        records = [command_record(operation, job, client.rules) for job in page if job.id not in course.uncounted]
        client.send(records)
        self._meters.inc("joblog_bulk_commands_total", operation.action.value, by=len(records))
        before, course.count, course.cursor = course.count, course.count + len(page), page[-1].id
        client.bulk.advance(operation.id, before, course.count, course.cursor, None, None)
        course.next_s = begun + len(page) / operation.rate

    def _end(
        self, operation: BulkOperation, course: Course, client: Client, outcome: BulkOutcome, reason: str | None
    ) -> None:
        client.bulk.advance(operation.id, course.count, course.count, course.cursor, outcome, reason)
        course.ended_s = self._clock()
        log.info("bulk.ended", extra={"operation": operation.id, "outcome": outcome.value, "sent": course.count})

    def _course(self, operation: BulkOperation) -> Course:
        """How far the operation is: as this process knows, or as the topic `commands` says."""
        course = self._courses.get(operation.id)
        if course is None or self._is_wrong(course, operation):
            is_new = course is None and self._is_new(operation)
            if self._seen is not None:
                self._seen.add(operation.id)
            sent = Sent() if is_new else sent_of(operation, self._read_commands(operation))
            course = self._courses[operation.id] = Course(sent, self._clock())
            log.info("bulk.begun", extra={"operation": operation.id, "sent": sent.count, "uncounted": len(sent.jobs)})
        return course

    def _is_new(self, operation: BulkOperation) -> bool:
        """Whether nobody has sent anything of it, this process included."""
        is_unseen = self._seen is not None and operation.id not in self._seen
        return is_unseen and time_ms(operation.started_at) >= self._began_ms

    def _is_wrong(self, course: Course, operation: BulkOperation) -> bool:
        """Whether another runner has gone on, or the lane has not believed that the operation ended."""
        is_over = course.ended_s is not None and self._clock() - course.ended_s > BELIEVED_S
        return is_over or operation.sent > course.count

    def _commands(self, operation: BulkOperation) -> Iterator[bytes]:
        """The commands since the operation began, lane by lane."""
        settings = self._settings
        name = f"{settings.topic_prefix}bulk"
        began = time_ms(operation.started_at) - CLOCKS_MS
        with closing(
            EventReader(settings.kafka.config(), settings.names.commands, settings.lanes, client_id=name)
        ) as reader:
            for lane in range(settings.lanes):
                yield from reader.values(lane, *reader.bounds(lane, began))

    def _looked(self, running: Sequence[BulkOperation]) -> list[BulkOperation]:
        """Those of the operations that run which can be worked on; courses of those that have ended are dropped."""
        known = {operation.id for operation in running}
        self._courses = {one: course for one, course in self._courses.items() if one in known}
        if self._seen is None:
            self._seen = known
        return _current(running)

    def _pause(self) -> float:
        """How long until a page is due, or until the table is to be looked at."""
        due = [course.next_s - self._clock() for course in self._courses.values() if course.ended_s is None]
        return min(max(min(due, default=LOOK_S), 0.0), LOOK_S)


def _current(operations: Iterable[BulkOperation]) -> list[BulkOperation]:
    """Those of which the tables know what became of them lately.

    Tables that are filled anew, or that have fallen behind, may show an operation that ended long ago as running.
    """
    return [one for one in operations if one.late_s is not None and one.late_s <= LATE_S]
