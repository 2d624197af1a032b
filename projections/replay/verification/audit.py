"""What must hold of a job's events by themselves, whatever Postgres says. Pure."""

from collections.abc import Iterable, Iterator
from typing import Final
from uuid import UUID

from joblog.projections.replay.verification.findings import Finding, Kind, position
from joblog.projections.replay.verification.trace import NO_TRANSITIONS, Step, Trace, steps_of
from joblog.streams.contract.ids import lane_of_job

_RUN_ENDS: Final = frozenset({"job.succeeded", "job.failed"})


def job_of(key: bytes) -> str:
    """A job's id, of its sixteen bytes."""
    return str(UUID(bytes=key))


def audit(trace: Trace, begins: dict[int, int]) -> Iterator[Finding]:
    """What is wrong with the events of a job; `begins` says where each lane of the log begins.

    Events that retention has deleted are no gap: where a lane does not begin at 0, a job may lack its first ones.
    """
    job = job_of(trace.key)
    home = lane_of_job(job)
    steps = list(steps_of(trace))
    yield from (_wrong_lane(job, home, step) for step in steps if step.lane != home)
    by_lane = sorted((step for step in steps if step.lane == home), key=lambda step: step.offset)
    for life in _lives(by_lane):
        is_cut = begins.get(home, 0) > 0
        yield from _versions(job, life, is_cut=is_cut)
        yield from _leases(job, life, is_cut=is_cut)
        yield from _finals(job, life)


def _lives(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """The steps of each life: of a new one, when a job that has ended is created again under its id.

    A first event that comes again while the job lives, or byte for byte, is a doubled one and begins no life.
    """
    life: list[Step] = []
    ended = True
    for step in steps:
        if step.begins and life and ended and life[0].twin != step.twin:
            yield life
            life = []
        life.append(step)
        if step.type not in NO_TRANSITIONS:
            ended = step.is_end
    if life:
        yield life


def _versions(job: str, life: list[Step], *, is_cut: bool) -> Iterator[Finding]:
    seen: dict[int, Step] = {}
    last = 0
    for step in life:
        if (before := seen.get(step.version)) is not None:
            first = position(before.lane, before.offset)
            yield _finding(Kind.DOUBLED_EVENT, job, step, f"version {step.version} is also at {first}")
            continue
        seen[step.version] = step
        if step.version != last + 1 and not (last == 0 and is_cut):
            yield _finding(Kind.VERSION_GAP, job, step, f"version {step.version} follows version {last}")
        last = step.version


def _leases(job: str, life: list[Step], *, is_cut: bool) -> Iterator[Finding]:
    lease, since = 0, ""
    is_known = life[0].version == 1 or not is_cut  # else its run may have begun before the log does
    for step in _once(life):
        if step.type in NO_TRANSITIONS:
            continue
        is_told, is_known = is_known, True
        if step.type == "job.processing":
            if lease:
                yield _finding(Kind.TWO_LEASES, job, step, f"a run begins while lease {lease} is open, since {since}")
            lease, since = step.lease, position(step.lane, step.offset)
            continue
        if step.type in _RUN_ENDS and step.lease and step.lease != lease and is_told:
            open_one = f"lease {lease}" if lease else "no lease"
            yield _finding(Kind.WRONG_LEASE, job, step, f"lease {step.lease} ends while {open_one} is open")
        lease = 0


def _finals(job: str, life: list[Step]) -> Iterator[Finding]:
    final: Step | None = None
    for step in _once(life):
        waits_again = final is not None and final.type == "job.deleted" and step.type == "job.awaiting"
        if final is not None and not step.commanded and not waits_again:
            ended = f"{final.type} at {position(final.lane, final.offset)}"
            yield _finding(Kind.LEFT_FINAL, job, step, f"{step.type} follows {ended}, and no command led to it")
        if step.type not in NO_TRANSITIONS:
            final = step if step.is_end else None


def _once(life: list[Step]) -> Iterator[Step]:
    """The steps whose version is new: what is there twice is told once."""
    last = 0
    for step in life:
        if step.version > last:
            yield step
            last = step.version


def _wrong_lane(job: str, home: int, step: Step) -> Finding:
    return _finding(Kind.WRONG_LANE, job, step, f"{step.type}, version {step.version}, belongs to lane {home}")


def _finding(kind: Kind, job: str, step: Step, what: str) -> Finding:
    return Finding(kind=kind, lane=step.lane, job=job, what=what, position=position(step.lane, step.offset))
