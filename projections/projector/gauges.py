"""What there is, as gauges: read from the tables every few seconds, by the process that keeps them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
from joblog.projections.statements import load
from joblog.streams.contract.states import FINAL_STATES, State
from joblog.streams.metrics import Meters

_SQL: Final = load("projector/gauges.sql")
#: In the order of a job's life.
LIVE_STATES: Final = tuple(state for state in State if state not in FINAL_STATES)
#: The states of batches that have not ended.
OPEN_BATCHES: Final = (State.AWAITING, State.PROCESSING)
#: Of so many queues the oldest job is looked for: those where most jobs wait.
QUEUES_MAX: Final = 200


def show(connection: psycopg.Connection[Any], lanes: Sequence[int], meters: Meters) -> None:
    """Export the gauges of these lanes; another projector does so for its own lanes."""
    chosen = {"lanes": lanes, "states": list(LIVE_STATES), "queues_max": QUEUES_MAX}
    with connection.transaction(), connection.pipeline():
        connection.execute(_SQL["limit"])
        jobs, oldest, workers, served, paused, batches = (
            connection.execute(_SQL[name], chosen, prepare=False)
            for name in ("jobs", "oldest", "workers", "queue_workers", "paused", "batches")
        )
        found = {(queue, state): n for queue, state, n in jobs}
        # The biggest queues come first, so that they have names of their own if there are more than the cap.
        queues = dict.fromkeys(queue for queue, _ in found)
        meters.replace(
            "joblog_jobs",
            [((queue, state), float(found.get((queue, state), 0))) for queue in queues for state in LIVE_STATES],
        )
        meters.replace("joblog_queue_oldest_job_timestamp_seconds", [((q,), at) for q, at in oldest], min)
        ((running, slots),) = workers
        meters.set("joblog_workers", running)
        meters.set("joblog_slots", slots)
        meters.replace("joblog_queue_paused", [((queue,), float(n)) for queue, n in paused])
        rows = served.fetchall()
        meters.replace("joblog_queue_workers", [((queue,), float(n)) for queue, n, _ in rows])
        meters.replace("joblog_queue_slots", [((queue,), float(n)) for queue, _, n in rows])
        _show_batches({state: said for state, *said in batches}, meters)


def _show_batches(found: Mapping[str, Sequence[float]], meters: Meters) -> None:
    """By state of batches: how many, when the oldest was created, and when that one last moved that moved least."""
    counts = [((state,), float(found[state][0]) if state in found else 0.0) for state in OPEN_BATCHES]
    meters.replace("joblog_batches", counts)
    names = ("joblog_batch_oldest_timestamp_seconds", "joblog_batch_progress_timestamp_seconds")
    for place, name in enumerate(names, start=1):
        meters.replace(name, [((state,), said[place]) for state, said in found.items()])
