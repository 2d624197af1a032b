"""One turn of an elector: records in, decided by their lanes, gathered until they are committed.

What cannot be read, and what could not be decided when it was read before, is parked. An exception that nobody
foresaw in reading harms nothing, and parks the record at once; out of a lane it is raised as RecordFailed.
"""

import logging
from collections.abc import Collection, Mapping
from typing import Final

from confluent_kafka import KafkaException, Message
from joblog.streams.contract import deadletters, wire
from joblog.streams.contract.codec import read_command, read_report
from joblog.streams.contract.deadletters import internal_error
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.record_headers import Headers, headers_of, readable_headers, size_of
from joblog.streams.contract.topics import ASSIGNMENT_PARTITIONS, TopicNames
from joblog.streams.contract.unreadable import failed_by_report
from joblog.streams.elector.failed_records import (
    FailedRecord,
    FailedRecords,
    LaneFailed,
    Place,
    RecordFailed,
    WriteFailed,
)
from joblog.streams.elector.lane_records import LANE_KEY, LaneRecord
from joblog.streams.elector.membership import ROLE
from joblog.streams.elector.writer import Writer
from joblog.streams.errors import ContractError, InternalError, InvalidData
from joblog.streams.lane.lane import Lane
from joblog.streams.lane.output import Budget, LaneOutput
from joblog.streams.lane.transitions import Election, Rejection

log: Final = logging.getLogger(__name__)

#: Reports to other lanes that one turn leads to, about: each end tells up to 500 continuations at once.
FANOUT_MAX: Final = 10_000
#: Reports that name the lane which sent them.
_OF_LANES: Final = wire.BatchCounted | wire.QueueLimitJoined | wire.QueueLimitUsed | wire.QueueElsewhere
#: Reports after which the lane of a continuation is reported to.
_OF_CHILDREN: Final = wire.ContinuationAdded | wire.ContinuationUnmet | wire.BatchAwaited
#: Key and headers of a command that is forwarded: with its value they must fit into one record again.
CARRIED_BYTES_MAX: Final = 200_000


class Turn:
    """What one turn leads to: the lanes' outputs, what is forwarded or parked, how far was read."""

    def __init__(
        self,
        names: TopicNames,
        lanes: Mapping[int, Lane],
        election: Election,
        failed_records: FailedRecords | None = None,
    ) -> None:
        self._commands = names.commands
        self._lanes = lanes
        self._election = election
        self.now_ms = election.now_ms
        self._failed_records = failed_records or FailedRecords()
        self._budget = Budget()
        self.outputs: dict[int, LaneOutput] = {}
        self.offsets: dict[tuple[str, int], int] = {}
        #: How many records were taken, and the last one.
        self.inputs = 0
        self._last: Place | None = None
        #: The rest had better wait for the next transaction.
        self.is_full = False
        self.forwards: list[tuple[Message, Headers | None, int]] = []
        self.parked: list[tuple[Message, Headers | None, ContractError]] = []

    def take(self, message: Message) -> None:
        """Let the record's lane decide it; raises RecordFailed if that fails in a way nobody foresaw."""
        topic, number, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None
        assert number is not None
        assert offset is not None
        self.offsets[topic, number] = offset + 1
        lane = self._lanes[number]
        out = self.outputs.get(number)
        if out is None:
            out = self.outputs[number] = LaneOutput(budget=self._budget)
        self.inputs += 1
        self._last = place = (topic, number, offset)
        known = self._failed_records.find(place)
        try:
            if topic == self._commands:
                self._command(message, lane, offset, out, known)
            else:
                self._report(message, lane, offset, out, known)
        except Exception as error:
            raise RecordFailed(place, internal_error(error), self.outputs) from error
        self.is_full = len(out.reports) > FANOUT_MAX or self._budget.is_half_spent

    def skip_markers(self, ends: Mapping[tuple[str, int], int]) -> None:
        """After all records: go on from these offsets, before which nothing is left to read."""
        for place, end in ends.items():
            self.offsets[place] = max(self.offsets.get(place, 0), end)

    def _command(
        self, message: Message, lane: Lane, offset: int, out: LaneOutput, known: FailedRecord | None
    ) -> None:
        headers = None
        try:
            headers = headers_of(message)
            received = read_command(message.value(), headers)
            target = lane.lane_of(received.command)
            if target != lane.number:
                _check_target(target, lane.lanes, message, headers)
        except Exception as raised:  # noqa: BLE001  # it is logged, and the record is parked
            position = lane.position(offset)
            error = _refusal(raised, position)
            self._park(message, headers, error, out)
            lane.rejected(wire.CommandRejected(error.code, error.reason[:2000], position=position), None, out)
            return
        if known is not None:
            self._park(message, headers, known.error, out)
            if known.tries == 1:
                lane.reject(Rejection(known.error.code, known.error.reason), received, offset, out)
        elif target == lane.number:
            lane.command(received, offset, self._election, out)
        else:
            self.forwards.append((message, headers, target))
            out.counts["joblog_commands_forwarded_total",] += 1

    def _report(self, message: Message, lane: Lane, offset: int, out: LaneOutput, known: FailedRecord | None) -> None:
        position = f"reports/{lane.number}@{offset}"  # the cause of what it leads to
        lane.heard(message.timestamp()[1])
        try:
            report: wire.AnyReport = _read_report(message, lane.lanes, known)
        except Exception as raised:  # noqa: BLE001  # it is logged, and the record is parked
            error = _refusal(raised, position)
            self._park(message, readable_headers(message), error, out)
            instead = failed_by_report(message.value(), error.reason)
            if instead is None or (known is not None and known.tries > 1):
                return
            report = instead
        lane.report(report, position, self._election, out)

    def _park(self, message: Message, headers: Headers | None, error: ContractError, out: LaneOutput) -> None:
        self.parked.append((message, headers, error))
        out.counts["joblog_quarantined_records_total", error.code] += 1

    def tick(self, read_to_end: Collection[int]) -> None:
        """Let time pass in all lanes; `read_to_end` are those in which nothing is left to be read."""
        for number, lane in self._lanes.items():
            out = self.outputs.get(number) or LaneOutput(budget=self._budget)
            try:
                lane.tick(number in read_to_end, self._election, out)
            except Exception as error:
                raise LaneFailed(number, internal_error(error), self.outputs) from error
            if not out.empty:
                self.outputs[number] = out

    def assign(self) -> None:
        """Hand out free slots in the lanes where something happened, or where the last turn did not get to it."""
        for number, lane in self._lanes.items():
            out = self.outputs.get(number)
            if out is None and lane.is_unfilled:
                out = self.outputs[number] = LaneOutput(budget=self._budget)
            if out is not None:
                try:
                    lane.assign(self._election, out)
                except Exception as error:
                    raise LaneFailed(number, internal_error(error), self.outputs) from error

    @property
    def empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not self.offsets and all(out.empty for out in self.outputs.values())

    def write(self, writer: Writer, records: Mapping[int, LaneRecord]) -> None:
        """All of it, and the lane records as they are after it; raises WriteFailed, BufferError, KafkaException."""
        for number, out in self.outputs.items():
            try:
                writer.output(number, out, self._election.now_ms)
            except (BufferError, KafkaException):
                raise
            except Exception as error:
                raise WriteFailed(number, internal_error(error), self.outputs, self.inputs, self._last) from error
        for number, record in records.items():
            writer.state(number, LANE_KEY, record)
        for message, headers, lane in self.forwards:
            writer.forward(message, headers, lane)
        for message, headers, refusal in self.parked:
            told = refusal.details if isinstance(refusal, InternalError) else refusal.reason
            place = message.topic() or "", message.partition() or 0, message.offset() or 0
            said = deadletters.headers(refusal.code, told, ROLE, *place, headers)
            writer.deadletter(message, said, deadletters.value(message.value()))


