"""Whatever names come in, the number of series stays below the caps, and the rest is counted as `other`."""

from math import prod

import pytest
from joblog.streams.contract.ids import LANES_MAX
from joblog.streams.label_cap import OTHER
from joblog.streams.metrics import (
    METRICS,
    PAIRS_PER_NAME,
    PARTITIONS_MAX,
    QUEUES_MAX,
    TASKS_MAX,
    VALUES_MAX,
    Meters,
    Metric,
)

NAMES = 10_000
CAPS = {"queue": QUEUES_MAX, "task": TASKS_MAX, "partition": PARTITIONS_MAX}
ROLES = sorted({role for row in METRICS for role in row.roles})
#: Each metric with labels in each role that exports it.
EXPORTED = [(role, row) for row in METRICS for role in row.roles or ROLES if row.labels]

Series = dict[tuple[str, ...], float]


def cap_of(label: str) -> int:
    return CAPS.get(label, VALUES_MAX)


def series_of(meters: Meters, row: Metric) -> Series:
    """The values of a metric by its labels; of a histogram how much was observed."""
    name = f"{row.name}_count" if row.kind == "histogram" else row.name
    return {
        tuple(sample.labels[label] for label in row.labels): sample.value
        for family in meters.registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def feed(meters: Meters, row: Metric, *labels: str) -> None:
    if row.kind == "histogram":
        meters.observe_all(row.name, [1.0], *labels)
    else:
        meters.inc(row.name, *labels)


@pytest.mark.parametrize(("role", "row"), EXPORTED, ids=[f"{role}-{row.name}" for role, row in EXPORTED])
def test_no_label_is_unbounded(role: str, row: Metric) -> None:
    meters = Meters(role=role)
    known = len(series_of(meters, row))
    for number in range(NAMES):
        feed(meters, row, *(f"{label} {number}" for label in row.labels))
    found = series_of(meters, row)
    widest = max(map(cap_of, row.labels))
    assert widest < len(found) + 20  # names are told apart up to the cap, of which the known values take a few
    assert len(found) <= widest + 1 + known
    assert sum(found.values()) == NAMES
    assert found[(OTHER,) * len(row.labels)] >= NAMES - widest


@pytest.mark.parametrize("row", [row for row in METRICS if row.labels[:2] == ("queue", "task")], ids=lambda r: r.name)
def test_pairs_of_queues_and_tasks_are_bounded_too(row: Metric) -> None:
    meters = Meters(role=row.roles[0], queues_max=10, tasks_max=20)
    rest = [values[0] for values in map(row.values.get, row.labels[2:]) if values] or ["Failed"] * len(row.labels[2:])
    for number in range(NAMES):
        feed(meters, row, f"q{number % 30}", f"t{number // 30}", *rest)
    found = series_of(meters, row)
    pairs = PAIRS_PER_NAME * 20
    assert pairs < len(found) <= pairs + 11
    assert sum(found.values()) == NAMES
    assert found["q3", "t2", *rest] == 1
    assert found["q3", OTHER, *rest] > 1


@pytest.mark.parametrize(
    "row", [row for row in METRICS if row.kind == "gauge" and row.labels], ids=lambda row: row.name
)
def test_gauges_that_are_replaced_are_bounded(row: Metric) -> None:
    meters = Meters(role=(row.roles or ROLES)[0])
    meters.replace(row.name, [(tuple(f"{label} {number}" for label in row.labels), 1.0) for number in range(NAMES)])
    found = series_of(meters, row)
    assert len(found) <= prod(cap_of(label) + 1 for label in row.labels)
    assert found[(OTHER,) * len(row.labels)] >= NAMES - max(map(cap_of, row.labels))


def test_there_are_as_many_partitions_as_lanes_can_be() -> None:
    assert PARTITIONS_MAX == LANES_MAX
