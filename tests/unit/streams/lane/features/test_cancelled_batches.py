"""Jobs of a cancelled batch that come to wait again: they go as those do that waited when it was cancelled."""

from collections.abc import Callable

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.retry import Curve, Retry
from joblog.streams.contract.states import DELETED
from msgspec import structs

from tests.support.batch_world import BatchWorld
from tests.support.lane_world import LANES
from tests.support.scene import BOOM

DAILY = Retry(attempts=3, curve=Curve.FIXED, delays_s=(86_400.0,))


def turns(world: BatchWorld, times: int = 4) -> None:
    for _ in range(times):
        for lane in range(LANES):
            world.turn(lane, 100, 100)


def fails(run: wire.RunJob) -> wire.AnyReport:
    said = {"job_id": run.job_id, "lease": run.lease, "worker": BatchWorld.worker}
    return wire.RunFailed(**said, exception=BOOM, duration_ms=1.0, started_ms=0)


def is_given_back(run: wire.RunJob) -> wire.AnyReport:
    return wire.RunReleased(job_id=run.job_id, lease=run.lease, worker=BatchWorld.worker, reason="drained")


@pytest.mark.parametrize("ends", [fails, is_given_back])
def test_a_batch_ends_though_a_run_of_it_does_not_and_no_worker_has_room(
    ends: Callable[[wire.RunJob], wire.AnyReport],
) -> None:
    world = BatchWorld()
    first, job, *rest = world.create([1])
    assert isinstance(job, wire.CreateJob)
    world.announce(1)
    world.send_all([first, structs.replace(job, retry=DAILY), *rest])
    turns(world)
    ((_, run),) = world.runs
    world.send_all([wire.CancelBatch(batch_id=first.batch_id)])
    turns(world)
    world.announce(0)
    world.report(lane_of_job(run.job_id), ends(run))
    turns(world)
    assert world.folds[run.job_id].state is DELETED
    assert world.told[first.batch_id][-1][1].state is DELETED
    world.check()
