"""What a client refuses before it sends anything: arguments out of range, and calls that contradict themselves."""

import re
from collections.abc import Iterator
from typing import Final

from joblog.services.client.options import Call
from joblog.services.client.templates import CommandRecord, CreateTemplate, Rules
from joblog.services.settings.roles import ARGS_BYTES_MAX
from joblog.streams.contract.fields import WORKER_PATTERN, is_queue, wrong_queue
from joblog.streams.contract.ids import LANES_MAX
from joblog.streams.errors import InvalidData

#: The longest wait for an acknowledgement, in seconds.
TIMEOUT_S_MAX: Final = 86_400


def problems_of(name: str, rules: Rules, timeout_s: float) -> Iterator[tuple[bool, str]]:
    """What a client must not be made with: whether it is so, and what to say of it."""
    yield not re.fullmatch(WORKER_PATTERN, name), f"its name {name!r} must match {WORKER_PATTERN}"
    yield not 1 <= rules.lanes <= LANES_MAX, f"lanes must be 1 to {LANES_MAX}, not {rules.lanes}"
    yield (
        not 0 < timeout_s <= TIMEOUT_S_MAX,
        f"timeout_s must be above 0 and at most {TIMEOUT_S_MAX}, not {timeout_s}",
    )
    yield (
        not 2 <= rules.args_bytes_max <= ARGS_BYTES_MAX,
        f"args_bytes_max must be 2 to {ARGS_BYTES_MAX}, not {rules.args_bytes_max}",
    )
    for argument, shards in (("shards", rules.shards), ("shards_before", rules.shards_before)):
        for queue, count in shards.items():
            yield not is_queue(queue), f"{argument}: {wrong_queue(queue)}"
            yield (
                not 1 <= count <= rules.lanes,
                f"{argument}: {queue} has {count}; it can have 1 to {rules.lanes} (lanes)",
            )


def agreeing(template: CreateTemplate, call: Call) -> CommandRecord:
    """The command for a call that names its job id; InvalidData if its idempotency key leads to another id."""
    made = template.fill(call)
    if call.idempotency_key is not None:
        by_key = template.fill(call._replace(job_id=None)).job_id
        if by_key != made.job_id:
            raise InvalidData(
                f"job_id {made.job_id} is not that of idempotency_key {call.idempotency_key!r:.60}, "
                f"which is {by_key}: leave one of them out"
            )
    return made
