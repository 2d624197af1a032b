"""Every metric of the table is set somewhere, in the roles that export it, and no other name is used."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from joblog.streams.metrics import METRICS, Metric

ROOT = Path(__file__).resolve().parents[3]
#: Where code runs in one role only; what is elsewhere may run in several.
ROLES = {
    "streams/elector": "elector",
    "streams/lane": "elector",
    "streams/delays": "delays",
    "projections/projector": "projector",
    "services/worker": "worker",
    "streams/recurring": "recurring",
    "streams/triggers": "triggers",
    "projections/outbox": "outbox",
    "streams/hooks": "hooks",
}
#: Where names are read and not set.
READERS = ("streams/metrics.py", "services/monitoring")


def names_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("joblog_"):
            yield node.value


def uses() -> dict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for part in ("streams", "projections", "services"):
        for path in sorted((ROOT / part).rglob("*.py")):
            place = str(path.relative_to(ROOT))
            if not place.startswith(READERS):
                for name in names_in(path):
                    found[name].add(place)
    return found


USES = uses()


@pytest.mark.parametrize("row", METRICS, ids=lambda row: row.name)
def test_each_metric_is_set_where_it_is_exported(row: Metric) -> None:
    assert USES.get(row.name), "no code sets it"
    for place in USES[row.name]:
        role = next((role for start, role in ROLES.items() if place.startswith(start)), None)
        assert not row.roles or role is None or role in row.roles, f"{place} sets it, where it is not exported"


def test_no_other_name_is_used() -> None:
    assert {name for name in USES if name.endswith(("_total", "_seconds"))} <= {row.name for row in METRICS}


@pytest.mark.parametrize("row", METRICS, ids=lambda row: row.name)
def test_names_follow_the_conventions_of_prometheus(row: Metric) -> None:
    assert (row.kind == "counter") == row.name.endswith("_total")
    assert row.kind != "histogram" or row.name.endswith("_seconds")
    assert row.kind != "gauge" or not row.name.endswith("_seconds") or row.name.endswith("_timestamp_seconds")
    assert not {"job", "instance", "id", "job_id"} & set(row.labels)
    assert set(row.values) <= set(row.labels)
    assert row.help[0].isupper() or row.help[0].isdigit()
