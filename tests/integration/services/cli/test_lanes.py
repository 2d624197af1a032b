"""`joblog lanes` and what the doctor says of lanes, on a real broker."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from joblog.services.cli.app import app
from joblog.services.client.client import Client
from joblog.services.doctor.doctor import Level
from joblog.services.doctor.lanes import examine_lanes
from joblog.services.settings.model import Settings
from joblog.streams.contract.topics import TopicNames
from joblog.streams.elector.elector import Elector
from joblog.streams.elector.lane_records import LANE_KEY
from joblog.streams.errors import JoblogError
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig, producer
from joblog.streams.metrics import Meters
from typer.testing import CliRunner

from tests.support.log_comparison import read_log
from tests.support.scene import queue_in

pytestmark = pytest.mark.broker

Run = Callable[..., Any]


@pytest.fixture
def environment(kafka: KafkaConfig, topics: TopicNames, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    variables = {
        "JOBLOG_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "JOBLOG_TOPIC_PREFIX": topics.prefix,
        "JOBLOG_LANES": "2",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def lanes_command(environment: dict[str, str]) -> Run:
    """Runs `joblog lanes ...`, and gives the documents that it prints; errors are raised."""

    def run(*arguments: str, documents: bool = False) -> Any:
        output = ("--output", "json") if documents else ()
        result = CliRunner().invoke(app, ["lanes", *arguments, *output], env=environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()] if documents else result.output

    return run


class Runner:
    """An elector in this process, which can be stopped and started again."""

    def __init__(self, kafka: KafkaConfig, names: TopicNames) -> None:
        self._kafka, self._names = kafka, names
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stop.clear()
        made = Elector(self._kafka, self._names, 2, instance="lanes", meters=Meters(), health=Health("elector"))
        self._thread = threading.Thread(target=made.run, args=(self._stop,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
            assert not self._thread.is_alive()
            self._thread = None


@pytest.fixture
def elector(kafka: KafkaConfig, topics: TopicNames) -> Iterator[Runner]:
    made = Runner(kafka, topics)
    yield made
    made.stop()


def test_lanes_are_listed_before_and_while_an_elector_has_them(
    lanes_command: Run, elector: Runner, wait_until: Any
) -> None:
    assert [(row["lane"], row["condition"]) for row in lanes_command("list", documents=True)] == [
        (0, "free"), (1, "free")
    ]  # fmt: skip
    elector.start()
    wait_until(
        lambda: [row["condition"] for row in lanes_command("list", documents=True)] == ["owned", "owned"],
        30,
        "the elector to own both",
    )
    (lane,) = lanes_command("show", "1", documents=True)
    assert lane["owner"].endswith("elector-lanes")
    assert lane["code"] is None
    for order in ("reload", "skip"):
        with pytest.raises(JoblogError, match=f"lane 1 is not set aside: there is nothing to {order}"):
            lanes_command(order, "1")
    with pytest.raises(JoblogError, match="lane 1 works: there is nothing to rebuild"):
        lanes_command("rebuild", "1")
    with pytest.raises(JoblogError, match="there is no lane 2: the lanes are 0 to 1"):
        lanes_command("show", "2")


def test_a_lane_that_is_set_aside_is_a_failure_of_the_doctor_that_names_what_helps(
    kafka: KafkaConfig, topics: TopicNames, lanes_command: Run, elector: Runner, wait_until: Any
) -> None:
    elector.start()
    wait_until(lambda: lanes_command("show", "0", documents=True)[0]["condition"] == "owned", 30, "the elector")
    settings = Settings.load()
    assert [one.level for one in examine_lanes(settings)] == [Level.OK]
    sender = producer(kafka, "test")
    paused = queue_in(1, 2)
    with Client(kafka, topics, 2) as client:
        client.queues.pause(paused)
        wait_until(lambda: types_of(kafka, topics, paused) == ["queue.paused"] * 2, 30, "both lanes to pause it")
    elector.stop()
    sender.produce(topics.state, b"\xc1", "some-job", 0)
    sender.produce(topics.state, b"\xc1", LANE_KEY, 1)
    sender.flush()
    elector.start()
    wait_until(
        lambda: [row["code"] for row in lanes_command("list", documents=True)] == ["state_unreadable"] * 2, 30, "both"
    )
    found = list(examine_lanes(settings))
    assert [(one.level, one.check) for one in found] == [(Level.FAIL, "lane 0"), (Level.FAIL, "lane 1")]
    assert "'some-job'" in found[0].finding
    assert "joblog lanes skip 0" in found[0].fix
    assert "Traceback" in lanes_command("show", "0")
    assert "lane 0 works" in lanes_command("skip", "0", "--wait", "30")
    assert [row["condition"] for row in lanes_command("list", documents=True)] == ["owned", "aside"]
    with pytest.raises(JoblogError, match="lane 1 is still set aside: its record 'lane' cannot be read"):
        lanes_command("skip", "1", "--wait", "30")  # how far it was read is not known
    (dry,) = lanes_command("rebuild", "1", "--dry-run", documents=True)
    assert (dry["dry_run"], dry["live"]) == (True, 0)
    lanes_command("rebuild", "1", documents=True)
    wait_until(lambda: [one.level for one in examine_lanes(settings)] == [Level.OK], 30, "both to work")
    with Client(kafka, topics, 2) as client:
        client.queues.resume(paused)  # rejected if the state that was made anew did not know that it is paused
    both = [*["queue.paused"] * 2, *["queue.resumed"] * 2]
    wait_until(lambda: sorted(types_of(kafka, topics, paused)) == both, 30, "both lanes to resume it")


def types_of(kafka: KafkaConfig, names: TopicNames, subject: str) -> list[str]:
    events = [json.loads(record.value or b"") for record in read_log(kafka, names, 2)]
    return [event["type"] for event in events if event.get("subject") == subject]
