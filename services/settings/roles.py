"""The settings of the roles, and of clients: one group each."""

from typing import Annotated, Final, Literal

from joblog.services.settings.sources import SecretFiles
from joblog.services.settings.values import FilledPath, Lasting, Modules, Queues, Secret, lasting_ms
from joblog.streams.contract.codec import VALUE_BYTES_MAX
from joblog.streams.contract.fields import WORKER_PATTERN
from pydantic import Field, StringConstraints

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Name = Annotated[str, StringConstraints(pattern=WORKER_PATTERN, max_length=100)]
#: A command must fit into one record together with its envelope and options.
ARGS_BYTES_MAX: Final = VALUE_BYTES_MAX - 16_384


class ClientSettings(SecretFiles):
    """The client, which creates jobs.

    - name: part of the commands' `source`; default: the host name.
    - timeout_s: how long to wait for Kafka's acknowledgement.
    - args_bytes_max: the largest arguments of one job, as JSON.
    """

    name: Name | None = None
    timeout_s: Seconds = 10.0
    args_bytes_max: int = Field(262_144, ge=2, le=ARGS_BYTES_MAX)


class ElectorSettings(SecretFiles):
    """The elector, which decides what happens to jobs.

    - id: its name, the same after a restart and unique among electors; default: the host name.
    - batch_max: commands and reports in one transaction.
    - lease_s: a worker that is silent for this long is lost, and its jobs go to others.
    - overdue_s: a scheduled job that is this late is started without its timer.
    - remembered: ended jobs that a lane remembers in order to refuse duplicates.
    - failed_kept, failed_for: failed jobs that a lane keeps in memory for a requeue, and for how long, such as 30d.
    - batches_kept, batches_for: ended batches that a lane keeps, so that more jobs can be attached, and for how long;
      those with Failed jobs as long as these.
    """

    id: Name | None = None
    batch_max: int = Field(10_000, ge=1, le=100_000)
    lease_s: Seconds = 15.0
    overdue_s: Seconds = 5.0
    remembered: int = Field(30_000, ge=0, le=10_000_000)
    failed_kept: int = Field(10_000, ge=0, le=10_000_000)
    failed_for: Lasting = "30d"
    batches_kept: int = Field(10_000, ge=0, le=10_000_000)
    batches_for: Lasting = "7d"

    @property
    def failed_ms(self) -> int:
        """`failed_for` in milliseconds."""
        return lasting_ms(self.failed_for)

    @property
    def batches_ms(self) -> int:
        """`batches_for` in milliseconds."""
        return lasting_ms(self.batches_for)


class WorkerSettings(SecretFiles):
    """The worker, which runs jobs.

    - tasks: modules with tasks.
    - queues: in order of preference; if empty, those that its tasks declare, `default` last.
    - slots: jobs to run at the same time; default: five for each core, at most 20.
    - prefetch: extra jobs to hold ready, so that short jobs do not wait for the elector.
    - renew_s: how often the lease is renewed.
    - grace_s: how long running jobs may take to finish when the worker stops.
    - release_after_s: how long a job may wait here for a free slot before it is given back.
    - result_bytes_max: the largest result of a job, as JSON.
    """

    name: Name | None = None
    tasks: Modules = ()
    queues: Queues = ()
    slots: int | None = Field(None, ge=1, le=10_000)
    prefetch: int = Field(0, ge=0, le=10_000)
    renew_s: Seconds = 3.0
    grace_s: float = Field(25.0, ge=0, le=86_400)
    release_after_s: Seconds = 1.0
    result_bytes_max: int = Field(262_144, ge=0, le=1_000_000)


class RecurringSettings(SecretFiles):
    """The recurring process, which creates the jobs of recurring definitions.

    - tasks: modules with tasks; what they declare with @recurring is registered at the start.
    """

    tasks: Modules = ()


class TriggerSettings(SecretFiles):
    """The triggers, which turn other services' events into jobs.

    - modules: modules with functions under `@trigger`.
    - group: the consumer group; default: `triggers` behind the topic prefix. Another one reads all topics anew.
    - start: where a new group begins: `earliest` handles every event that the topics still hold, `latest` those that
      come from the first start on. A topic that appears later is read whole.
    - attempts: how often a function is called for an event before the event is parked in the dead letters.
    - delay_s, delay_max_s: the delay after its first error; it doubles from one to the next, up to the second.
    """

    modules: Modules = ()
    group: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,200}$")
    start: Literal["earliest", "latest"] = "earliest"
    attempts: int = Field(5, ge=1, le=1_000)
    delay_s: Seconds = 1.0
    delay_max_s: Seconds = 30.0


class OutboxSettings(SecretFiles):
    """The transactional outbox: rows in an application's own database, which `joblog outbox` relays to Kafka.

    - dsn: the application's database; default: `postgres.dsn`. The relay needs a connection without a pooler.
    - schema_name: the schema that holds the outbox.
    - batch_max: rows in one transaction.
    - poll_s: how often the relay looks for rows without being told of any.
    """

    dsn: Secret | None = None
    dsn_file: FilledPath | None = None
    schema_name: str = Field("joblog_outbox", pattern=r"^[a-z_][a-z0-9_]{0,62}$")
    batch_max: int = Field(1_000, ge=1, le=10_000)
    poll_s: Seconds = 1.0


class HookSettings(SecretFiles):
    """Hooks, which are told of the transitions of jobs.

    - modules: modules with functions under `@on_transition`.
    - group: the consumer group; default: `hooks` behind the topic prefix. Another one is told everything, too.
    - start: where a new group begins: `latest` with what happens from then on, `earliest` with all that there is.
    - attempts: how often a function is called for a transition before that is parked in the dead letters.
    - delay_s, delay_max_s: the delay after its first error; it doubles from one to the next, up to the second.
    """

    modules: Modules = ()
    group: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,200}$")
    start: Literal["earliest", "latest"] = "latest"
    attempts: int = Field(5, ge=1, le=1_000)
    delay_s: Seconds = 1.0
    delay_max_s: Seconds = 30.0
