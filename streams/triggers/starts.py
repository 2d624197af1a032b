"""Where a group begins to read partitions that it has never read.

The oldest record is what the consumer takes by itself. The end is committed before the group has members: were it
only where the consumer happens to begin, events that come while no process runs would be lost until the first commit.
A topic of which the group has read a partition is not new to it: others of its partitions were added later, and are
read whole.
"""

import logging
import time
from collections.abc import Sequence
from typing import Final

from confluent_kafka import KafkaException, TopicPartition
from joblog.streams.errors import SettingsError
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.group_offsets import commit_offsets, committed_offsets
from joblog.streams.kafka.last_records import watermarks

log = logging.getLogger(__name__)

_TIMEOUT_S: Final = 10.0
#: Another process of the group may do the same at this moment; then it is done after some tries.
_TRIES: Final = 5
_WAIT_S: Final = 1.0


def begin_at_end(config: KafkaConfig, group: str, partitions: Sequence[tuple[str, int]]) -> None:
    """Commit the end of these partitions of topics that the group has no offset of.

    Raises SettingsError if the group has members already; KafkaException when no broker answers.
    """
    for number in range(_TRIES):
        places = [TopicPartition(*place) for place in partitions]
        found = committed_offsets(config, group, places, _TIMEOUT_S)
        known = {place.topic for place in found if place.offset >= 0}
        unknown = [place for place in found if place.topic not in known]
        if not unknown:
            return
        if number:
            time.sleep(_WAIT_S)
        try:
            commit_offsets(config, group, _ends(config, group, unknown))
        except KafkaException as exc:
            log.info("triggers.start_not_set", extra={"error": exc.args[0].str()})
            failure = exc
        else:
            log.info("triggers.starts_at_end", extra={"partitions": len(unknown)})
            return
    named = ", ".join(sorted({place.topic for place in unknown}))
    raise SettingsError(
        f"triggers.start is latest, but where {named} begins cannot be set while group {group} has members "
        f"({failure.args[0].str()}): stop its other processes once, or set JOBLOG_TRIGGERS__START=earliest"
    )


def _ends(config: KafkaConfig, group: str, places: Sequence[TopicPartition]) -> list[TopicPartition]:
    consumer = clients.reader(config, f"{group}-ends")
    try:
        return [TopicPartition(one.topic, one.partition, watermarks(consumer, one)[1]) for one in places]
    finally:
        consumer.close()
