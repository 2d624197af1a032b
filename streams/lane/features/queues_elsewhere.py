"""Queues of which this lane has jobs although they do not live here: their workers are told to serve this lane, too.

A job never leaves its lane, which its id names; but it may stand in any queue: it was moved there, or created by a
client that spreads the queue over more lanes. The workers of a queue announce themselves to the lanes where it lives.
So the lane reports to the queue's first lane that it has jobs of it, and that one tells its workers, who announce
themselves here. All of this is repeated while such jobs come or wait, and ends by itself: nothing is kept in `state`,
and whatever is lost with an elector or a worker is said again within `AGAIN_MS`.
"""

from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_queue
from joblog.streams.lane.feature import Feature
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election

#: How often the first lane hears of a queue; so long a worker that has just started may not know of this lane.
AGAIN_MS: Final = 5_000
#: How many queues are reported at once; the others follow in the next ticks.
REPORTED_MAX: Final = 200


class QueuesElsewhere(Feature):
    """The queues that were reported to their first lanes within `AGAIN_MS`, and those with jobs since then."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self._reported_ms: dict[str, int] = {}
        self._used: set[str] = set()
        self._clock_ms = 0

    def loaded(self, clock_ms: int) -> None:
        self._clock_ms = clock_ms

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        self._clock_ms = election.clock_ms
        if self._reported_ms:
            self._report_again(out)
        self.turn_ended(out)

    def turn_ended(self, out: LaneOutput) -> None:
        """Report the queues that became ready, at once if they are new."""
        elsewhere = self.pipeline.store.elsewhere
        if not elsewhere:
            return
        for queue in tuple(elsewhere):
            if queue in self._reported_ms:
                self._used.add(queue)
            elif len(out.reports) < REPORTED_MAX:
                self._report(queue, out)
            else:
                continue
            elsewhere.remove(queue)

    def _report_again(self, out: LaneOutput) -> None:
        ready, over_ms = self.pipeline.store.ready, self._clock_ms - AGAIN_MS
        for queue in [queue for queue, at_ms in self._reported_ms.items() if at_ms <= over_ms][:REPORTED_MAX]:
            if queue in self._used or len(ready.get(queue, ())) > 0:  # the queue's entry may outlast its jobs
                self._report(queue, out)
            else:
                del self._reported_ms[queue]

    def _report(self, queue: str, out: LaneOutput) -> None:
        self._used.discard(queue)
        self._reported_ms[queue] = self._clock_ms
        home, number = lane_of_queue(queue, self.pipeline.lanes), self.pipeline.number
        out.reports.append((home, queue, wire.QueueElsewhere(queue=queue, lane=number)))
