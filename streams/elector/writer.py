"""What an elector's transaction holds, as records: events, assignments, timers, reports, state, dead letters."""

from collections.abc import Mapping
from typing import Final

from confluent_kafka import Message, Producer
from joblog.streams.contract import deadletters, wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.record_headers import Headers
from joblog.streams.contract.timestamps import format_time
from joblog.streams.contract.topics import TopicNames, tier_for
from joblog.streams.elector.lane_records import StateRecord, write_state
from joblog.streams.lane.output import LaneOutput

_JSON: Final = "application/json"


class Writer:
    """Produces what lanes want written, within one transaction."""

    def __init__(
        self, producer: Producer, lanes: int, names: TopicNames, tiers: Mapping[str, str], sources: dict[int, str]
    ) -> None:
        self._produce = producer.produce
        self._lanes = lanes
        self._names = names
        self._tiers = tiers
        self._sources = sources

    def output(self, lane: int, out: LaneOutput, now_ms: int) -> None:
        """All of one lane's output; ValueError if a report is for a lane that is not there.

        librdkafka would notice that only when it delivers, and the whole transaction would fail, again and again.
        """
        self._events(lane, out, now_ms)
        produce = self._produce
        assignments = self._names.assignments
        for partition, worker, assignment in out.assignments:
            produce(assignments, encode(assignment), worker, partition)
        for timer in out.timers:
            topic = self._tiers[tier_for(timer.due_ms - now_ms)]
            produce(topic, encode(timer), timer.job_id, lane)
        for to_lane, key, report in out.reports:
            if to_lane >= self._lanes:
                kind = type(report).__struct_config__.tag
                raise ValueError(f"{kind} about {key} is for lane {to_lane}, and there are only {self._lanes}")
            produce(self._names.reports, encode(report), key, to_lane)
        state = self._names.state
        for key, value in out.state.items():
            produce(state, write_state(value), key, lane)

    def _events(self, lane: int, out: LaneOutput, now_ms: int) -> None:
        if not out.events:
            return
        produce = self._produce
        topic = self._names.events
        time = format_time(now_ms)
        source = self._sources.get(lane)
        if source is None:
            source = self._sources[lane] = f"/joblog/lanes/{lane}"
        envelope = wire.CloudEvent
        for key, kind, event_id, data, cause, traceparent in out.events:
            event = envelope("1.0", event_id, source, kind, key, time, _JSON, cause, traceparent, data)
            produce(topic, encode(event), key, lane)

    def state(self, lane: int, key: str, record: StateRecord) -> None:
        """One record of the lane's state; None deletes it."""
        self._produce(self._names.state, write_state(record), key, lane)

    def drop_state(self, lane: int, key: str, value: bytes) -> None:
        """Delete a record of the lane's state that cannot be read, and keep it among the dead letters."""
        raw = key.encode(errors="surrogateescape")
        said = deadletters.headers(
            "state_unreadable", "skipped by an operator", "elector", self._names.state, lane, -1
        )
        self._produce(self._names.deadletters, deadletters.value(value), deadletters.key(raw), headers=said)
        self._produce(self._names.state, None, raw, lane)

    def forward(self, message: Message, headers: Headers | None, lane: int) -> None:
        """Send a command on to its own lane, as it came."""
        self._produce(self._names.commands, message.value(), message.key(), lane, headers=headers)

    def deadletter(self, message: Message, headers: Headers, value: bytes | None) -> None:
        """Park a record with its reason."""
        self._produce(self._names.deadletters, value, deadletters.key(message.key()), headers=headers)
