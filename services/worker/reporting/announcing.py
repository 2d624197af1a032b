"""The worker's announcements: one to each of its lanes, renewed, and at once when something changes."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from math import inf
from secrets import token_hex
from socket import gethostname
from typing import Final

from joblog.services.worker.assignments import partition_of
from joblog.services.worker.reporting.reporting import Reports
from joblog.services.worker.settings import WorkerSettings
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.wire import WorkerAnnounced

#: Shortest time between two announcements to one lane, so that a lowered one does not talk all the time.
CHANGE_S: Final = 0.1


def new_worker_id(name: str) -> str:
    """Another one for each time that the worker starts, or starts again after it lost its lease."""
    return f"{name}:{os.getpid()}:{token_hex(4)}"


class Announcer:
    """Says what the worker offers, and knows since when Kafka has its last word."""

    def __init__(
        self, reports: Reports, settings: WorkerSettings, worker: str, tasks: Mapping[str, Retry | None], now: float
    ) -> None:
        self._reports = reports
        self._settings = settings
        self._lanes = settings.queues_of_lanes
        self._home = next(iter(self._lanes))
        self._worker = worker
        self._tasks = tuple(sorted(tasks))
        self._policies = {name: retry for name, retry in tasks.items() if retry is not None}
        self._started_at = datetime.now(UTC)
        self._offered: dict[int, int] = {}
        self._sent_at = dict.fromkeys(self._lanes, -inf)
        self._renewed_at: dict[int, float] = dict.fromkeys(self._lanes, now)
        self._heard: set[int] = set()

    @property
    def lanes(self) -> tuple[int, ...]:
        """In the order of the worker's queues."""
        return tuple(self._lanes)

    @property
    def renewed_at(self) -> Mapping[int, float]:
        """When the last acknowledged renewal of each lane was sent."""
        return self._renewed_at

    @property
    def is_heard(self) -> bool:
        """Whether Kafka has an announcement to every lane."""
        return len(self._heard) == len(self._lanes)

    def announce(self, offers: Mapping[int, int], now: float, *, at_once: bool = False) -> None:
        """Tell each lane its offer if it changed, or if it is time to renew."""
        for lane, slots in offers.items():
            age = now - self._sent_at[lane]
            is_changed = slots != self._offered.get(lane)
            if age >= self._settings.renew_s or (is_changed and (at_once or age >= CHANGE_S)):
                self._offered[lane] = slots
                self._sent_at[lane] = now
                self._reports.announce(lane, self._message(lane, slots), partial(self._acknowledged, lane, now))

    def say_good_bye(self) -> None:
        for lane in self._lanes:
            self._reports.stopping(lane, self._worker)

    def _acknowledged(self, lane: int, sent_at: float) -> None:
        self._heard.add(lane)
        self._renewed_at[lane] = max(self._renewed_at[lane], sent_at)

    def _message(self, lane: int, slots: int) -> WorkerAnnounced:
        return WorkerAnnounced(
            worker=self._worker,
            partition=partition_of(self._worker),
            queues=self._lanes[lane],
            all_queues=self._settings.queues,
            slots=slots,
            all_slots=self._settings.slots,
            tasks=self._tasks,
            host=gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            home=lane == self._home,
            policies=self._policies,
        )
