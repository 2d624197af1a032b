"""The lanes that one elector has: taken over from the log, given back to it, thrown away."""

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, TopicPartition
from joblog.streams.contract.topics import TopicNames
from joblog.streams.elector.lane_records import LaneRecord
from joblog.streams.elector.takeover import Takeover
from joblog.streams.elector.transaction import TransactionLog
from joblog.streams.elector.turn import Turn
from joblog.streams.elector.writer import Writer
from joblog.streams.errors import StepBack
from joblog.streams.lane.lane import Lane

log: Final = logging.getLogger(__name__)


class OwnedLanes:
    """Lanes with the records that say, in the log, whose they are and how far they were read.

    What was given back is kept at hand: the group may give the same lanes again, and if nobody wrote to them
    meanwhile, they need not be read from the log.
    """

    def __init__(self, names: TopicNames, takeover: Takeover, transactions: TransactionLog) -> None:
        self.lanes: dict[int, Lane] = {}
        self._records: dict[int, LaneRecord] = {}
        self._given_back: dict[int, tuple[Lane, LaneRecord, int]] = {}
        self._trusted: dict[int, tuple[Lane, LaneRecord]] = {}
        self._names = names
        self._takeover = takeover
        self._transactions = transactions

    def take(self, numbers: list[int], consumer: Consumer, clock_ms: int, *, fence: bool) -> list[int]:
        """Have exactly these lanes, and say so in the log; tells which had to be loaded from there.

        Raises NotOurs, without `fence`, if another elector has one; StepBack and KafkaException.
        """
        found = self._at_hand(numbers)
        missing = [number for number in numbers if number not in found]
        if missing:
            found |= self._takeover.load(missing, self._transactions.transactional_id, clock_ms, fence=fence)
        self.lanes = {number: lane for number, (lane, _) in found.items()}
        self._records = {number: self._mine(*_position(record)) for number, (_, record) in found.items()}
        # With the positions as offsets the group's coordinator refuses a member that was put out meanwhile.
        self._write(self._records, self._offsets(numbers), consumer)
        return missing

    def _at_hand(self, numbers: Collection[int]) -> dict[int, tuple[Lane, LaneRecord]]:
        """The lanes that are as the log has them."""
        trusted, self._trusted = self._trusted, {}
        given_back, self._given_back = self._given_back, {}
        ends = self._takeover.state_ends([number for number in numbers if number in given_back])
        found = {number: given_back[number][:2] for number, end in ends.items() if given_back[number][2] == end}
        return found | {number: one for number, one in trusted.items() if number in numbers}

    def give_back(self, consumer: Consumer) -> None:
        """Have no lanes any more, and say so in the log."""
        lanes, self.lanes, self._trusted = self.lanes, {}, {}
        if not lanes:
            return
        free = {number: LaneRecord(None, *_position(self._records[number])) for number in lanes}
        try:
            self._write(free, {}, consumer)
            ends = self._takeover.state_ends(lanes)
            self._given_back = {number: (lane, free[number], ends[number]) for number, lane in lanes.items()}
        except (StepBack, KafkaException) as error:
            # Whoever comes next finds our name on the lanes and fences us, which costs a new producer.
            log.warning("elector.release_failed", extra={"error": str(error)})
            self._given_back = {}

    def distrust(self, numbers: Collection[int]) -> None:
        """Forget these lanes, which are not as the log has them; the others need not be loaded to be taken again."""
        self._trusted = {
            number: (lane, self._records[number]) for number, lane in self.lanes.items() if number not in numbers
        }
        self.lanes = {}

    def drop(self) -> None:
        """Forget all lanes: they are another's, or not as the log has them."""
        self.lanes, self._given_back, self._trusted = {}, {}, {}

    def assign(self, consumer: Consumer) -> None:
        """Fetch on from where the lanes stand."""
        places = self._places(self.lanes)
        consumer.assign([TopicPartition(topic, number, offset) for (topic, number), offset in places.items()])

    def commit(self, turn: Turn, consumer: Consumer) -> None:
        """Write what a turn led to, with the lanes' records after it; raises StepBack."""
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

    def _write(
        self, records: Mapping[int, LaneRecord], offsets: Mapping[tuple[str, int], int], consumer: Consumer
    ) -> None:
        def write(writer: Writer) -> None:
            for number, record in records.items():
                writer.lane_record(number, record)

        self._transactions.commit(write, offsets, consumer)


def _position(record: LaneRecord) -> tuple[int, int]:
    return record.commands, record.reports
