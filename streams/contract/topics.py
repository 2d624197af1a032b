"""Every topic as data: its key, partitions, retention, who writes and reads it; and the tiers of delays."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

_DAY = timedelta(days=1)
_FOREVER = timedelta(milliseconds=-1)

#: Partitions of `assignments`; a worker reads the one that its id hashes to.
ASSIGNMENT_PARTITIONS: Final = 16

#: The tiers of the timing wheel, shortest first: name and how long a record waits there.
#: `now` holds what is due within a minute; its records leave it at their own time.
DELAY_TIERS: Final[Mapping[str, timedelta]] = {
    "now": timedelta(0),
    "1m": timedelta(minutes=1),
    "10m": timedelta(minutes=10),
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "1d": timedelta(days=1),
    "7d": timedelta(days=7),
}


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic, without the prefix of the installation."""

    name: str
    key: str
    written_by: str
    read_by: str
    purpose: str
    retention: timedelta | None = None  # None: compacted instead
    partitions: int | None = None  # None: one per lane
    public: bool = False
    config: Mapping[str, str] = field(default_factory=dict)

    def configuration(self) -> dict[str, str]:
        """The topic's settings, as Kafka names them."""
        kept = (
            {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.2", "segment.ms": "3600000"}
            if self.retention is None
            else {
                "cleanup.policy": "delete",
                "retention.ms": str(round(self.retention / timedelta(milliseconds=1))),
            }
        )
        common = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "2097152"}
        return {**common, **kept, **self.config}


#: How long an elector may be away: what it has to read is kept so long.
COMMANDS_RETENTION: Final = 14 * _DAY

COMMANDS: Final = Topic(
    "commands", "queue or job id", "anyone", "elector", "What shall happen to jobs", COMMANDS_RETENTION, public=True
)
REPORTS: Final = Topic(
    "reports",
    "job id",
    "workers, delays, projector, electors",
    "elector",
    "What happened to assigned and waiting jobs",
    COMMANDS_RETENTION,  # an elector that was away must find the reports on the jobs whose commands it finds
)
EVENTS: Final = Topic("events", "job id", "elector", "everyone", "What happened: the truth", _FOREVER, public=True)
STATE: Final = Topic("state", "job id", "elector", "elector", "Live jobs, workers and the owner of each lane")
ASSIGNMENTS: Final = Topic(
    "assignments",
    "worker id",
    "elector",
    "workers",
    "Jobs to run, jobs to cancel",
    _DAY,
    ASSIGNMENT_PARTITIONS,
)
DEADLETTERS: Final = Topic(
    "deadletters",
    "as it came",
    "any role",
    "operators",
    "Records nobody could apply, with the reason",
    30 * _DAY,
)
DELAYS: Final = tuple(
    Topic(f"delay.{tier}", "job id", "elector, delays", "delays", f"Timers that wait {tier}", wait + 14 * _DAY)
    for tier, wait in DELAY_TIERS.items()
)

RECURRING: Final = Topic(
    "recurring",
    "recurring id, and aspect",
    "anyone, recurring",
    "recurring",
    "Recurring jobs: definitions, pauses, and how far each came",
    # An owner reads its partitions from the beginning, so old progress has to be compacted soon. Faust's Kafka client
    # reads lz4 and zstd with further packages only; the broker stores what comes as it is set here.
    config={"segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1", "compression.type": "uncompressed"},
)

OUTBOX: Final = Topic(
    "outbox",
    "outbox id",
    "outbox",
    "outbox",
    "Which rows of each outbox are in the log",
    partitions=1,
    # Of each outbox only the last mark counts, and who relays reads all that there are: so they are compacted soon.
    config={"segment.bytes": "16777216", "segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1"},
)

QUEUES: Final = Topic(
    "queues",
    "queue",
    "anyone",
    "clients",
    "Over how many lanes new jobs of queues are spread, set while all is running",
    partitions=1,
    config={"segment.bytes": "16777216", "segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1"},
)

TOPICS: Final[tuple[Topic, ...]] = (
    COMMANDS,
    REPORTS,
    EVENTS,
    STATE,
    ASSIGNMENTS,
    DEADLETTERS,
    RECURRING,
    OUTBOX,
    QUEUES,
    *DELAYS,
)

#: The topics that each role reads or writes. It may have no rights for the others, which are then invisible to it.
TOPICS_OF_ROLES: Final[Mapping[str, tuple[Topic, ...]]] = {
    "elector": TOPICS,
    "delays": (REPORTS, DEADLETTERS, *DELAYS),
    "worker": (REPORTS, ASSIGNMENTS),
    "projector": (EVENTS, COMMANDS, REPORTS),
    "recurring": (COMMANDS, EVENTS, RECURRING, DEADLETTERS),
    "triggers": (COMMANDS, DEADLETTERS),
    "outbox": (COMMANDS, OUTBOX),
    "hooks": (EVENTS, DEADLETTERS),
}


@dataclass(frozen=True, slots=True)
class TopicNames:
    """The topics' full names in one installation: `TopicNames("joblog.")` or a prefix of a test's own."""

    prefix: str = "joblog."

    def of(self, topic: Topic) -> str:
        return self.prefix + topic.name

    @property
    def commands(self) -> str:
        return self.of(COMMANDS)

    @property
    def reports(self) -> str:
        return self.of(REPORTS)

    @property
    def events(self) -> str:
        return self.of(EVENTS)

    @property
    def state(self) -> str:
        return self.of(STATE)

    @property
    def assignments(self) -> str:
        return self.of(ASSIGNMENTS)

    @property
    def deadletters(self) -> str:
        return self.of(DEADLETTERS)

    @property
    def recurring(self) -> str:
        return self.of(RECURRING)

    @property
    def queues(self) -> str:
        return self.of(QUEUES)

    @property
    def outbox(self) -> str:
        return self.of(OUTBOX)

    def delay(self, tier: str) -> str:
        return f"{self.prefix}delay.{tier}"


#: How long a record waits in each tier, in milliseconds.
WAITS_MS: Final = {tier: wait // timedelta(milliseconds=1) for tier, wait in DELAY_TIERS.items()}

_LONGEST_FIRST: Final = sorted(((wait_ms, tier) for tier, wait_ms in WAITS_MS.items()), reverse=True)


def tier_for(remaining_ms: float) -> str:
    """The tier for a timer that is due in `remaining_ms`: the longest that does not wait longer than that.

    Whatever is due within a minute, or was due already, goes to `now`.
    """
    return next((tier for wait_ms, tier in _LONGEST_FIRST if wait_ms <= remaining_ms), "now")
