"""What a lane keeps of bulk operations: how far each is, and that it is begun, advanced and ended once."""

import pytest
from joblog.streams.contract.controls import BulkAction, BulkOutcome
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.wire import AdvanceBulk, CancelBulk, StartBulk
from joblog.streams.lane.features.bulk import BULK_KEY, ENDED_MAX

from tests.support.scene import NOW, Scene, id_of

OPERATION = id_of("o")
START = StartBulk(
    operation=OPERATION, action=BulkAction.DELETE, filter={"task": "t"}, fence=(5,), matched=3, rate=1.0, by="ann"
)


def advance(before: int, sent: int, outcome: BulkOutcome | None = None) -> AdvanceBulk:
    return AdvanceBulk(operation=OPERATION, before=before, sent=sent, cursor=id_of("a"), outcome=outcome)


def test_an_operation_begins_advances_and_ends() -> None:
    scene = Scene().when(START).then("bulk.started o")
    scene.when(advance(0, 2)).then("bulk.advanced o 2")
    scene.reloaded().when(advance(2, 3)).then("bulk.advanced o 3")
    scene.when(advance(3, 3, BulkOutcome.DONE)).then("bulk.ended o done 3")
    scene.reloaded().when(advance(3, 4), START, CancelBulk(operation=OPERATION))
    scene.then("rejected ended", "rejected duplicate", "rejected ended")


def test_of_two_runners_one_advances() -> None:
    scene = Scene().given(START)
    scene.when(advance(0, 2), advance(0, 1)).then("bulk.advanced o 2", "rejected wrong_version")
    scene.when(advance(2, 1)).then("rejected wrong_version")


def test_an_operation_is_cancelled_where_it_is() -> None:
    scene = Scene().given(START, advance(0, 2))
    scene.when(CancelBulk(operation=OPERATION, by="bob", reason="enough"), advance(2, 3))
    scene.then("bulk.ended o cancelled 2", "rejected ended")
    event = scene.out.events[0][3]
    assert (event.by, event.reason) == ("bob", "enough")  # type: ignore[union-attr]


@pytest.mark.parametrize("command", [advance(0, 1), CancelBulk(operation=OPERATION)])
def test_an_operation_that_nobody_began_is_not_known(command: AdvanceBulk) -> None:
    Scene().when(command).then("rejected unknown_operation")


def test_an_operation_belongs_to_the_lane_of_its_id_and_has_a_fence_for_each() -> None:
    Scene(1, 2).when(START).then("rejected wrong_lane")
    Scene(0, 2).when(START).then("rejected invalid")


def test_the_last_operations_that_ended_are_remembered() -> None:
    scene = Scene()
    many = [new_job_id(0, NOW + n, 1) for n in range(ENDED_MAX + 2)]
    for one in many:
        start = StartBulk(operation=one, action=BulkAction.DELETE, fence=(5,), matched=3, rate=1.0)
        scene.when(start, CancelBulk(operation=one))
    kept = [key.removeprefix(BULK_KEY) for key in scene.kept if key.startswith(BULK_KEY)]
    assert kept == many[2:]
    scene.reloaded().when(START).then("bulk.started o")
