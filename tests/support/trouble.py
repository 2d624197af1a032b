"""An installation with a Prometheus beside it that is to get into trouble, and which alerts have fired."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from joblog.services.client.client import Client

from tests.support.prometheus import Asked

#: How long a stage of the trouble may take until its alerts fire.
STAGE_S = 30

_FILTER = """
from joblog.streams.contract.states import State

class Broken:
    name, order, states = "broken", 50, frozenset({State.ENQUEUED})

    def elect(self, job, candidate, what, now_ms):
        if job.task == "filtered":
            raise ValueError("a broken filter")
"""


def install_broken_filter(home: Path) -> None:
    """An installed package with an elect-state filter that raises for the task `filtered`."""
    (home / "broken_filter.py").write_text(_FILTER)
    package = home / "broken_filter-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-filter\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[joblog.elect_filters]\nbroken = broken_filter:Broken\n")


class Trouble:
    """What a test needs to make trouble; `labels` are those that alerts must fire with."""

    def __init__(
        self,
        installation: Any,
        asked: Asked,
        ports: dict[str, int],
        wait_until: Callable[..., Any],
        labels: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.installation, self.asked, self.wait_until = installation, asked, wait_until
        self.kafka, self.names = installation.kafka, installation.names
        self._ports, self._labels = ports, labels
        #: Alerts that fired before this do not count.
        self.began = time.time()

    def start(self, role: str, *more: str, **variables: str) -> None:
        self.installation.start(role, "--http-port", str(self._ports[role]), *more, **variables)

    def client(self, **settings: Any) -> Client:
        return Client(self.kafka, self.names, self.installation.lanes, **settings)

    def have_fired(self, *alerts: str) -> None:
        """Wait until each of these has fired."""

        def left() -> list[str]:
            fired = self.asked.fired(self.began)
            return [name for name in alerts if not any(self._is(name, labels) for labels in fired)]

        try:
            self.wait_until(lambda: not left(), STAGE_S, "alerts")
        except AssertionError as error:
            fired = self.asked.fired(self.began)
            raise AssertionError(f"these did not fire: {left()}; these did: {fired}") from error

    def _is(self, name: str, labels: dict[str, str]) -> bool:
        return labels["alertname"] == name and self._labels.get(name, {}).items() <= labels.items()
