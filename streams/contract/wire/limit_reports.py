"""Reports about limits: what lanes tell the owner of one, and the owner them. Private, so structs only."""

from joblog.streams.contract.fields import Capacity, Count, Key, Lane, Priority, Text
from joblog.streams.contract.relations import LimitKind
from joblog.streams.contract.wire.base import JobId, QueueName, Report
from joblog.streams.contract.wire.jobs import Limit


class LimitReport(Report, frozen=True, kw_only=True):
    """What the lane of a job and the owner of a limit tell each other (streams/lane/limits)."""

    job_id: JobId


class LimitAsked(LimitReport, frozen=True, kw_only=True, tag="limit.asked"):
    """To the owner: the job waits for the limit. `epoch` and `ask` are repeated in the answer."""

    limit: Limit
    epoch: Count
    ask: Count
    priority: Priority
    created_ms: Count


class LimitStarted(LimitReport, frozen=True, kw_only=True, tag="limit.started"):
    """To the owner: the job started with its permit, by an event of this time (unix milliseconds)."""

    limit: Limit
    at_ms: Count


class LimitReleased(LimitReport, frozen=True, kw_only=True, tag="limit.released"):
    """To the owner: the job does not wait any more, does not use its permit, or has ended."""

    kind: LimitKind
    key: Key


class LimitGranted(LimitReport, frozen=True, kw_only=True, tag="limit.granted"):
    """From the owner: the job may start, by an event that is not earlier than `from_ms`."""

    kind: LimitKind
    key: Key
    epoch: Count
    ask: Count
    from_ms: Count


class LimitWaits(LimitReport, frozen=True, kw_only=True, tag="limit.waits"):
    """From the owner: the job has to wait; `waits_for` says for what, in words."""

    kind: LimitKind
    key: Key
    epoch: Count
    ask: Count
    waits_for: Text


class LimitsForgotten(Report, frozen=True, kw_only=True, tag="limits.forgotten"):
    """To an owner: what this lane asked for, and has not started, is void.

    With `rebuild` it answers that LimitsRebuilt, after one LimitStarted for each job that runs.
    """

    lane: Count
    rebuild: Count = 0


class LimitsRebuilt(Report, frozen=True, kw_only=True, tag="limits.rebuilt"):
    """From an owner that was rebuilt: say which jobs run, and that what you asked for is void; and ask again."""

    lane: Count
    rebuild: Count


class QueueLimitReport(Report, frozen=True, kw_only=True):
    """What the owner of a queue's limit and the other lanes of the queue tell each other (limits/queue_owner.py).

    - number: which setting of the limit this is about.
    """

    queue: QueueName
    number: Count


class QueueLimitTold(QueueLimitReport, frozen=True, kw_only=True, tag="queue_limit.told"):
    """To a lane: this is the limit of the queue; without a capacity, it has none. `changed`: by a command."""

    kind: LimitKind
    capacity: Capacity | None = None
    interval_ms: Count = 0
    changed: bool = False
    by: Text | None = None
    reason: Text | None = None


class QueueLimitJoined(QueueLimitReport, frozen=True, kw_only=True, tag="queue_limit.joined"):
    """To the owner: `lane` knows that setting, has nothing, and so many jobs run there; 0: it has to be told."""

    lane: Lane
    running: Count = 0


class QueueLimitUsed(QueueLimitReport, frozen=True, kw_only=True, tag="queue_limit.used"):
    """To the owner: what `lane` gives back, what it has used, and how much more it wants (limits/gate.py, `Said`)."""

    lane: Lane
    returned: Count = 0
    used: tuple[Count, ...] = ()
    at_ms: Count = 0
    unused: tuple[Count, ...] = ()
    more: Count = 0


class QueueLimitGiven(QueueLimitReport, frozen=True, kw_only=True, tag="queue_limit.given"):
    """To a lane: one time for each unit or permit that it gets, and whether other lanes wait for some."""

    times: tuple[Count, ...] = ()
    others_wait: bool = False
