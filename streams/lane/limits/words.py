"""What a job waits for, in words for people."""

from collections.abc import Collection
from typing import Final

from joblog.streams.contract.relations import LimitKind

#: More holders than these are counted, and not named.
NAMED_MAX: Final = 3


def named(kind: LimitKind, key: str) -> str:
    """A limit, as people read it."""
    return f"{kind.replace('_', ' ')} {key}"


def waits_for(limit: tuple[LimitKind, str], holders: Collection[str]) -> str:
    """What a job waits for, and who has it."""
    name = named(*limit)
    if not holders:
        return name
    if len(holders) > NAMED_MAX:
        return f"{name}, held by {len(holders)} jobs"
    return f"{name}, held by job{'s' if len(holders) > 1 else ''} {', '.join(holders)}"
