"""Jobs in lanes where their queue does not live any more: no worker looks for them there."""

import logging
from collections import Counter
from collections.abc import Iterable

from joblog.streams.contract.states import FINAL_STATES
from joblog.streams.lane.lane import Lane
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)


class UnservedJobs:
    """Reports them when lanes were loaded, by queue; used by one elector."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._reported: set[str] = set()

    def report(self, lanes: Iterable[Lane]) -> None:
        """Count and log the jobs in these lanes, all that the elector has, that nobody serves."""
        found: Counter[str] = Counter()
        for lane in lanes:
            for queue, jobs in unserved(lane).items():
                found[queue] += jobs
                log.warning(
                    "elector.jobs_not_served",
                    extra={
                        "lane": lane.number,
                        "queue": queue,
                        "jobs": jobs,
                        "hint": "name the former number of lanes in JOBLOG_QUEUE_SHARDS_BEFORE; see `joblog doctor`",
                    },
                )
        for queue in found.keys() | self._reported:
            self._meters.set("joblog_unserved_jobs", found[queue], queue)
        self._reported |= found.keys()


def unserved(lane: Lane) -> Counter[str]:
    """How many live jobs of each queue are in this lane, although the queue does not live there."""
    strange = {queue for queue in {job.queue for job in lane.jobs.values()} if not lane.pipeline.has_queue(queue)}
    if not strange:
        return Counter()
    return Counter(job.queue for job in lane.jobs.values() if job.queue in strange and job.state not in FINAL_STATES)
