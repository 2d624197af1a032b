"""What a job waits for, in words for people."""

from collections.abc import Sequence

from joblog.streams.contract.relations import LimitKind


def named(kind: LimitKind, key: str) -> str:
    """A limit, as people read it."""
    return f"{kind.replace('_', ' ')} {key}"


def waits_for(limit: tuple[LimitKind, str], holders: Sequence[str]) -> str:
    """What a job waits for, and who has it."""
    name = named(*limit)
    if len(holders) == 1:
        return f"{name}, held by job {holders[0]}"
    return f"{name}, held by {len(holders)} jobs" if holders else name
