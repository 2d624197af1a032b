"""The lanes that one elector has: taken over from the log, given back to it, set aside, thrown away."""

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, TopicPartition
from joblog.streams.contract.topics import TopicNames
from joblog.streams.elector.lane_records import ASIDE_KEY, LANE_KEY, LaneAside, LaneRecord, StateRecord
from joblog.streams.elector.takeover import Loaded, SetAside, Takeover, describe_gap
from joblog.streams.elector.transaction import TransactionLog
from joblog.streams.elector.turn import Turn
from joblog.streams.elector.writer import Writer
from joblog.streams.errors import StepBack
from joblog.streams.lane.lane import Lane

log: Final = logging.getLogger(__name__)


class OwnedLanes:
    """Lanes with the records that say, in the log, whose they are and how far they were read.

    - lanes: those that work.
    - aside: those that are set aside, and why. They are not read until somebody asks for it, or until an elector
      takes them over again.

    What was given back is kept at hand: the group may give the same lanes again, and if nobody wrote to them
    meanwhile, they need not be read from the log.
    """

    def __init__(self, names: TopicNames, takeover: Takeover, transactions: TransactionLog) -> None:
        self.lanes: dict[int, Lane] = {}
        self.aside: dict[int, LaneAside] = {}
        self._records: dict[int, LaneRecord] = {}
        self._given_back: dict[int, tuple[Lane, LaneRecord, int]] = {}
        self._trusted: dict[int, tuple[Lane, LaneRecord]] = {}
        #: Lanes that are to be set aside when they are taken the next time, and why.
        self._failed: dict[int, SetAside] = {}
        #: Where the `state` of the lanes that are aside ended when they were taken.
        self._aside_ends: dict[int, int] = {}
        self._names = names
        self._takeover = takeover
        self._transactions = transactions

    @property
    def numbers(self) -> list[int]:
        """All of them, whether they work or are set aside."""
        return sorted((*self.lanes, *self.aside))

    # --- taking and giving back ---

    def take(self, numbers: list[int], consumer: Consumer, clock_ms: int, now_ms: int, *, fence: bool) -> list[int]:
        """Have exactly these lanes, and say so in the log; tells which had to be loaded from there.

        Raises NotOurs, without `fence`, if another elector has one; StepBack and KafkaException.
        """
        at_hand = self._at_hand(numbers)
        missing = [number for number in numbers if number not in at_hand]
        own_id = self._transactions.transactional_id
        found = {number: Loaded(*one) for number, one in at_hand.items()}
        if missing:
            found |= self._takeover.load(missing, own_id, clock_ms, consumer, fence=fence)
        for number, why in self._failed.items():
            if number in found:
                found[number].why = why
        self._failed = {}
        self.lanes, self._records, self.aside = {}, {}, {}
        for number, one in found.items():
            if one.why is not None:
                self.aside[number] = _aside(one.why, one.noted, now_ms, own_id)
            else:
                assert one.lane is not None
                assert one.record is not None
                self.lanes[number] = one.lane
                self._records[number] = self._mine(*_position(one.record))
        # With the positions as offsets the group's coordinator refuses a member that was put out meanwhile.
        self._write_taken(found, consumer)
        self._aside_ends = self._takeover.state_ends(self.aside)
        return missing

    def _at_hand(self, numbers: Collection[int]) -> dict[int, tuple[Lane, LaneRecord]]:
        """The lanes that are as the log has them."""
        trusted, self._trusted = self._trusted, {}
        given_back, self._given_back = self._given_back, {}
        ends = self._takeover.state_ends([number for number in numbers if number in given_back])
        found = {number: given_back[number][:2] for number, end in ends.items() if given_back[number][2] == end}
        return found | {number: one for number, one in trusted.items() if number in numbers}

    def _write_taken(self, found: Mapping[int, Loaded], consumer: Consumer) -> None:
        changes: dict[int, dict[str, StateRecord]] = {}
        for number, one in found.items():
            changes[number] = dict(one.changes)
            if number in self._records:
                changes[number][LANE_KEY] = self._records[number]
            else:
                changes[number].pop(ASIDE_KEY, None)
                if self.aside[number] != one.noted:
                    changes[number][ASIDE_KEY] = self.aside[number]

        def write(writer: Writer) -> None:
            for number, records in changes.items():
                for key, record in records.items():
                    writer.state(number, key, record)
                for key, value in found[number].dropped.items():
                    writer.drop_state(number, key, value)

        self._transactions.commit(write, self._offsets(self.lanes), consumer)

    def give_back(self, consumer: Consumer) -> None:
        """Have no lanes any more, and say so in the log."""
        lanes, self.lanes, self._trusted = self.lanes, {}, {}
        self.aside, self._failed = {}, {}
        if not lanes:
            return
        free = {number: LaneRecord(None, *_position(self._records[number])) for number in lanes}

        def write(writer: Writer) -> None:
            for number, record in free.items():
                writer.state(number, LANE_KEY, record)

        try:
            self._transactions.commit(write, {}, consumer)
            ends = self._takeover.state_ends(lanes)
            self._given_back = {number: (lane, free[number], ends[number]) for number, lane in lanes.items()}
        except (StepBack, KafkaException) as error:
            # Whoever comes next finds our name on the lanes and fences us, which costs a new producer.
            log.warning("elector.release_failed", extra={"error": str(error)})
            self._given_back = {}

    # --- when something went wrong ---

    def distrust(self, numbers: Collection[int]) -> None:
        """Forget these lanes, which are not as the log has them; the others need not be loaded to be taken again."""
        self._trusted = {
            number: (lane, self._records[number]) for number, lane in self.lanes.items() if number not in numbers
        }
        self.lanes = {}

    def set_aside(self, number: int, why: SetAside) -> None:
        """Let the next `take` set this lane aside."""
        self._failed[number] = why

    def drop(self) -> None:
        """Forget all lanes: they are another's, or not as the log has them."""
        self.lanes, self.aside, self._given_back, self._trusted = {}, {}, {}, {}

    def is_asked_for(self) -> bool:
        """Whether somebody wrote into the `state` of a lane that is aside: an operator, most likely."""
        return bool(self.aside) and self._takeover.state_ends(self.aside) != self._aside_ends

    def gap(self, topic: str, number: int) -> str:
        """What is known of a record that is to be read next and is not there; empty if no broker answers."""
        position = self._places([number])[topic, number]
        try:
            return describe_gap(topic, position, *self._takeover.watermarks(topic, number))
        except KafkaException:
            return ""

    # --- working ---

    def assign(self, consumer: Consumer) -> None:
        """Fetch on from where the lanes stand."""
        places = self._places(self.lanes)
        consumer.assign([TopicPartition(topic, number, offset) for (topic, number), offset in places.items()])

    def commit(self, turn: Turn, consumer: Consumer) -> None:
        """Write what a turn led to, with the lanes' records after it; raises StepBack, WriteFailed."""
        numbers = {*turn.outputs, *(number for _, number in turn.offsets)}
        records = {number: self._advanced(number, turn.offsets) for number in numbers}
        offsets = turn.offsets or self._offsets(numbers)
        self._transactions.commit(lambda writer: turn.write(writer, records), offsets, consumer)
        self._records.update(records)

    def markers(self, ends: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        """Of the ends that were found, those with nothing but transactions' markers before them.

        A marker takes an offset. If it is the last, and retention deletes it, an elector that stood before it
        would look for a record that never was.
        """
        places = self._places(self.lanes)
        return {place: end for place, end in ends.items() if end > places.get(place, end)}

    def read_to_end(self, decided: Mapping[tuple[str, int], int], consumer: Consumer) -> set[int]:
        """The lanes of which all is decided that the last fetch found; `decided` are offsets beyond the records'.

        The end is asked of the client's memory, which every fetch renews; waiting for a silence would be in vain
        where something comes ten times a second.
        """
        ended = set()
        for number in self.lanes:
            for (topic, _), offset in self._places([number]).items():
                place = TopicPartition(topic, number)
                end = (consumer.get_watermark_offsets(place, cached=True) or (0, OFFSET_INVALID))[1]
                if end < 0 or decided.get((topic, number), offset) < end:
                    break
            else:
                ended.add(number)
        return ended

    def _advanced(self, number: int, offsets: Mapping[tuple[str, int], int]) -> LaneRecord:
        commands, reports = _position(self._records[number])
        return self._mine(
            offsets.get((self._names.commands, number), commands), offsets.get((self._names.reports, number), reports)
        )

    def _mine(self, commands: int, reports: int) -> LaneRecord:
        return LaneRecord(self._transactions.transactional_id, commands, reports)

    def _places(self, numbers: Iterable[int]) -> dict[tuple[str, int], int]:
        """Where lanes stand, by topic and number; a logical offset before their first record."""
        topics = (self._names.commands, self._names.reports)
        return {
            (topic, number): offset
            for number in numbers
            for topic, offset in zip(topics, _position(self._records[number]), strict=True)
        }

    def _offsets(self, numbers: Iterable[int]) -> dict[tuple[str, int], int]:
        """Where lanes stand, where they stand anywhere."""
        return {place: offset for place, offset in self._places(numbers).items() if offset >= 0}


def _position(record: LaneRecord) -> tuple[int, int]:
    return record.commands, record.reports


def _aside(why: SetAside, noted: LaneAside | None, now_ms: int, elector: str) -> LaneAside:
    """The record of a lane that is aside; the one that is there already, if it says the same."""
    if noted is not None and (noted.code, noted.reason) == (why.code, why.reason):
        return noted
    return LaneAside(why.code, why.reason, why.details, now_ms, elector)
