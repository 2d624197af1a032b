"""What a feature may do, by the example of the README: tasks of which only one job runs at a time."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from joblog.streams.contract.relations import LimitKind
from joblog.streams.contract.states import State
from joblog.streams.contract.wire import CreateJob, DeleteJob, Limit, SetParameter
from joblog.streams.lane.extras import USES_LIMITS
from joblog.streams.lane.feature import Feature, declared
from joblog.streams.lane.features.catalog import FEATURES
from joblog.streams.lane.job import Job
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election

from tests.support.scene import Pause, Scene, Tick, create, id_of, released, succeeded, worker


class OneAtATime(Feature):
    """Of the task `t`, one job runs at a time; the others wait in their order."""

    uses: ClassVar = USES_LIMITS

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self.running: str | None = None

    def entered(self) -> Mapping[State, Callable[[Job], None]]:
        return {State.PROCESSING: self._started}

    def left(self) -> Mapping[State, Callable[[Job, Job, Any, LaneOutput], None]]:
        return {State.PROCESSING: self._ended}

    def may_start(self, job: Job, _election: Election, _out: LaneOutput) -> str | None:
        return f"waits for job {self.running}" if self.running and job.task == "t" else None

    def _started(self, job: Job) -> None:
        if job.task == "t":
            self.running = job.id

    def _ended(self, before: Job, after: Job, _what: Any, _out: LaneOutput) -> None:
        if before.id == self.running and after.state is not State.PROCESSING:
            self.running = None
            for job_id in tuple(self.pipeline.store.held):
                self.pipeline.store.release(job_id)


LIMIT = Limit(LimitKind.MUTEX, "m")


def limited(name: str, **fields: Any) -> CreateJob:
    return create(name, limits=(LIMIT,), **fields)


def scene() -> Scene:
    announced = worker(slots=3, tasks=("t", "other"))
    return Scene(features=(*(one for one in FEATURES if not one.uses), OneAtATime)).given(announced)


def test_a_feature_holds_jobs_back_and_lets_them_go_in_their_order() -> None:
    one = scene().when(limited("a"), limited("b"), limited("c", priority=1), create("d", task="other"))
    one.and_assigned("w: run c, lease 2", "w: run d, lease 2")
    one.when(succeeded("c", 2)).and_assigned("w: run a, lease 2")
    one.when(succeeded("d", 2)).and_assigned()
    one.when(released("a", 2)).and_assigned("w: run a, lease 4")
    one.when(succeeded("a", 4)).and_assigned("w: run b, lease 2")


def test_a_job_that_is_held_back_may_be_deleted_and_changed() -> None:
    one = scene().given(limited("a"), limited("b"), limited("c"))
    one.when(DeleteJob(job_id=id_of("b"))).then("b2 Deleted")
    one.when(SetParameter(job_id=id_of("c"), name="n", value=1)).then("c2 parameter n=1")
    one.when(succeeded("a", 2)).and_assigned("w: run c, lease 3")
    assert not one.lane.pipeline.store.held


def test_what_was_held_back_is_held_back_after_a_takeover() -> None:
    one = scene().given(limited("a"), limited("b")).reloaded()
    one.when(Tick(100)).and_assigned()
    assert one.lane.pipeline.store.held == {id_of("b")}
    one.when(succeeded("a", 2)).and_assigned("w: run b, lease 2")


def test_a_lost_worker_lets_the_next_one_run() -> None:
    one = scene().given(limited("a"), limited("b")).given(Pause(15_001), worker("v", tasks=("t",)))
    one.when(Tick(0)).and_assigned("v: run a, lease 4")


def test_only_hooks_that_are_declared_are_called() -> None:
    feature = OneAtATime(Pipeline(0, 1, scene().rules))
    assert declared((feature,), "may_start") == (feature.may_start,)
    assert declared((feature,), "ended") == ()


def test_every_feature_has_its_own_records() -> None:
    prefixes = [kind.prefix for kind in FEATURES if kind.prefix is not None]
    assert len(prefixes) == len(set(prefixes))
    assert not any(a != b and a.startswith(b) for a in prefixes for b in prefixes)