def _read_report(message: Message, lanes: int, known: FailedRecord | None) -> wire.AnyReport:
    if known is not None:
        raise known.error
    report: wire.AnyReport = read_report(message.value())
    _check_places(report, lanes)
    return report


def _check_target(target: int, lanes: int, message: Message, headers: Headers | None) -> None:
    """Refuse a command of another lane that cannot be sent there."""
    if target >= lanes:
        raise InvalidData(f"the job id names lane {target}, and there are only {lanes}")
    if len(message.key() or b"") + size_of(headers) > CARRIED_BYTES_MAX:
        raise InvalidData(f"key and headers have more than {CARRIED_BYTES_MAX} bytes: too long to forward")


def _check_places(report: wire.AnyReport, lanes: int) -> None:
    """Refuse a report that leads to a partition which is not there: no transaction could be written."""
    if type(report) is wire.RunSucceeded:  # most of them are
        return
    if isinstance(report, wire.WorkerAnnounced):
        if not 0 <= report.partition < ASSIGNMENT_PARTITIONS:
            raise InvalidData(f"partition {report.partition} of assignments is not there")
    elif isinstance(report, _OF_CHILDREN):
        if (lane := lane_of_job(report.child)) >= lanes:
            raise InvalidData(f"the id of the continuation names lane {lane}, and there are only {lanes}")
    elif isinstance(report, _OF_LANES) and report.lane >= lanes:
        raise InvalidData(f"the report is of lane {report.lane}, and there are only {lanes}")
    elif isinstance(report, wire.LimitReport) and (lane := lane_of_job(report.job_id)) >= lanes:
        raise InvalidData(f"the id of the job names lane {lane}, and there are only {lanes}")
    elif isinstance(report, wire.LimitsForgotten | wire.LimitsRebuilt) and report.lane >= lanes:
        raise InvalidData(f"lane {report.lane} is not there: there are only {lanes}")


def _refusal(raised: Exception, position: str) -> ContractError:
    """Why a record is parked that could not be read, or shall not be decided again."""
    if isinstance(raised, ContractError):
        return raised
    log.error("elector.unreadable", exc_info=raised, extra={"position": position})
    return internal_error(raised)
