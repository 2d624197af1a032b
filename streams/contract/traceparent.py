"""The W3C trace context of a job, as far as Joblog looks into it: whether its trace is recorded, and its id."""

import re
from typing import Final

#: https://www.w3.org/TR/trace-context/#traceparent-header; the lowest bit of the flags says `sampled`.
_recorded: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f][13579bdf](?:-|$)").match


def recorded_trace(traceparent: str) -> str | None:
    """The id of the trace, if its flags say that it is recorded; foreign producers may send any text."""
    found = _recorded(traceparent)
    return None if found is None else found[1]
