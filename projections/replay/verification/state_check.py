"""Whether `state`, as it is between two looks at the log, fits the events. Pure.

An elector writes a job's events and its record in one transaction. So of a job that had no event between both
looks, the record must say what the events say; of another, it must be one of the versions between them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from joblog.projections.replay.lives import plain
from joblog.projections.replay.verification.audit import job_of
from joblog.projections.replay.verification.compare import parameters_of
from joblog.projections.replay.verification.findings import Finding, Kind
from joblog.projections.replay.verification.state_topic import Entry, Listed
from joblog.projections.replay.verification.trace import Step, Trace, short, steps_of
from joblog.streams.contract.states import FINAL_STATES, State
from joblog.streams.contract.timestamps import parse_time_ms
from msgspec import Struct, json

_COMPARED: Final = ("state", "version", "attempt", "queue", "task", "worker", "lease", "due_ms", "priority")


class _Spec(Struct):
    parameters: dict[str, Any] | None = None


_spec: Final = json.Decoder(_Spec).decode
_object: Final = json.Decoder(dict[str, Any]).decode


class Unsure(NamedTuple):
    """A job whose spec in `state` is written otherwise than in the log: whether it means the same is to be seen."""

    job: str
    lane: int
    spec: bytes


def state_finding(
    key: bytes, trace: Trace | None, entry: Entry | None, looked: Mapping[int, int]
) -> Finding | Unsure | None:
    """What is wrong with a job's record; `looked` says how far each lane's events were before `state` was read."""
    if entry is not None and entry.state is None:
        entry = None
    if trace is None:
        return None if entry is None else _finding(key, entry.lane, "is in state, not in the log", None, says(entry))
    steps = list(steps_of(trace))
    since = [step for step in steps if step.offset >= looked.get(step.lane, 0)]
    if since:
        return _moved(key, trace, entry, steps, since)
    return _unmoved(key, trace, entry)


def _unmoved(key: bytes, trace: Trace, entry: Entry | None) -> Finding | Unsure | None:
    """What is wrong with the record of a job that did not move meanwhile. Failed jobs are kept for a while."""
    has_ended = trace.state in FINAL_STATES
    if entry is None:
        what = f"is {trace.state}, and not in state"
        return None if has_ended else _finding(key, trace.lane, what, _expected(trace), None)
    if has_ended and trace.state is not State.FAILED:
        return _finding(key, trace.lane, f"is {trace.state}, and still in state", _expected(trace), says(entry))
    log, found = _expected(trace), says(entry)
    differing = [name for name, value in log.items() if found[name] != value and plain(found[name]) != plain(value)]
    if differing:
        log, found = ({name: side[name] for name in differing} for side in (log, found))
        return _finding(key, trace.lane, f"{', '.join(differing)} in state: not as the log says", log, found)
    if trace.spec is not None and short(entry.spec) != trace.spec:
        return Unsure(job_of(key), trace.lane, entry.spec)
    return None


def says(entry: Entry) -> dict[str, Any]:
    """What a record says of its job, but for its lane, its spec, and who waits for it."""
    said: dict[str, Any] = {name: getattr(entry, name) for name in _COMPARED}
    return said | {"parameters": _parameters(entry)}


def _parameters(entry: Entry) -> Any:
    try:
        given = _spec(entry.spec).parameters if b'"parameters"' in entry.spec else None
        return (given or {}) | _object(entry.parameters)
    except ValueError as error:
        return f"unreadable: {error}"


def _expected(trace: Trace) -> dict[str, Any]:
    """What the record must say after these events; without the first one, they do not tell all."""
    runs = trace.state is State.PROCESSING
    said: dict[str, Any] = {
        "state": trace.state,
        "version": trace.version,
        "attempt": trace.attempt,
        "queue": trace.queue,
        "task": trace.task,
        "worker": trace.worker if runs else None,
        "lease": (trace.lease or 0) if runs else 0,
        "due_ms": parse_time_ms(trace.due) if trace.state is State.SCHEDULED and trace.due else 0,
    }
    if trace.spec is not None:
        said |= {"priority": trace.priority or 0, "parameters": parameters_of(trace)}
    return said


def spec_finding(unsure: Unsure, log: bytes) -> Finding | None:
    """Whether a spec in `state` means something else than the one in the log; both are JSON."""
    try:
        found = json.decode(unsure.spec)
    except ValueError as error:
        found = f"unreadable: {error}"
    wanted = json.decode(log)
    if plain(found) == plain(wanted):
        return None
    what = f"job {unsure.job} spec in state: not as the log says"
    return Finding(kind=Kind.STATE, lane=unsure.lane, job=unsure.job, what=what, log=wanted, found=found)


def listed_findings(key: bytes, trace: Trace | None, listed: Iterable[Listed]) -> Iterable[Finding]:
    """Where `state` says that a job waits for another one, and its events do not."""
    for one in listed:
        if trace is not None and trace.waits.get(one.parent) == one.on:
            continue
        what = f"job {one.parent} in state: lists {job_of(key)}, which never waited for it ({one.on})"
        waits = [{"parent": parent, "on": on} for parent, on in trace.waits.items()] if trace is not None else None
        lane = trace.lane if trace is not None else None
        found = {"parent": one.parent, "on": one.on}
        yield Finding(kind=Kind.STATE, lane=lane, job=one.parent, what=what, log=waits, found=found)


def _moved(
    key: bytes, trace: Trace, entry: Entry | None, steps: Sequence[Step], since: Sequence[Step]
) -> Finding | None:
    """A job that had events while `state` was read: its record may be of any of these versions."""
    before = [step for step in steps if step.offset < since[0].offset]
    possible = [*before[-1:], *since]
    if entry is None:
        is_possible = not before or any(step.is_end for step in possible)
    else:
        is_possible = entry.version in {step.version for step in possible}
    if is_possible:
        return None
    found = says(entry) if entry else None
    return _finding(key, trace.lane, "is moving, and state has none of its versions", _expected(trace), found)


def _finding(key: bytes, lane: int, what: str, log: Any, found: Any) -> Finding:
    job = job_of(key)
    return Finding(kind=Kind.STATE, lane=lane, job=job, what=f"job {job} {what}", log=log, found=found)
