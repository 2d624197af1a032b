from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.streams.contract.ids import lane_of_shard
from joblog.streams.contract.shards import Shards, jump_hash, served_shards, shard_of_lane, shards_of

COUNTS = st.integers(1, 64)
NUMBERS = st.integers(0, 2**64 - 1)
KEYS = st.text(min_size=1, max_size=30)


# Values that another implementation is tested with (github.com/dgryski/go-jump).
@pytest.mark.parametrize(
    ("number", "buckets", "bucket"),
    [(0, 1, 0), (1, 1, 0), (42, 57, 43), (0xDEAD10CC, 1, 0), (0xDEAD10CC, 666, 361), (256, 1024, 520)],
)
def test_the_hash_is_the_published_one(number: int, buckets: int, bucket: int) -> None:
    assert jump_hash(number, buckets) == bucket


@given(NUMBERS, COUNTS)
def test_one_more_bucket_moves_a_number_only_into_that_bucket(number: int, buckets: int) -> None:
    before, after = jump_hash(number, buckets), jump_hash(number, buckets + 1)
    assert after in {before, buckets}
    assert 0 <= before < buckets


def test_keys_are_spread_evenly() -> None:
    found = Counter(Shards(4).of_key(f"order-{n}") for n in range(8_000))
    assert sorted(found) == [0, 1, 2, 3]
    assert all(1_800 < count < 2_200 for count in found.values())


@given(KEYS, COUNTS, COUNTS)
def test_no_key_moves_while_a_queue_grows_and_the_former_number_is_named(key: str, before: int, more: int) -> None:
    assert Shards(before + more, before).of_key(key) == Shards(before).of_key(key)


@given(KEYS, COUNTS, COUNTS)
def test_when_a_queue_shrinks_only_keys_in_lanes_that_are_given_up_move(key: str, left: int, fewer: int) -> None:
    former = Shards(left + fewer).of_key(key)
    now = Shards(left, left + fewer).of_key(key)
    assert now == former or former >= left
    assert now < left, "nothing is written to the lanes that are to run empty"
    assert now == Shards(left).of_key(key), "no key moves when the former number is dropped"


@given(KEYS, COUNTS, COUNTS)
def test_dropping_the_former_number_moves_keys_only_to_the_new_lanes(key: str, before: int, more: int) -> None:
    former, now = Shards(before + more, before).of_key(key), Shards(before + more).of_key(key)
    assert now == former or now >= before


def test_lanes_of_both_numbers_are_served() -> None:
    assert served_shards({"grown": 4, "shrunk": 2}, {"grown": 2, "shrunk": 4, "single now": 3}) == {
        "grown": 4,
        "shrunk": 4,
        "single now": 3,
    }
    assert shards_of("other", {"a": 2}, {}) == Shards()


@given(st.text("abc", min_size=1), st.integers(1, 64), st.data())
def test_a_lane_of_a_queue_has_the_number_of_its_shard(queue: str, lanes: int, data: st.DataObject) -> None:
    shard = data.draw(st.integers(0, lanes - 1))
    assert shard_of_lane(queue, lane_of_shard(queue, lanes, shard), lanes) == shard
