"""The past of one job, straight from the log: its events with their causes, and what it was at an instant."""

from typing import Any, Final

from joblog.projections.projector.decode import JobFact, read_event
from joblog.projections.projector.event_batch import Record
from joblog.projections.projector.fold import fold
from joblog.projections.replay.lives import expected_job, lives_by_job
from joblog.projections.replay.verification.sides import events_of
from joblog.projections.schema.history import history_row, shown
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.errors import ContractError
from joblog.streams.kafka.scan import Range, TopicReader
from joblog.streams.progress import Told, silent
from msgspec import Struct, json


class _Cause(Struct):
    causationid: str | None = None


_cause: Final = json.Decoder(_Cause).decode


def history(reader: TopicReader, job: str, stop: int | None = None, told: Told = silent) -> list[dict[str, Any]]:
    """The events of a job up to an offset of its lane, or to the end, oldest first; of all its lives."""
    return [_shown(reader.topic, record, fact) for record, fact in _facts(reader, job, stop, told)]


def job_then(reader: TopicReader, job: str, stop: int, told: Told = silent) -> dict[str, Any] | None:
    """A job as it was before that offset of its lane; None if it was not there yet."""
    lives = lives_by_job(_facts(reader, job, stop, told))
    if job not in lives:
        return None
    life = lives[job][-1]
    return expected_job(fold([(record.offset, fact) for record, fact in life], life[0][0].lane))


def _facts(reader: TopicReader, job: str, stop: int | None, told: Told) -> list[tuple[Record, JobFact]]:
    lane = lane_of_job(job)
    bounds = reader.bounds([lane])[lane]
    wanted = Range(bounds.start, bounds.stop if stop is None else stop)
    done = 0

    def count(records: int) -> None:
        nonlocal done
        done += records
        told("reading the log", done, wanted.length)

    found = []
    for record in events_of(reader, [job], {lane: wanted}, count):
        try:
            fact = read_event(record.value, record.headers, record.log_ms)
        except ContractError:  # `verify` names what cannot be read
            continue
        if isinstance(fact, JobFact) and fact.job == job:
            found.append((record, fact))
    return found


def _shown(topic: str, record: Record, fact: JobFact) -> dict[str, Any]:
    row = shown(history_row(record.lane, record.offset, fact.at, fact.type, fact.event))
    cause = _cause(record.value or b"{}").causationid
    return {**row, "cause": cause, "position": f"{topic}/{record.lane}@{record.offset}"}
