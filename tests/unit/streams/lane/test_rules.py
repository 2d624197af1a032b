from hypothesis import given
from hypothesis import strategies as st
from joblog.services.client.options import Call, JobOptions
from joblog.services.client.templates import CreateTemplate, Rules
from joblog.streams.contract import wire
from joblog.streams.contract.codec import read_command
from joblog.streams.contract.ids import hashed_job_id, lane_of_shard
from joblog.streams.lane.lane import Lane
from joblog.streams.lane.rules import LaneRules
from msgspec import structs

COUNTS = st.integers(1, 8)


@given(COUNTS, st.none() | COUNTS, st.text("abc", min_size=1, max_size=9))
def test_a_key_makes_the_same_id_whether_a_client_or_an_elector_chooses_it(
    shards: int, before: int | None, key: str
) -> None:
    former = {} if before is None else {"hot": before}
    rules = Rules(lanes=8, shards={"hot": shards}, source="/test", args_bytes_max=100, shards_before=former)
    record = CreateTemplate("t", JobOptions(queue="hot"), rules).fill(Call(idempotency_key=key))
    command = read_command(record.value, None).command
    assert isinstance(command, wire.CreateJob)
    without_id = structs.replace(command, job_id=None)
    for number in range(8):
        lane = Lane(number, 8, LaneRules(shards={"hot": shards}, shards_before=former))
        target = lane.lane_of(without_id)
        assert hashed_job_id(target, "hot", key) == record.job_id
        assert lane.lane_of(command) == target


@given(COUNTS, COUNTS)
def test_a_queue_lives_in_the_lanes_of_both_numbers(shards: int, before: int) -> None:
    rules = LaneRules(shards={"hot": shards}, shards_before={"hot": before})
    for shard in range(8):
        assert rules.has_queue("hot", lane_of_shard("hot", 8, shard), 8) == (shard < max(shards, before))
