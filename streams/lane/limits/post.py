"""What a lane says to the owners of limits in other lanes, and which of its questions are still open.

What it asked for, and has not started, is void once the lane is loaded anew. It tells so those whom it asked before
it says anything else, and numbers its questions anew, so that no late answer to an old one counts.
"""

from typing import Final

from joblog.streams.contract import wire
from joblog.streams.lane.job import Job
from joblog.streams.lane.limits.claims import id_of, limits_of, owner_of
from joblog.streams.lane.output import LaneOutput
from msgspec import Struct

ASKER_KEY: Final = "asker"


class Asker(Struct, array_like=True, gc=False, tag="asker"):
    """The record of a lane that asks others.

    - epoch: how often the lane was loaded after it had asked. lanes: whom it has asked since then.
    """

    epoch: int
    lanes: tuple[int, ...] = ()


class Post:
    """The questions and other messages of lane `number`; `key` is that of its record."""

    __slots__ = ("_asker", "_asks", "_forgotten", "_key", "_lanes", "_number")

    def __init__(self, number: int, lanes: int, key: str) -> None:
        self._number, self._lanes, self._key = number, lanes, key
        self._asker = Asker(0)
        self._asks = 0
        #: Owners that are to hear that what this lane asked for is void.
        self._forgotten: tuple[int, ...] = ()

    def load(self, value: Asker) -> None:
        """Load the record: all that was asked is void."""
        self._asker, self._forgotten = Asker(value.epoch + 1), value.lanes

    def is_own(self, limit: wire.Limit) -> bool:
        """Whether this lane owns a limit."""
        return owner_of(id_of(limit), self._lanes) == self._number

    def is_owned_by(self, lane: int, limit: wire.Limit) -> bool:
        """Whether that lane owns a limit."""
        return owner_of(id_of(limit), self._lanes) == lane

    def is_open(self, answer: wire.LimitGranted | wire.LimitWaits, ask: int) -> bool:
        """Whether this answers the question of this number."""
        return (answer.epoch, answer.ask) == (self._asker.epoch, ask)

    def ask(self, limit: wire.Limit, job: Job, out: LaneOutput) -> int:
        """Ask for a limit, as the job defines it; returns the number of the question."""
        lane = owner_of(id_of(limit), self._lanes)
        self.forget(out)
        if lane not in self._asker.lanes:
            self._asker = Asker(self._asker.epoch, (*self._asker.lanes, lane))
            out.state[self._key] = self._asker
        self._asks += 1
        question = wire.LimitAsked(
            job_id=job.id,
            limit=next(own for own in limits_of(job) if id_of(own) == id_of(limit)),
            epoch=self._asker.epoch,
            ask=self._asks,
            priority=job.priority,
            created_ms=job.created_ms,
        )
        out.reports.append((lane, job.id, question))
        return self._asks

    def send(self, limit: wire.Limit, report: wire.LimitStarted | wire.LimitReleased, out: LaneOutput) -> None:
        """Tell the owner of a limit something."""
        self.forget(out)
        out.reports.append((owner_of(id_of(limit), self._lanes), report.job_id, report))

    def forget(self, out: LaneOutput) -> None:
        """Tell those that are to hear it that what they were asked is void."""
        if self._forgotten:
            for lane in self._forgotten:
                self.withdraw(lane, out)
            self._forgotten = ()
            out.state[self._key] = self._asker

    def withdraw(self, lane: int, out: LaneOutput, rebuild: int = 0) -> None:
        """Tell one owner that what it was asked is void, in answer to its rebuild if there was one."""
        out.reports.append((lane, str(lane), wire.LimitsForgotten(lane=self._number, rebuild=rebuild)))
