"""Past jobs through another retry policy or other filters: which would have ended otherwise. Reads the log only."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from joblog.services.settings.model import Settings
from joblog.streams.contract.retry import Retry, RetryPolicy
from joblog.streams.contract.timestamps import time_ms
from joblog.streams.errors import InvalidData
from joblog.streams.lane.filters import ElectFilter, FilterChain, RetryFilter, installed_filters
from joblog.streams.progress import Told, silent
from joblog.streams.replay.asking import Asking
from joblog.streams.replay.log import EventReader
from joblog.streams.replay.question import Chosen, Question
from joblog.streams.replay.what_if import Beyond, WhatIf
from msgspec import convert


@dataclass(frozen=True, slots=True)
class Change:
    """What would be otherwise, and for which jobs.

    - retry: another policy. added, removed: filters, and names of filters, that electors would have or lack.
    - beyond: how runs are assumed to end that were never made. since, until: when jobs were created.
    """

    retry: RetryPolicy | None = None
    added: Sequence[ElectFilter] = ()
    removed: Sequence[str] = ()
    beyond: Beyond = Beyond.AS_RECORDED
    task: str | None = None
    queue: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def what_if(settings: Settings, change: Change, directory: Path | None = None, told: Told = silent) -> dict[str, Any]:
    """The report, as `joblog replay what-if --output json` prints it.

    Its files are in `directory`, from which the same call goes on after one that raised Stopped, or was killed.
    """
    with TemporaryDirectory(prefix="joblog-what-if-") as temporary:
        with asking(settings, change, directory or Path(temporary), told) as asked:
            asked.run()
        asked.discard()
        return asked.report()


@contextmanager
def asking(settings: Settings, change: Change, directory: Path, told: Told = silent) -> Iterator[Asking]:
    """A run that has not begun: `run` it, and it has a report, also when it was stopped."""
    question = _question(settings, change)
    names, lanes = settings.names, settings.lanes
    directory.mkdir(parents=True, exist_ok=True)
    reader = EventReader(settings.kafka.config(), names.events, lanes, client_id=f"{names.prefix}what-if")
    with closing(reader), closing(Asking(reader, question, directory, told)) as asked:
        yield asked


def _question(settings: Settings, change: Change) -> Question:
    if change.retry is None and not change.added and not change.removed:
        raise InvalidData("nothing would be otherwise: give another retry policy, or a filter to add or leave out")
    errors: Counter[str] = Counter()
    installed = [RetryFilter(), *installed_filters()]
    names = {one.name for one in installed}
    for name in change.removed:
        if name not in names:
            raise InvalidData(f"there is no filter {name} to leave out; there are {', '.join(sorted(names))}")
    others = [one for one in installed if one.name not in change.removed] + list(change.added)
    retry = None if change.retry is None else convert(change.retry.model_dump(mode="json"), Retry)
    from_ms, to_ms = (None if at is None else time_ms(at) for at in (change.since, change.until))
    return Question(
        otherwise=WhatIf(_chain(others, errors), retry, change.beyond),
        as_it_was=WhatIf(_chain(installed, errors), None, change.beyond),
        chosen=Chosen(change.task, change.queue, from_ms, to_ms),
        errors=errors,
        whole=bool(change.added) or len(installed) > 1,
        asked=_text(change, settings.lanes),
    )


def _chain(filters: list[ElectFilter], errors: Counter[str]) -> FilterChain:
    return FilterChain(filters, on_error=lambda name: errors.update([name]))


def _text(change: Change, lanes: int) -> dict[str, Any]:
    """The question, to compare it with that of a checkpoint."""
    return {
        "retry": None if change.retry is None else change.retry.model_dump_json(),
        "added": [f"{type(one).__module__}:{type(one).__qualname__}" for one in change.added],
        "removed": list(change.removed),
        "beyond": change.beyond.value,
        "jobs": [
            change.task,
            change.queue,
            *(None if at is None else time_ms(at) for at in (change.since, change.until)),
        ],
        "lanes": lanes,
    }
