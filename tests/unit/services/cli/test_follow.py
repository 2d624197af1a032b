"""What `joblog job follow` prints of each event, and when it ends."""

from datetime import UTC, datetime
from typing import Any

import pytest
from joblog.projections.monitor.models import HistoryEntry
from joblog.services.cli.commands import follow
from joblog.services.cli.commands.follow import EXIT_CODES, followed, told
from joblog.streams.contract.states import FINAL_STATES, State
from joblog.streams.errors import JoblogError


def entry(kind: str, state: State, version: int = 1, **fields: Any) -> HistoryEntry:
    usual: dict[str, Any] = {"traversed": False, "attempt": 1, "reason": None, "data": {}, "lane": 0, "log_offset": 0}
    at = datetime(2027, 1, 15, 8, 1, 2, tzinfo=UTC)
    return HistoryEntry(**usual | {"version": version, "type": kind, "state": state, "at": at} | fields)


@pytest.mark.parametrize(
    ("event", "lines"),
    [
        (entry("job.processing", State.PROCESSING), ["08:01:02  Processing, attempt 1"]),
        (entry("job.failed", State.FAILED, reason="ValueError: no"), ["08:01:02  Failed: ValueError: no"]),
        (
            entry("job.progressed", State.PROCESSING, reason="page 4", data={"progress": 0.4, "lines": ["a", "b"]}),
            ["08:01:02  | a", "08:01:02  | b", "08:01:02   40%  page 4"],
        ),
        (entry("job.progressed", State.PROCESSING, data={"lines": ["a"]}), ["08:01:02  | a"]),
        (entry("job.progressed", State.PROCESSING, data={"progress": 1.0}), ["08:01:02  100%"]),
        (entry("job.held", State.ENQUEUED, reason="waits"), ["08:01:02  held: waits"]),
    ],
)
def test_an_event_is_a_line_or_several(event: HistoryEntry, lines: list[str]) -> None:
    assert list(told(event)) == lines


class Told:
    """A monitor that knows one more event each time it is asked."""

    def __init__(self, *events: HistoryEntry) -> None:
        self._events, self._asked = events, 0

    def events_after(self, _job_id: str, version: int, _limit: int) -> list[HistoryEntry]:
        self._asked += 1
        return [event for event in self._events[: self._asked] if event.version > version]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL_S", 0.0)


def test_a_job_is_followed_to_its_end_over_failures_that_are_retried() -> None:
    monitor: Any = Told(
        entry("job.processing", State.PROCESSING, 2),
        entry("job.failed", State.FAILED, 3, traversed=True),
        entry("job.scheduled", State.SCHEDULED, 4),
        entry("job.succeeded", State.SUCCEEDED, 5),
    )
    assert [one.version for one in followed(monitor, "j", 10.0)] == [2, 3, 4, 5]


def test_a_job_that_does_not_appear_is_not_waited_for_for_ever() -> None:
    monitor: Any = Told()
    with pytest.raises(JoblogError, match=r"there is no job j after 0\.01 s"):
        list(followed(monitor, "j", 0.01))


def test_each_end_has_an_exit_code_of_its_own() -> None:
    assert EXIT_CODES.keys() == FINAL_STATES
    assert len(set(EXIT_CODES.values())) == len(FINAL_STATES)
    assert 1 not in EXIT_CODES.values()  # the command's own errors
