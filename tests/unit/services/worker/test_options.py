import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.services.worker.announcing import new_worker_id
from joblog.services.worker.assignments import partition_of
from joblog.services.worker.options import DEFAULT_SLOTS, NAME_CHARS_MAX, WorkerOptions
from joblog.streams.contract.controls import home_of_worker
from joblog.streams.contract.fields import WORKER_PATTERN
from joblog.streams.contract.ids import lane_of_queue, lane_of_shard
from joblog.streams.contract.topics import ASSIGNMENT_PARTITIONS
from joblog.streams.errors import SettingsError

QUEUE = st.from_regex(r"[a-z0-9_-]{1,8}", fullmatch=True)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"queues": ()}, "needs a queue"),
        ({"queues": ("a", "a")}, "twice"),
        ({"queues": ("Loud",)}, "queue must match"),
        ({"lanes": 0}, "lanes"),
        ({"lanes": 5000}, "lanes"),
        ({"shards": {"a": 9}}, "shards"),
        ({"shards": {"a": 0}}, "shards"),
        ({"slots": 0}, "slots"),
        ({"prefetch": -1}, "prefetch"),
        ({"name": "has space"}, "name"),
        ({"name": "x" * (NAME_CHARS_MAX + 1)}, "name"),
        ({"renew_s": 0}, "positive"),
        ({"lease_s": 8}, "lease"),
        ({"lease_s": float("inf")}, "positive"),
        ({"lease_s": float("nan")}, "positive"),
        ({"grace_s": -1}, "grace_s"),
        ({"release_after_s": 0}, "release_after_s"),
        ({"result_bytes_max": 2_000_000}, "result_bytes_max"),
    ],
)
def test_an_impossible_setting_is_refused_by_name(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        WorkerOptions(**{"queues": ("a",), "lanes": 4, **wrong})


def test_a_worker_has_five_slots_a_core_and_twenty_at_most() -> None:
    assert 5 <= DEFAULT_SLOTS <= 20
    assert WorkerOptions(queues=("a",), lanes=4).slots == DEFAULT_SLOTS


@given(st.lists(QUEUE, min_size=1, max_size=6, unique=True), st.integers(1, 8), st.integers(1, 8))
def test_lanes_come_in_the_order_of_the_queues_and_hold_all_their_shards(
    queues: list[str], lanes: int, shards: int
) -> None:
    sharded = min(shards, lanes)
    found = WorkerOptions(queues=tuple(queues), lanes=lanes, shards={queues[-1]: sharded}).queues_of_lanes
    assert next(iter(found)) == lane_of_queue(queues[0], lanes)
    for queue in queues:
        wanted = {lane_of_shard(queue, lanes, n) for n in range(sharded if queue == queues[-1] else 1)}
        assert {lane for lane, there in found.items() if queue in there} == wanted
    for there in found.values():
        assert list(there) == [queue for queue in queues if queue in there]


def test_ids_of_workers_are_new_each_time_and_fit_the_contract() -> None:
    ids = {new_worker_id("host-1.example", 11) for _ in range(100)}
    assert len(ids) == 100
    for each in ids:
        assert re.fullmatch(WORKER_PATTERN, each)
        assert home_of_worker(each) == 11
        assert 0 <= partition_of(each) < ASSIGNMENT_PARTITIONS
