"""The log that the projector is measured with."""

import pytest
from joblog.services.bench import projection


@pytest.mark.parametrize("jobs", [1, 90, 1_000])
def test_every_job_gets_its_three_events_in_order(monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    monkeypatch.setattr(projection, "WAITING", 300)
    monkeypatch.setattr(projection, "RUNNING", 20)
    events: dict[int, list[int]] = {}
    for number, place in projection.order(jobs):
        events.setdefault(number, []).append(place)
    assert events == {number: [0, 1, 2] for number in range(jobs)}


def test_some_jobs_end_soon_and_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "WAITING", 300)
    monkeypatch.setattr(projection, "RUNNING", 20)
    at = {one: place for place, one in enumerate(projection.order(1_000))}
    apart = sorted({(at[number, 1] - at[number, 0]) // 100 for number in range(400)})
    assert apart[0] == 0
    assert apart[-1] >= 6
