import re
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.streams.contract.fields import JOB_ID_PATTERN
from joblog.streams.contract.ids import (
    LANES_MAX,
    hashed_job_id,
    lane_of_job,
    lane_of_queue,
    lane_of_shard,
    murmur2,
    new_job_id,
)

LANES = st.integers(0, LANES_MAX - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("data", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(data: bytes, signed: int) -> None:
    assert murmur2(data) == signed % 2**32


def test_murmur2_of_nothing_is_a_number_too() -> None:
    assert murmur2(b"") == 275646681


def test_a_queue_lives_where_kafkas_default_partitioner_puts_its_name() -> None:
    assert lane_of_queue("foobar", 7) == (-790332482 & 0x7FFFFFFF) % 7
    assert lane_of_queue("21", 48) == (-973932308 & 0x7FFFFFFF) % 48


def test_shards_are_neighbours_and_begin_again_after_the_last_lane() -> None:
    first = lane_of_queue("q", 4)
    assert [lane_of_shard("q", 4, shard) for shard in range(5)] == [(first + n) % 4 for n in range(5)]


@given(LANES, st.integers(0, 2**48 - 1), st.integers(0, 2**62 - 1))
def test_a_job_id_is_a_uuid_of_version_8_that_carries_time_and_lane(lane: int, now_ms: int, random: int) -> None:
    job_id = new_job_id(lane, now_ms, random)
    uuid = UUID(job_id)
    assert str(uuid) == job_id
    assert (uuid.version, uuid.variant) == (8, RFC_4122)
    assert re.fullmatch(JOB_ID_PATTERN, job_id)
    assert lane_of_job(job_id) == lane
    assert uuid.int >> 80 == now_ms
    assert uuid.int & (2**62 - 1) == random


def test_job_ids_of_one_instant_differ() -> None:
    assert len({new_job_id(3, 1_800_000_000_000) for _ in range(1000)}) == 1000


def test_job_ids_sort_by_their_time() -> None:
    assert new_job_id(9, 1_800_000_000_000) < new_job_id(0, 1_800_000_000_001)


@given(LANES, st.lists(TEXTS))
def test_a_hashed_id_is_always_the_same_and_in_its_lane(lane: int, parts: list[str]) -> None:
    job_id = hashed_job_id(lane, *parts)
    assert job_id == hashed_job_id(lane, *parts)
    assert lane_of_job(job_id) == lane
    assert re.fullmatch(JOB_ID_PATTERN, job_id)


@given(st.lists(TEXTS), st.lists(TEXTS))
def test_other_parts_give_another_id(one: list[str], other: list[str]) -> None:
    assert (hashed_job_id(0, *one) == hashed_job_id(0, *other)) is (one == other)


def test_the_bounds_between_parts_count() -> None:
    assert hashed_job_id(0, "ab", "c") != hashed_job_id(0, "a", "bc")
    assert hashed_job_id(0, "ab") != hashed_job_id(0, "ab", "")


def test_hashed_ids_stay_what_they_were() -> None:
    # Another hash would let what was sent before an upgrade be created again after it.
    assert hashed_job_id(5, "/shop/orders", "order-7") == "a23f7827-8eff-8005-a334-097c9d40c8d8"
