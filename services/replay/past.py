"""The past, straight from the log: a job, jobs and workers at an instant, or what changed between two."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from re import fullmatch
from tempfile import TemporaryDirectory
from typing import Any

from joblog.projections.replay.instants import Installation, Then, installation_at
from joblog.projections.replay.past import history as history_of
from joblog.projections.replay.past import job_then
from joblog.services.settings.model import Settings
from joblog.streams.contract.fields import JOB_ID_PATTERN
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.errors import InvalidData
from joblog.streams.kafka.answers import answered
from joblog.streams.kafka.places import offsets_of, parse_place
from joblog.streams.kafka.scan import TopicReader, reading
from joblog.streams.progress import Told, silent


def history(settings: Settings, job: str, told: Told = silent) -> list[dict[str, Any]]:
    """The events of a job, oldest first, of all its lives, each with its cause and position."""
    lane_of(settings, job)
    with reading_events(settings) as reader:
        found = history_of(reader, job, told=told)
    if not found:
        raise InvalidData(f"the log has no events of job {job}")
    return found


def job_at(settings: Settings, job: str, place: str, told: Told = silent) -> dict[str, Any]:
    """A job as it was at a place of the log (a time, -1h, or an offset of its lane)."""
    own = lane_of(settings, job)
    with reading_events(settings) as reader:
        stop = offsets_of(reader, [own], parse_place(place, datetime.now(UTC)))[own]
        found = job_then(reader, job, stop, told)
    if found is None:
        raise InvalidData(f"job {job} was not there yet")
    return found


def at(
    settings: Settings,
    place: str,
    *,
    lanes: Collection[int] | None = None,
    directory: Path | None = None,
    told: Told = silent,
) -> Then:
    """Jobs by queue and state, and the workers, as they were at a place of the log.

    Its files are in `directory`, from which the same call goes on after one that raised Stopped, or was killed.
    """
    (then,) = _installation(settings, [place], lanes, directory, told).then
    return then


def diff(
    settings: Settings,
    since: str,
    until: str = "-0s",
    *,
    lanes: Collection[int] | None = None,
    directory: Path | None = None,
    told: Told = silent,
) -> Installation:
    """What was at two places of the log, and how many jobs moved from which state to which; goes on as `at` does."""
    return _installation(settings, [since, until], lanes, directory, told)


@contextmanager
def reading_events(settings: Settings) -> Iterator[TopicReader]:
    """A reader of the topic `events`, whose lanes are those of the settings; what it raises may be BrokersAway."""
    config = settings.kafka.config()
    with answered(config), reading(config, settings.names.events) as reader:
        reader.check_partitions(settings.lanes)
        yield reader


def chosen_lanes(settings: Settings, given: Collection[int] | None) -> list[int]:
    """The lanes that were given, or all; InvalidData for one that there is not."""
    if wrong := [one for one in given or () if not 0 <= one < settings.lanes]:
        raise InvalidData(f"there is no lane {wrong[0]}: the lanes are 0 to {settings.lanes - 1}")
    return sorted(set(given)) if given else list(range(settings.lanes))


def _installation(
    settings: Settings, places: Sequence[str], lanes: Collection[int] | None, directory: Path | None, told: Told
) -> Installation:
    wanted = chosen_lanes(settings, lanes)
    with TemporaryDirectory(prefix="joblog-replay-") as temporary, reading_events(settings) as reader:
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        return installation_at(reader, directory or Path(temporary), wanted, places, told)


def lane_of(settings: Settings, job: str) -> int:
    """The lane of a job; InvalidData for what is not the id of one."""
    if not fullmatch(JOB_ID_PATTERN, job) or lane_of_job(job) >= settings.lanes:
        raise InvalidData(f"{job!r:.100} is not the id of a job of this installation")
    return lane_of_job(job)
