"""What is asked of a log: by which rules its jobs would be decided, and which of them."""

from collections import Counter
from typing import Any, NamedTuple

from joblog.streams.replay.history import History
from joblog.streams.replay.what_if import WhatIf


class Chosen(NamedTuple):
    """Which jobs are decided anew; continuations of jobs that would have ended otherwise are followed in any case."""

    task: str | None = None
    queue: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    def has(self, history: History) -> bool:
        """Whether a job is one of them."""
        return (
            self.task in {None, history.job.task}
            and self.queue in {None, history.create.queue}
            and (self.from_ms or 0) <= history.created_ms
            and (self.to_ms is None or history.created_ms < self.to_ms)
        )


class Question(NamedTuple):
    """What is asked.

    - otherwise: the other policy or filters; as_it_was: those that the continuations of chosen jobs really have.
    - errors: counts what filters raise. whole: whether filters look at what jobs were created with.
    - asked: the question as text, by which another run knows whether it can go on.
    """

    otherwise: WhatIf
    as_it_was: WhatIf
    chosen: Chosen
    errors: Counter[str]
    whole: bool
    asked: dict[str, Any]
