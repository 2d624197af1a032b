"""The dead letters of commands, beside the events that reject them.

An elector that cannot read a command, or fails with it in a way that nobody foresaw, writes the record to the topic
`deadletters` and rejects it by an event, in one transaction. So each has the other, once. A command that failed twice
so is only parked. The dead letters of other roles have no such event, and may be there twice.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from math import inf
from typing import Final

from joblog.projections.projector.decode import RejectedFact
from joblog.projections.projector.event_batch import Record
from joblog.projections.replay.sorted_runs import Collected
from joblog.projections.replay.verification.findings import Finding, Kind, position
from joblog.streams.contract.record_headers import readable_headers
from joblog.streams.errors import InternalError
from joblog.streams.kafka.scan import Ranges, TopicReader
from msgspec import Struct

#: The events of a transaction and its dead letters may get their times so far apart.
TRANSACTION_MS: Final = 60_000
_PLACE: Final = re.compile(rb"commands/(\d{1,5})@(\d{1,18})").fullmatch


class Letter(Struct, array_like=True, gc=False):
    """Of a command's record: a dead letter, by its place in `deadletters`, or the event that rejects it.

    - needs_other: whether this one cannot be without the other. log_ms: when the broker wrote it.
    """

    is_event: bool
    partition: int
    offset: int
    log_ms: int
    code: str
    needs_other: bool


def rejection(record: Record, fact: RejectedFact) -> tuple[bytes, Letter] | None:
    """The command that an event rejects, and the event; None if it names no command."""
    place = _PLACE((fact.event.position or "").encode())
    if place is None:
        return None
    event = fact.event
    needs = event.command is None or event.code == InternalError.code
    letter = Letter(True, record.lane, record.offset, record.log_ms, event.code, needs)
    return _key(int(place[1]), int(place[2])), letter


def _key(lane: int, offset: int) -> bytes:
    return lane.to_bytes(4, "big") + offset.to_bytes(8, "big")


class DeadLetters:
    """What the topic holds of the commands of some lanes, and since when it holds all."""

    def __init__(self, letters: Collected[Letter], commands: str, lanes: Collection[int]) -> None:
        self.letters = letters
        self._commands, self._lanes = commands.encode(), set(lanes)
        self._since_ms: dict[int, float] = {}

    @property
    def since_ms(self) -> float:
        """What was written later is there: where old letters were deleted, what came before the oldest is unknown."""
        return max(self._since_ms.values(), default=-inf)

    def read(self, reader: TopicReader, ranges: Ranges) -> Iterator[int]:
        """Collect the dead letters; yields how many records were read."""
        self._since_ms = {number: inf for number, one in ranges.items() if one.start}
        for messages in reader.read(ranges):
            for message in messages:
                number, offset, log_ms = message.partition(), message.offset(), message.timestamp()[1]
                assert number is not None
                assert offset is not None
                if self._since_ms.get(number) == inf:
                    self._since_ms[number] = log_ms
                # Ours come first, and the record's own behind.
                why = {name: _bytes(value) for name, value in reversed(readable_headers(message) or [])}
                self._take(number, offset, log_ms, why)
            self.letters.spill()
            yield len(messages)

    def _take(self, number: int, offset: int, log_ms: int, why: Mapping[str, bytes]) -> None:
        if why.get("joblog-role") != b"elector" or why.get("joblog-topic") != self._commands:
            return
        place = _PLACE(b"commands/%b@%b" % (why.get("joblog-partition", b""), why.get("joblog-offset", b"")))
        if place is None or int(place[1]) not in self._lanes:
            return
        code = why.get("joblog-reason-code", b"").decode(errors="replace")
        letter = Letter(False, number, offset, log_ms, code, code != InternalError.code)
        self.letters.add(_key(int(place[1]), int(place[2])), letter)


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


def letter_findings(
    both: Iterator[tuple[bytes, list[Letter]]], looked: Mapping[int, int], begins: Mapping[int, int], since_ms: float
) -> Iterator[Finding]:
    """Commands of which only one of both is there, or a dead letter twice.

    - looked: how far each lane's events were before the dead letters were read; later ones are not missing yet.
    - begins: where the log of each lane begins; where that is not 0, events may be missing.
    """
    for key, several in both:
        lane, at = int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big")
        events = [one for one in several if one.is_event]
        letters = [one for one in several if not one.is_event]
        command = f"commands/{lane}@{at}"
        if len(letters) > 1:
            places = ", ".join(f"{one.partition}:{one.offset}" for one in letters)
            yield _finding(lane, None, f"{command} is among the dead letters more than once: {places}")
        if not letters and (event := next((one for one in events if one.needs_other), None)):
            is_known = event.log_ms - TRANSACTION_MS > since_ms
            if is_known and event.offset < looked.get(event.partition, 0):
                where = position(event.partition, event.offset)
                yield _finding(lane, where, f"{command} is rejected ({event.code}), and not among the dead letters")
        letter = next((one for one in letters if one.needs_other), None)
        if letter is not None and not events and not begins.get(lane, 0):
            place = f"{letter.partition}:{letter.offset}"
            yield _finding(lane, None, f"dead letter {place} is {command}, which no event rejects")


def _finding(lane: int, where: str | None, what: str) -> Finding:
    return Finding(kind=Kind.DEADLETTER, lane=lane, job=None, what=what, position=where)
