"""What an elector would do with a producer's records: the real turn and lanes, in memory."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, cast

from confluent_kafka import Message
from joblog.streams.contract import wire
from joblog.streams.contract.fields import INTEGER_MAX
from joblog.streams.contract.ids import murmur2
from joblog.streams.contract.record_headers import Headers
from joblog.streams.contract.topics import TopicNames
from joblog.streams.elector.turn import Turn
from joblog.streams.lane.filters import FilterChain, RetryFilter
from joblog.streams.lane.lane import Lane
from joblog.streams.lane.rules import LaneRules
from joblog.streams.lane.transitions import Election

_NAMES: Final = TopicNames("")


class Outcome(StrEnum):
    """What becomes of a record."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"  # the job exists already: nothing happens twice
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class SentRecord:
    """A record as a producer hands it to Kafka. Without a partition, the default partitioner chooses by the key."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = field(default_factory=list)
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an elector would do with one record.

    - id: of the CloudEvent, if it could be read.
    - job_id, lane: the job that it creates or changes, or that exists already, and the lane of that job.
    - event: the type of the event that it leads to.
    - code, reason: why it is refused, as the event `command.rejected` says it.
    - forwarded: whether its key or partition leads to another lane than its job's, from which it is sent on at a
      small cost.
    """

    outcome: Outcome
    id: str | None = None
    job_id: str | None = None
    lane: int | None = None
    event: str | None = None
    code: str | None = None
    reason: str | None = None
    forwarded: bool = False


class Judge:
    """An installation in memory that judges one record after the other, and remembers the jobs.

    - lanes, shards: as the installation has them; with others, ids and lanes come out differently.
    """

    def __init__(self, lanes: int, shards: Mapping[str, int] | None = None) -> None:
        rules = LaneRules(shards=shards or {}, remembered=INTEGER_MAX)
        self._lanes = {number: Lane(number, lanes, rules) for number in range(lanes)}
        self._filters = FilterChain((RetryFilter(lambda: 0.0),))
        self._offset = 0

    def judge(self, record: SentRecord) -> Verdict:
        """What would become of the record, after all those before it."""
        partition = self._partition(record)
        turn = self._turn(record, partition)
        if not turn.forwards:
            return _verdict(turn, partition)
        ((_, _, lane),) = turn.forwards
        is_known = record.key is not None or record.partition is not None
        return _verdict(self._turn(record, lane), lane, forwarded=is_known)

    def _turn(self, record: SentRecord, partition: int) -> Turn:
        election = Election(
            round(time.time() * 1000), round(time.monotonic() * 1000), self._filters.elect, self._filters.watched
        )
        turn = Turn(_NAMES, self._lanes, election)
        turn.take(cast("Message", _Received(record, partition, self._offset)))
        self._offset += 1
        return turn

    def _partition(self, record: SentRecord) -> int:
        if record.partition is not None and record.partition in self._lanes:
            return record.partition
        # Kafka's partitioner spreads records without a key; wherever they arrive, they are forwarded.
        return 0 if record.key is None else (murmur2(record.key) & 0x7FFFFFFF) % len(self._lanes)


@dataclass(frozen=True, slots=True)
class _Received:
    """As much of confluent_kafka.Message as a turn reads."""

    record: SentRecord
    number: int
    at: int

    def topic(self) -> str:
        return _NAMES.commands

    def partition(self) -> int:
        return self.number

    def offset(self) -> int:
        return self.at

    def value(self) -> bytes | None:
        return self.record.value

    def key(self) -> bytes | None:
        return self.record.key

    def headers(self) -> Headers | None:
        return self.record.headers or None

    def timestamp(self) -> tuple[int, int]:
        return 0, 0


def _verdict(turn: Turn, lane: int, *, forwarded: bool = False) -> Verdict:
    events: Sequence[tuple[str, str, str, Any, str | None, str | None]] = turn.outputs[lane].events
    key, kind, _, data, cause, _ = events[0]
    if not isinstance(data, wire.CommandRejected):
        job_id = key if isinstance(data, wire.JobEvent) else None
        return Verdict(Outcome.TAKEN, cause, job_id, lane, kind, forwarded=forwarded)
    outcome = Outcome.DUPLICATE if data.code == "duplicate" else Outcome.REFUSED
    return Verdict(outcome, data.command_id, data.job_id, lane, kind, data.code, data.reason, forwarded)
