"""The features that every lane has, in the order in which they act."""

from collections.abc import Callable
from typing import Any, Final

from joblog.streams.lane.feature import Feature
from joblog.streams.lane.features.batches import Batches
from joblog.streams.lane.features.bulk import BulkOperations
from joblog.streams.lane.features.continuations import Continuations
from joblog.streams.lane.features.failed_jobs import FailedJobs
from joblog.streams.lane.features.former_continuations import FormerContinuations
from joblog.streams.lane.features.limits import Limits
from joblog.streams.lane.features.memory import Memory
from joblog.streams.lane.features.queue_control import QueueControl
from joblog.streams.lane.features.queue_limits import QueueLimits
from joblog.streams.lane.features.queues_elsewhere import QueuesElsewhere
from joblog.streams.lane.features.times import Times
from joblog.streams.lane.features.unique_keys import UniqueKeys
from joblog.streams.lane.features.unmet_continuations import UnmetContinuations
from joblog.streams.lane.features.workers import Workers

FEATURES: Final[tuple[type[Feature], ...]] = (
    Memory,
    FailedJobs,
    Workers,
    Times,
    Continuations,
    UnmetContinuations,
    FormerContinuations,
    UniqueKeys,
    Limits,
    QueueLimits,
    QueueControl,
    QueuesElsewhere,
    BulkOperations,
    Batches,
)

#: From the prefix of a record's key to what reads its value.
DECODERS: Final[dict[str, Callable[[bytes], Any]]] = {
    kind.prefix: kind.decoder.decode for kind in FEATURES if kind.prefix is not None
}
