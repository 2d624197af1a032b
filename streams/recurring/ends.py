"""Which jobs have ended, told by their events in the order of the log."""

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Final

import msgspec

_FINAL: Final = frozenset({"job.succeeded", "job.failed", "job.deleted"})


class _Data(msgspec.Struct):
    traversed: bool = False


class _Event(msgspec.Struct):
    type: str
    data: _Data = msgspec.field(default_factory=_Data)


_decode: Final = msgspec.json.Decoder(_Event).decode


@dataclass(slots=True)
class Ends:
    """The jobs that are watched, and whether each has ended; `seen` are those that have had an event."""

    jobs: dict[str, bool] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def watch(self, job_id: str) -> None:
        """Watch a job from here on; one that is watched already stays as it is."""
        self.jobs.setdefault(job_id, False)

    def keep(self, jobs: Container[str]) -> None:
        """Watch no others than these."""
        self.jobs = {job_id: ended for job_id, ended in self.jobs.items() if job_id in jobs}
        self.seen &= self.jobs.keys()

    def take(self, job_id: str, value: bytes) -> None:
        """Read an event with this key; only those of watched jobs matter, and what cannot be read changes nothing."""
        if self.jobs.get(job_id) is not False:
            return
        try:
            event = _decode(value)
        except msgspec.DecodeError:
            return  # the projector parks it and says why
        if event.type == "command.rejected":
            # Rejected, and never seen: this job will not come.
            self.jobs[job_id] = job_id not in self.seen
        elif event.type.startswith("job."):
            self.seen.add(job_id)
            self.jobs[job_id] = event.type in _FINAL and not event.data.traversed
