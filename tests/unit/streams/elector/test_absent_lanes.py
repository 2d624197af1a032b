"""Records that name a lane which is not there: nothing is written to it, since no broker would ever take that."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any, Final

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode
from joblog.streams.elector.writer import Writer
from joblog.streams.lane.output import Budget, LaneOutput

from tests.support.memory_broker import NAMES, MemoryBroker, MemoryElector
from tests.support.mutations import Written
from tests.support.real_records import LANES, Producers, lane_of
from tests.support.scene import id_of

TURNS: Final = 150
#: In the place of the lane's twelve bits in an id, and of its number in a field.
BEYOND: Final = (LANES, 4095)


def astray(value: Any, lane: int) -> Iterator[Any]:
    """The value with one of its ids, or of the numbers that may be a lane, so that it names that lane instead."""
    if isinstance(value, dict):
        for name, one in value.items():
            for changed in astray(one, lane):
                yield {**value, name: changed}
            if "lane" in name and isinstance(one, int):
                yield {**value, name: lane}
            if name == "lanes" and one:
                yield {**value, name: [*one, lane]}
    elif isinstance(value, list):
        for place, one in enumerate(value):
            for changed in astray(one, lane):
                yield [*value[:place], changed, *value[place + 1 :]]
    elif isinstance(value, str) and len(value) == 36 and value[14] == "8" and value.count("-") == 4:
        yield f"{value[:15]}{lane:03x}{value[18:]}"


def sent(broker: MemoryBroker, one: Written, random: Random) -> None:
    broker.append(f"{NAMES.prefix}{one.topic}", lane_of(one, random), one.key, one.value, one.headers)


@pytest.mark.parametrize("seed", range(4))
def test_no_id_and_no_number_of_a_lane_leads_beyond_the_lanes(seed: int) -> None:
    """The broker of this test refuses what Kafka refuses; after each turn an elector has told all that it has to."""
    broker, random = MemoryBroker(LANES), Random(seed)
    elector, producers, kinds = MemoryElector(broker), Producers(broker, random), set[str]()

    def told() -> Written:
        """What a lane tells another of jobs that live."""
        live = [job_id for lane in elector.lanes.values() for job_id in lane.jobs] or producers.jobs
        job_id, other = random.choice(live), random.choice(live)
        report = producers.features.report(job_id, other, random.randrange(LANES))
        return Written("reports", str(getattr(report, "job_id", "k")).encode(), encode(report))

    for turn in range(TURNS):
        made = [producers.command() for _ in range(6)] + [producers.report() for _ in range(6)]
        for real in made + [told() for _ in range(20)]:
            try:
                value = json.loads(real.value or b"")
            except ValueError:
                continue
            for changed in astray(value, random.choice(BEYOND)):
                kinds.add(value.get("type") or dict(real.headers)["ce_type"].decode())
                sent(broker, Written(real.topic, real.key, json.dumps(changed).encode(), real.headers), random)
            sent(broker, real, random)
        if turn % 20 < 15:
            for lane in range(LANES):
                broker.append(NAMES.reports, lane, b"w", encode(producers.announced(lane)), None)
        elector.turn()
        broker.now_ms += random.choice([50, 500, 3_000, 61_000])
    for number, lane in elector.lanes.items():
        assert elector.reloaded(number).jobs == lane.jobs
    expected = {"job.create", "job.requeue", "batch.create", "continuation.unmet", "parent.ended", "limit.asked"}
    assert expected <= kinds


def test_a_report_to_an_absent_lane_is_refused_before_it_is_produced() -> None:
    """Its delivery would fail with the whole transaction, and nobody would know which record had led to it."""
    broker = MemoryBroker(LANES)
    writer = Writer(broker, LANES, NAMES, {}, {})  # type: ignore[arg-type]
    out = LaneOutput(budget=Budget())
    child = id_of("c", LANES)
    out.reports.append((LANES, child, wire.ParentRequeued(job_id=child, parent=id_of("p"))))
    with pytest.raises(ValueError, match=f"parent.requeued about {child} is for lane {LANES}, and there are only"):
        writer.output(0, out, broker.now_ms)
    assert not broker.logs[NAMES.reports, LANES]
