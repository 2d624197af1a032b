"""How queues are spread while clients run: what is refused, what new jobs follow it, and that no key does."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.services.client.options import Call, JobOptions, Unique
from joblog.services.client.queue_settings import SettingsOfQueues
from joblog.services.client.queues import Queues
from joblog.services.client.templates import CreateTemplate, Rules
from joblog.streams.contract.ids import lane_of_job, lane_of_queue
from joblog.streams.contract.queue_settings import QueueSettings
from joblog.streams.errors import InvalidData
from joblog.streams.kafka.clients import KafkaConfig

LANES = 8
FIRST = lane_of_queue("hot", LANES)


class Written(SettingsOfQueues):
    """What was written, without a topic."""

    def __init__(self) -> None:
        super().__init__(KafkaConfig("nowhere:9092"), "queues", "test", LANES)
        self.records: list[tuple[str, QueueSettings | None]] = []

    def write(self, queue: str, settings: QueueSettings | None) -> None:
        self.records.append((queue, settings))
        self._take(queue, settings)


def lanes_of(rules: Rules, **options: Any) -> set[int]:
    template = CreateTemplate("t", JobOptions(queue="hot", **options), rules)
    return {lane_of_job(template.fill(Call()).job_id) for _ in range(200)}


def test_new_jobs_follow_what_was_set_until_it_is_removed() -> None:
    written = Written()
    rules = Rules(LANES, {"hot": 2}, "/test", 1_000, {}, written.shards)
    queues = Queues(lambda _: None, rules, written)
    assert lanes_of(rules) == {(FIRST + n) % LANES for n in range(2)}
    queues.configure("hot", shards=4, by="ann", reason="holidays")
    assert lanes_of(rules) == {(FIRST + n) % LANES for n in range(4)}
    queues.configure("hot", shards=1)
    assert lanes_of(rules) == {FIRST}
    queues.configure("hot", shards=None)
    assert lanes_of(rules) == {(FIRST + n) % LANES for n in range(2)}
    assert written.records[0] == ("hot", QueueSettings(shards=4, by="ann", reason="holidays"))
    assert written.records[2] == ("hot", None)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"queue": "No Capitals", "shards": 2}, "No Capitals"),
        ({"shards": 0}, "1 to 8"),
        ({"shards": 9}, "1 to 8"),
        ({"shards": None, "reason": "why"}, "no effect"),
        ({"shards": 2, "by": 4}, "by"),
    ],
)
def test_what_no_queue_can_be_is_refused(fields: dict[str, Any], said: str) -> None:
    written = Written()
    with pytest.raises(InvalidData, match=said):
        Queues(lambda _: None, Rules(LANES, {}, "/test", 1_000), written).configure(**{"queue": "hot", **fields})
    assert written.records == []


@given(st.text(min_size=1, max_size=20).filter(lambda key: "\x00" not in key), st.data())
def test_a_key_keeps_its_lane_however_its_queue_is_spread(key: str, data: st.DataObject) -> None:
    shards, spread = data.draw(st.integers(1, LANES)), data.draw(st.integers(1, LANES))
    before = Rules(LANES, {"hot": shards}, "/test", 1_000)
    after = before._replace(spread={"hot": spread})
    for options in (JobOptions(queue="hot", idempotency_key=key), JobOptions(queue="hot", unique=Unique(key=key))):
        records = [CreateTemplate("t", options, rules).fill(Call()) for rules in (before, after)]
        assert len({lane_of_job(one.job_id) for one in records}) == 1
        assert options.unique is not None or records[0].job_id == records[1].job_id
