"""What people tell the workers of a lane, and the events of workers (workers.py)."""

from collections.abc import Mapping
from typing import Final, Literal

from joblog.streams.contract import wire
from joblog.streams.lane.features.slots import WorkerRegistry, WorkerSlots
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.transitions import Election, Rejection

#: What a worker may be told: the order, in words, and the event.
ORDERS: Final[Mapping[type, tuple[Literal["quiet", "resume", "stop"], str, str]]] = {
    wire.QuietWorker: ("quiet", "take no more jobs", "worker.quieted"),
    wire.ResumeWorker: ("resume", "take jobs again", "worker.resumed"),
    wire.StopWorker: ("stop", "stop", "worker.stop_ordered"),
}


def ordered(
    registry: WorkerRegistry, lane: int, received: wire.Received, election: Election, out: LaneOutput
) -> Rejection | None:
    """Tell a worker to take no more jobs, some again, or to stop; only its home lane does, so it is told once."""
    command = received.command
    assert isinstance(command, wire.QuietWorker | wire.ResumeWorker | wire.StopWorker)
    worker = registry.get(command.worker)
    if worker is None or worker.gone is not None:
        return Rejection("unknown_worker", f"no worker {command.worker} announces itself to this lane")
    if not worker.announced.home:
        return Rejection("wrong_lane", f"lane {lane} is not the home of {command.worker}")
    what, in_words, kind = ORDERS[type(command)]
    told = f" by {command.by}" if command.by else ""
    why = f": {command.reason}" if command.reason else ""
    order = wire.OrderWorker(what=what, reason=f"told{told} to {in_words}{why}")
    out.assignments.append((worker.announced.partition, command.worker, order))
    worker_event(kind, worker, received.id, election.now_ms, out, (command.by, command.reason))
    return None


def worker_event(
    kind: str,
    worker: WorkerSlots,
    cause: str,
    now_ms: int,
    out: LaneOutput,
    said: tuple[str | None, str | None] = (None, None),
) -> None:
    """Write an event of a worker; `said` is by whom it was told something, and why."""
    worker.written_ms = now_ms
    last = worker.announced
    data = wire.WorkerEvent(
        last.worker, last.all_queues, last.all_slots, last.tasks, last.host, last.pid, last.started_at,
        last.quiet, *said,
    )  # fmt: skip
    out.events.append((last.worker, kind, f"{cause}/{last.worker}/{kind}", data, cause, None))
