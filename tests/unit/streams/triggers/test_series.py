from types import SimpleNamespace
from typing import Any

from joblog.streams.contract.topics import TopicNames
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.patience import Patience
from joblog.streams.triggers.process import Triggers


def test_what_will_be_counted_is_exported_before_it_is() -> None:
    meters = Meters(role="triggers")
    functions: list[Any] = [SimpleNamespace(name="uploaded"), SimpleNamespace(name="ordered")]
    Triggers(
        KafkaConfig("127.0.0.1:1"),
        TopicNames("t."),
        functions,
        ["uploads", "orders"],
        group="g",
        start_at_end=False,
        patience=Patience(),
        meters=meters,
        health=Health("triggers"),
    )
    found = meters.registry.get_sample_value
    assert found("joblog_trigger_events_total", {"topic": "orders"}) == 0
    for name in ("joblog_trigger_jobs_total", "joblog_trigger_errors_total"):
        assert found(name, {"trigger": "ordered"}) == found(name, {"trigger": "uploaded"}) == 0
