"""Tells lanes how jobs ended that they have forgotten, and others wait for; streams/lane/features/sought_parents.py.

A question is an event behind all that its lane wrote of the job. So once a projector has applied it, the tables have
all there is to know, unless the row has expired. Nobody relies on an answer: a lane asks again, and takes one answer.
So questions are in memory only, and one that cannot be answered now is left out.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
from joblog.projections.projector.decode import SoughtFact
from joblog.projections.projector.event_batch import Record
from joblog.projections.schema.history import event_of
from joblog.projections.statements import load
from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.states import FINAL_STATES, State
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.durable_producer import DurableProducer
from joblog.streams.lane.parents import carried
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

_SQL: Final = load("projector/answers.sql")
#: So many are looked up at once, between two batches of events; the result of each may have a megabyte.
LOOK_MAX: Final = 50
#: So many wait; the oldest ones of more are asked again.
QUESTIONS_MAX: Final = 10_000
#: How long the last answers may take when the process ends.
FLUSH_S: Final = 2.0
COUNTED: Final = "joblog_parents_sought_total"

Question = tuple[Record, SoughtFact]
#: By the job that is asked for: the last question.
Questions = dict[str, Question]


class Answering:
    """Answers what was applied, a few questions at a time; `make` makes the producer, with the first answer.

    `questions` are those that wait.
    """

    def __init__(
        self,
        config: KafkaConfig,
        names: TopicNames,
        meters: Meters,
        *,
        make: Callable[[], Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._topic, self._meters, self._clock = names.reports, meters, clock
        self._make = make or (lambda: clients.producer(config, f"{names.prefix}projector-answers"))
        self._producer: DurableProducer | None = None
        self._reason = ""
        self.questions: Questions = {}

    def turn(self, connection: psycopg.Connection[Any]) -> None:
        """Answer some of the questions, and take them out."""
        if self._producer is not None:
            self._producer.poll(0)
        if not self.questions:
            return
        some = self._taken(self.questions)
        left = set(range(len(some)))
        for place, answer in answers(connection, some):
            left.discard(place)
            if answer is None:
                self._meters.inc(COUNTED, "live")
            else:
                self._send(some[place][0].lane, answer)
        self._meters.inc(COUNTED, "late", by=len(left))

    def close(self) -> None:
        """Send what was answered, and let go of the connections."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.flush(FLUSH_S)
            producer.close()

    def _taken(self, questions: Questions) -> list[Question]:
        now, some = datetime.fromtimestamp(self._clock(), UTC), list[Question]()
        late = max(len(questions) - QUESTIONS_MAX, 0)
        for parent in list(questions)[:late]:
            del questions[parent]
        while questions and len(some) < LOOK_MAX:
            question = questions.pop(next(iter(questions)))
            if question[1].event.until < now:
                late += 1  # nobody waits any more
            else:
                some.append(question)
        self._meters.inc(COUNTED, "late", by=late)
        return some

    def _send(self, lane: int, answer: wire.ParentFound) -> None:
        if self._producer is None:
            self._producer = DurableProducer(self._make)
        outcome = "absent" if answer.state is None else "found"

        def delivered(error: Any, _message: Any) -> None:
            self._meters.inc(COUNTED, outcome if error is None else "unsent")
            if error is not None and (reason := error.str()) != self._reason:
                self._reason = reason
                log.warning("projector.unanswered", extra={"reason": reason, "topic": self._topic})

        try:
            self._producer.produce(self._topic, encode(answer), answer.job_id, lane, delivered)
        except BufferError:  # Kafka is away
            self._meters.inc(COUNTED, "unsent")


def answers(
    connection: psycopg.Connection[Any], questions: Sequence[Question]
) -> Iterator[tuple[int, wire.ParentFound | None]]:
    """The answers, by the places of the questions; None for a job that lives: its lane has it, or has it again."""
    asked = {
        "jobs": [fact.event.parent for _, fact in questions],
        "lanes": [record.lane for record, _ in questions],
        "offsets": [record.offset for record, _ in questions],
    }
    if not questions:
        return
    for place, state, event in connection.execute(_SQL["found"], asked, prepare=False):
        yield place - 1, answer(questions[place - 1][1].event, state, event)


def answer(sought: wire.ParentSought, state: str | None, event: str | None) -> wire.ParentFound | None:
    """What a lane is told of a job in this state, to which this event of its history led."""
    if state is None:
        return wire.ParentFound(job_id=sought.parent, question=sought.question, state=None)
    if State(state) not in FINAL_STATES:
        return None
    has = carried(None if event is None else event_of(event), State(state))
    return wire.ParentFound(
        job_id=sought.parent,
        question=sought.question,
        state=has.state,
        result=has.result,
        exception=has.exception,
        omitted=has.omitted,
    )
