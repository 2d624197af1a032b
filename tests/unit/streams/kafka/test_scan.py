"""Reading while no broker answers can be stopped."""

import pytest
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.scan import Range, reading
from joblog.streams.progress import Stopped


def test_who_waits_for_a_silent_broker_can_stop() -> None:
    asked = 0

    def told() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise Stopped("stopped")

    with reading(KafkaConfig("127.0.0.1:1"), "t.events") as reader, pytest.raises(Stopped):
        list(reader.read({0: Range(0, 10)}, told))
    assert asked == 2
