"""What the log says of a redrive: which of its commands were sent, and what became of them."""

import time
from collections.abc import Callable
from contextlib import closing
from typing import Final

from joblog.services.settings.model import Settings
from joblog.streams.progress import Told, silent
from joblog.streams.replay.lineage import CLOCKS_MS, Lineage, began_ms, job_of_command
from joblog.streams.replay.log import EventReader

#: How long to wait before the log is read on.
PAUSE_S: Final = 0.2


class RedriveLog:
    """Reads `commands` and `events` from when the redrive began; `read` and `wait_for` go on where they were."""

    def __init__(self, settings: Settings, redrive: str, told: Told = silent) -> None:
        self.redrive = redrive
        self._settings, self._told = settings, told
        self._lineage = Lineage(redrive)
        self._next: list[int] | None = None

    def sent(self) -> set[str]:
        """The jobs whose commands are in the topic `commands`, decided or not."""
        found: set[str] = set()
        mark = self.redrive.encode()

        def take(value: bytes) -> None:
            if mark in value and (job := job_of_command(self.redrive, value)) is not None:
                found.add(job)

        self._read(self._settings.names.commands, None, take)
        return found

    def read(self) -> Lineage:
        """What became of the jobs until now."""
        self._next = self._read(self._settings.names.events, self._next, self._lineage.take)
        return self._lineage

    def wait_for(self, is_done: Callable[[Lineage], bool], timeout_s: float) -> Lineage:
        """What became of the jobs when that is so, or as it is after the time."""
        deadline_s = time.monotonic() + timeout_s
        lineage = self.read()
        while not is_done(lineage) and time.monotonic() < deadline_s:
            self._told("waiting for electors", len(lineage.decided), 0)
            time.sleep(PAUSE_S)
            lineage = self.read()
        return lineage

    def _read(self, topic: str, starts: list[int] | None, take: Callable[[bytes], None]) -> list[int]:
        """Read on from these offsets (None: from when the redrive began); returns the next ones."""
        settings, began = self._settings, began_ms(self.redrive) or 0
        lanes = range(settings.lanes)
        config, name = settings.kafka.config(), f"{settings.topic_prefix}redrive"
        with closing(EventReader(config, topic, settings.lanes, client_id=name)) as reader:
            found = [reader.bounds(lane, began - CLOCKS_MS) for lane in lanes]
            if starts is not None:
                found = [(start, end) for start, (_, end) in zip(starts, found, strict=True)]
            total, done = sum(end - start for start, end in found), 0

            def progress(count: int) -> None:
                nonlocal done
                done += count
                self._told("reading the log", done, total)

            for lane, (start, end) in zip(lanes, found, strict=True):
                for value in reader.values(lane, start, end, progress):
                    take(value)
        return [end for _, end in found]
