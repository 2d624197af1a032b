"""Which jobs have ended, told by their events in the order of the log."""

from collections.abc import Container
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from joblog.streams.contract.unreadable import NOT_READABLE

_FINAL: Final = frozenset({"job.succeeded", "job.failed", "job.deleted"})
_ALIVE: Final = frozenset({"job.enqueued", "job.scheduled", "job.awaiting", "job.processing"})


class _Data(msgspec.Struct):
    traversed: bool = False


class _Event(msgspec.Struct):
    type: str
    data: _Data = msgspec.field(default_factory=_Data)


_decode: Final = msgspec.json.Decoder(_Event).decode


class Watched(NamedTuple):
    """What is known of a job: whether it has ended, at an instant (when it was created, if it has not)."""

    at: datetime
    has_ended: bool = False


@dataclass(slots=True)
class Ends:
    """The jobs that are watched, and whether each has ended; `seen` are those that have had an event."""

    jobs: dict[str, bool] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def watch(self, job_id: str, *, has_ended: bool = False) -> None:
        """Watch a job from here on; one that is watched already stays as it is."""
        self.jobs.setdefault(job_id, has_ended)
        if has_ended:
            self.seen.add(job_id)

    def keep(self, jobs: Container[str]) -> None:
        """Watch no others than these."""
        self.jobs = {job_id: ended for job_id, ended in self.jobs.items() if job_id in jobs}
        self.seen &= self.jobs.keys()

    def take(self, job_id: str, value: bytes) -> None:
        """Read an event with this key; only those of watched jobs matter, and what cannot be read changes nothing."""
        if job_id not in self.jobs:
            return
        try:
            event = _decode(value)
        except NOT_READABLE:
            return  # the projector parks it and says why
        if event.type == "command.rejected":
            if job_id not in self.seen:
                self.jobs[job_id] = True  # it will not come
        elif event.type.startswith("job."):
            self.seen.add(job_id)
            if event.type in _ALIVE or event.data.traversed:
                self.jobs[job_id] = False  # also one that had ended, and was requeued
            elif event.type in _FINAL:
                self.jobs[job_id] = True
