"""The continuations of a lane's jobs, and those whose parent nobody has created yet."""

from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.states import ContinueOn
from joblog.streams.lane.job import Job
from joblog.streams.lane.jobs import LaneJobs
from joblog.streams.lane.outbox import Outbox
from joblog.streams.lane.verdicts import CONTINUATIONS_MAX, verdict
from msgspec import structs

PENDING_KEY: Final = "pending:"


class LaneContinuations(LaneJobs):
    """Jobs that wait for others, told when those end; built on `LaneJobs`."""

    def _continuation(self, link: wire.ContinuationAdded, now_ms: int, out: Outbox) -> None:
        parent = self.jobs.get(link.job_id)
        if parent is not None:
            self._wait_or_tell(parent, link.child, link.on, out)
            return
        remembered = self.ended.get(link.job_id)
        if remembered is not None:
            self._tell(link.job_id, remembered[0], link.child, link.on, out)
            return
        # The parent's own command may not have been read yet, for it lies in another partition.
        waiting = self._pending.get(link.job_id, ())
        if len(waiting) >= CONTINUATIONS_MAX:
            self._turn_away(link.job_id, link.child, out)
            return
        self._pending[link.job_id] = (*waiting, (link.child, link.on.value, now_ms))
        out.state[PENDING_KEY + link.job_id] = self._pending[link.job_id]

    def _adopt(self, parent: Job, out: Outbox) -> None:
        links = self._pending.pop(parent.id)
        parent.continuations = tuple(dict.fromkeys((child, ContinueOn(on)) for child, on, _ in links))
        out.state[PENDING_KEY + parent.id] = None

    def _wait_or_tell(self, parent: Job, child: str, on: ContinueOn, out: Outbox) -> None:
        if verdict(on, parent.state) != "wait":
            self._tell(parent.id, parent.state, child, on, out)
        elif (child, on) in parent.continuations:
            pass  # said twice
        elif len(parent.continuations) >= CONTINUATIONS_MAX:
            self._turn_away(parent.id, child, out)
        else:
            waiting = structs.replace(parent, continuations=(*parent.continuations, (child, on)))
            self.jobs[parent.id] = out.state[parent.id] = waiting

    def _give_up(self, parent: str, out: Outbox) -> None:
        for child, _, _ in self._pending.pop(parent):
            why = f"Job {parent} is unknown: it was never created, or ended too long ago"
            self._turn_away(parent, child, out, why)
        out.state[PENDING_KEY + parent] = None
