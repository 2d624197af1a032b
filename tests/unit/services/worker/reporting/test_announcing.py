from collections.abc import Callable

import msgspec
import pytest
from joblog.services.worker.reporting.announcing import CHANGE_S, Announcer
from joblog.services.worker.reporting.outbox import Outbox
from joblog.services.worker.reporting.reporting import Reports
from joblog.services.worker.settings import WorkerSettings
from joblog.streams.contract.wire import AnyReport, WorkerAnnounced, WorkerStopping

BEGIN = 100.0
SETTINGS = WorkerSettings(queues=("a", "b", "c"), lanes=4, slots=5)
FRONT, *_ = LANES = tuple(SETTINGS.queues_of_lanes)


class RecordingOutbox(Outbox):
    """Keeps what would be sent, and the acknowledgements that the test may make."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, AnyReport]] = []
        self.acknowledge: list[Callable[[], None]] = []

    def send(self, lane: int, key: str, value: bytes) -> None:
        assert key == "w:1"
        self.sent.append((lane, msgspec.json.decode(value, type=AnyReport)))

    def renew(self, lane: int, key: str, value: bytes, acknowledged: Callable[[], None]) -> None:
        self.send(lane, key, value)
        self.acknowledge.append(acknowledged)


class Bench:
    def __init__(self) -> None:
        self.outbox = RecordingOutbox()
        self.announcer = Announcer(Reports(self.outbox), SETTINGS, "w:1", {"t": None}, BEGIN)

    def say(self, slots: int, after_s: float, *, at_once: bool = False) -> int:
        """Announce so many slots to each lane; tells how many announcements that made."""
        before = len(self.outbox.sent)
        self.announcer.announce(dict.fromkeys(LANES, slots), BEGIN + after_s, at_once=at_once)
        return len(self.outbox.sent) - before


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_first_lane_is_the_home_of_the_worker(bench: Bench) -> None:
    assert len(LANES) > 1
    bench.say(5, 0)
    said = {lane: report for lane, report in bench.outbox.sent if isinstance(report, WorkerAnnounced)}
    assert [lane for lane, report in said.items() if report.home] == [FRONT]
    assert {queue for report in said.values() for queue in report.queues} == {"a", "b", "c"}
    assert {(report.slots, report.all_slots, report.all_queues) for report in said.values()} == {
        (5, 5, ("a", "b", "c"))
    }


def test_what_did_not_change_is_said_again_only_to_renew(bench: Bench) -> None:
    assert bench.say(5, 0) == len(LANES)
    assert bench.say(5, SETTINGS.renew_s - 0.01) == 0
    assert bench.say(5, SETTINGS.renew_s) == len(LANES)


def test_a_change_is_said_soon_but_not_more_often_than_an_elector_cares_for(bench: Bench) -> None:
    bench.say(5, 0)
    assert bench.say(4, CHANGE_S / 2) == 0
    assert bench.say(4, 1.1 * CHANGE_S) == len(LANES)
    assert bench.say(3, 1.5 * CHANGE_S) == 0
    assert bench.say(3, 2.2 * CHANGE_S) == len(LANES)


def test_the_last_change_is_said_at_once(bench: Bench) -> None:
    bench.say(5, 0)
    assert bench.say(0, 0, at_once=True) == len(LANES)
    assert bench.say(0, 0, at_once=True) == 0


def test_a_worker_is_heard_when_every_lane_has_its_word(bench: Bench) -> None:
    bench.say(5, 0)
    for acknowledge in bench.outbox.acknowledge[:-1]:
        acknowledge()
    assert not bench.announcer.is_heard
    bench.outbox.acknowledge[-1]()
    assert bench.announcer.is_heard


def test_each_lanes_lease_counts_from_when_its_last_acknowledged_renewal_was_sent(bench: Bench) -> None:
    assert bench.announcer.renewed_at == dict.fromkeys(LANES, BEGIN)
    bench.say(5, 1)
    bench.say(5, 4)
    for acknowledge in bench.outbox.acknowledge[: len(LANES)]:
        acknowledge()
    assert bench.announcer.renewed_at == dict.fromkeys(LANES, BEGIN + 1)
    bench.outbox.acknowledge[-1]()
    assert bench.announcer.renewed_at == {**dict.fromkeys(LANES, BEGIN + 1), LANES[-1]: BEGIN + 4}


def test_an_acknowledgement_that_is_late_does_not_turn_the_lease_back(bench: Bench) -> None:
    bench.say(5, 1)
    bench.say(5, 4)
    for acknowledge in reversed(bench.outbox.acknowledge):
        acknowledge()
    assert bench.announcer.renewed_at == dict.fromkeys(LANES, BEGIN + 4)


def test_every_lane_hears_the_good_bye(bench: Bench) -> None:
    bench.announcer.say_good_bye()
    assert bench.outbox.sent == [(lane, WorkerStopping(worker="w:1")) for lane in LANES]
