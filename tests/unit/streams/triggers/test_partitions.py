import asyncio
from collections.abc import Awaitable, Callable

import pytest
from joblog.streams.triggers.partitions import Delivery, Partitions, Place
from joblog.streams.triggers.records import Record


class Scene:
    """Partitions whose records are handled when a test opens the gate of their partition."""

    def __init__(self, held_max: int = 1_000) -> None:
        self.gates: dict[int, asyncio.Event] = {number: asyncio.Event() for number in range(3)}
        self.handled: list[Place] = []
        self.done: list[Place] = []
        self.told: list[tuple[str, Place]] = []
        self.failures: list[BaseException] = []
        self.partitions = Partitions(
            self.handle,
            lambda place: self.told.append(("full", place)),
            lambda place: self.told.append(("room", place)),
            self.failures.append,
            held_max,
        )

    async def handle(self, record: Record) -> None:
        await self.gates[record.partition].wait()
        if record.value == b"bug":
            raise RuntimeError("bug")
        self.handled.append((str(record.partition), record.offset))

    def put(self, partition: int, offset: int, value: bytes = b"") -> None:
        record = Record("t", partition, offset, 0, None, value, [])
        self.partitions.put(Delivery(record, lambda: self.done.append((str(partition), offset))))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - the code under test has no event to wait for
                await asyncio.sleep(0)


def run(scenario: Callable[[Scene], Awaitable[None]], held_max: int = 1_000) -> None:
    async def begin() -> None:
        await scenario(Scene(held_max))

    asyncio.run(begin())


def test_a_partition_that_waits_stops_no_other_and_each_keeps_its_order() -> None:
    async def scenario(scene: Scene) -> None:
        for offset in range(3):
            scene.put(0, offset)
            scene.put(1, offset)
        scene.gates[1].set()
        await scene.until(lambda: len(scene.done) == 3)
        assert scene.done == [("1", 0), ("1", 1), ("1", 2)]
        scene.gates[0].set()
        await scene.until(lambda: len(scene.done) == 6)
        assert scene.done[3:] == [("0", 0), ("0", 1), ("0", 2)]

    run(scenario)


def test_what_was_dropped_is_not_handled_and_not_done() -> None:
    async def scenario(scene: Scene) -> None:
        scene.put(0, 0)
        scene.put(0, 1)
        await asyncio.sleep(0)
        await scene.partitions.drop()
        scene.gates[0].set()
        scene.put(0, 0)
        await scene.until(lambda: bool(scene.done))
        assert scene.done == [("0", 0)]
        assert scene.failures == []

    run(scenario)


def test_a_full_partition_is_stopped_until_half_is_handled() -> None:
    async def scenario(scene: Scene) -> None:
        for offset in range(4):
            scene.put(0, offset)
        assert scene.told == [("full", ("t", 0))]
        scene.gates[0].set()
        await scene.until(lambda: len(scene.done) == 4)
        assert scene.told == [("full", ("t", 0)), ("room", ("t", 0))]

    run(scenario, held_max=4)


def test_an_unforeseen_error_is_told_and_its_record_is_not_done() -> None:
    async def scenario(scene: Scene) -> None:
        scene.gates[0].set()
        scene.put(0, 0, b"bug")
        scene.put(0, 1)
        await scene.until(lambda: bool(scene.failures))
        assert (str(scene.failures[0]), scene.done) == ("bug", [])

    run(scenario)


@pytest.mark.parametrize("opens", [True, False])
def test_finishing_waits_for_what_is_being_handled_and_begins_nothing_more(opens: bool) -> None:
    async def scenario(scene: Scene) -> None:
        scene.put(0, 0)
        scene.put(0, 1)
        await asyncio.sleep(0)
        if opens:
            asyncio.get_running_loop().call_later(0.02, scene.gates[0].set)
        await scene.partitions.finish(2.0 if opens else 0.05)
        assert scene.done == ([("0", 0)] if opens else [])
        await scene.partitions.drop()

    run(scenario)
