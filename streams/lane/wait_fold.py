"""The records of those who wait for the jobs of a lane, when `state` is made anew.

What waits for a parent that has ended was told of it, or is still to be: it is told once more, which does no harm.
"""

from collections.abc import Iterable, Mapping

from joblog.streams.contract.states import ContinueOn
from joblog.streams.lane.features.more_continuations import PENDING_KEY, ManyTold, MoreWait
from joblog.streams.lane.features.sought_parents import Link
from joblog.streams.lane.job import Job
from joblog.streams.lane.output import StateValue
from joblog.streams.lane.parents import carried
from joblog.streams.lane.verdicts import LISTED_MAX, verdict
from msgspec import json


def wait_records(
    waits: Iterable[tuple[str, str, ContinueOn]], jobs: Mapping[str, Job], ended: Mapping[str, Job], now_ms: int
) -> dict[str, StateValue]:
    """The records for these waits (child, parent, what for); what is listed in the parent's own is added to that."""
    records: dict[str, StateValue] = {}
    pending: dict[str, list[Link]] = {}
    for child, parent, on in waits:
        job = jobs.get(parent) or ended.get(parent)
        if job is None:
            links = pending.setdefault(parent, [])
            if len(links) < LISTED_MAX:
                links.append(Link(child, on.value, now_ms))
                continue
        elif verdict(on, job.state) == "wait":
            if len(job.continuations) < LISTED_MAX:
                job.continuations = (*job.continuations, (child, on))
                continue
        else:
            outcome = json.encode(carried(None, job.state))
            records[f"{PENDING_KEY}{parent}/"] = ManyTold(outcome, is_last=parent in ended)
        records[f"{PENDING_KEY}{parent}/{child}"] = MoreWait(on)
    records.update((PENDING_KEY + parent, tuple(links)) for parent, links in pending.items())
    return records
