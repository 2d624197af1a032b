"""Decides every event of a real log anew, by the rules and filters that electors have."""

from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.lane.filters import FilterChain, RetryFilter
from joblog.streams.replay.log import EventReader
from joblog.streams.replay.redecision import Difference, Redecision


def decided_anew(kafka: KafkaConfig, names: TopicNames, lanes: int) -> int:
    """How many events were decided anew and came out the same; fails on the first ones that did not."""
    reader = EventReader(kafka, names.events, lanes, client_id=f"{names.prefix}redecision")
    found: list[Difference] = []
    decided = 0
    try:
        for number in range(lanes):
            lane = Redecision(FilterChain([RetryFilter()]))
            events = reader.events(number, *reader.bounds(number))
            found += [difference for event in events if (difference := lane.take(event)) is not None]
            assert lane.undecided == 0, "events of jobs whose beginning is not in the log"
            decided += lane.decided
        assert reader.unreadable == 0
    finally:
        reader.close()
    assert not found, f"{len(found)} events are decided otherwise: {found[:5]}"
    return decided
