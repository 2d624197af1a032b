import json
from collections.abc import Iterator
from http.client import HTTPResponse
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from joblog.services.roles.http import HttpServer, application
from joblog.streams.errors import SettingsError
from joblog.streams.health import Health
from joblog.streams.metrics import Meters


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health("elector", stall_s=10, clock=clock)


@pytest.fixture
def meters() -> Meters:
    return Meters()


@pytest.fixture
def url(meters: Meters, health: Health) -> Iterator[str]:
    with HttpServer(application(meters, health), "127.0.0.1", 0) as server:
        yield server.url


def get(url: str, method: str = "GET") -> tuple[int, str]:
    try:
        response: HTTPResponse
        with urlopen(Request(url, method=method), timeout=10) as response:  # noqa: S310 - our own server
            return response.status, response.read().decode()
    except HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def test_a_role_is_ready_when_it_says_so(url: str, health: Health) -> None:
    status, body = get(f"{url}/readyz")
    assert (status, json.loads(body)) == (503, {"role": "elector", "ready": False, "reason": "starting"})
    health.set_ready()
    status, body = get(f"{url}/readyz")
    assert (status, json.loads(body)) == (200, {"role": "elector", "ready": True, "reason": ""})


def test_a_role_lives_while_its_loop_turns(url: str, health: Health, clock: Clock) -> None:
    assert get(f"{url}/livez")[0] == 200
    clock.now = 11
    assert get(f"{url}/livez")[0] == 503
    health.beat()
    assert get(f"{url}/livez")[0] == 200


def test_metrics_are_those_of_this_process(url: str, meters: Meters) -> None:
    meters.set("joblog_lanes", 3)
    status, body = get(f"{url}/metrics")
    assert status == 200
    assert "\njoblog_lanes 3.0\n" in body


@pytest.mark.parametrize(
    ("accepted", "has_exemplars"),
    [
        ("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75", True),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", False),
        ("*/*", False),
        (None, False),
    ],
)
def test_exemplars_are_in_the_format_of_openmetrics_only(
    url: str, meters: Meters, accepted: str | None, has_exemplars: bool
) -> None:
    meters.observe_all("joblog_job_wait_seconds", [0.2], "mails", "send", trace=(0.2, "4bf92f35"))
    headers = {} if accepted is None else {"Accept": accepted}
    with urlopen(Request(f"{url}/metrics", headers=headers), timeout=10) as response:  # noqa: S310 - our own server
        kind, body = response.headers["Content-Type"], response.read().decode()
    assert kind.startswith("application/openmetrics-text") == has_exemplars
    assert ("# {" in body) == ("4bf92f35" in body) == has_exemplars
    assert 'joblog_job_wait_seconds_bucket{le="0.25",queue="mails",task="send"} 1.0' in body


def test_the_version_tells_what_runs(url: str) -> None:
    told = json.loads(get(f"{url}/version")[1])
    assert set(told) == {"role", "version", "python", "librdkafka"}


def test_other_pages_and_methods_are_refused(url: str) -> None:
    assert get(f"{url}/")[0] == 404
    assert get(f"{url}/livez", "POST")[0] == 405


def test_a_taken_port_is_told_by_the_variable(url: str, meters: Meters, health: Health) -> None:
    taken = int(url.rpartition(":")[2])
    with pytest.raises(SettingsError, match="JOBLOG_HTTP__PORT"):
        HttpServer(application(meters, health), "127.0.0.1", taken)
