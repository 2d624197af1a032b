"""Checks of the lanes: whether one was set aside, and what helps; called when all topics are as they should be."""

from collections.abc import Iterator
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from joblog.services.doctor.doctor import Finding, fail, ok
from joblog.services.settings.model import Settings
from joblog.streams.elector.lanes_status import lane_statuses

#: No broker, no topics, fewer partitions than lanes: the checks of Kafka report these, with what to do.
_FOUND_BEFORE: Final = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)


def examine_lanes(settings: Settings) -> Iterator[Finding]:
    """Each lane that does not work, with its reason."""
    try:
        statuses = list(lane_statuses(settings.kafka.config(), settings.names, settings.lanes))
    except KafkaException as exc:
        if exc.args[0].code() in _FOUND_BEFORE:
            return
        raise
    aside = [one for one in statuses if one.aside]
    for status in aside:
        assert status.aside is not None
        reason = f"set aside ({status.aside.code}): {status.aside.reason}"
        yield fail(f"lane {status.number}", reason, status.remedy)
    if not aside:
        yield ok("lanes", f"none of the {settings.lanes} lanes is set aside")
