"""Creates and changes jobs within the caller's own database transaction: they exist if and only if it is committed.

::

    from joblog.services.outbox import Outbox

    with psycopg.connect(dsn) as connection:  # or a connection of SQLAlchemy or Django
        connection.execute("INSERT INTO orders ...")
        job_id = Outbox(connection).enqueue("orders.confirm", 4711)

The commands are rows of a table in that database; `joblog outbox` puts them into the log after the commit. With
`synchronous_commit = off`, a crash of the database can take back a commit whose jobs are in the log already.
"""

import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import cache, wraps
from itertools import islice
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from joblog.projections.outbox.table import create_statement, insert_statement
from joblog.services.client.batch_calls import BatchCalls
from joblog.services.client.checks import problems_of
from joblog.services.client.job_commands import JobCommands
from joblog.services.client.options import ClientFilter, JobDraft
from joblog.services.client.templates import CommandRecord, Rules
from joblog.services.client.tracing_filters import with_tracing
from joblog.services.outbox.awaited_batches import AwaitedBatches
from joblog.services.outbox.connections import awaiting, executing
from joblog.services.settings.model import Settings
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.errors import SettingsError

P = ParamSpec("P")
R = TypeVar("R")

#: Rows in one statement.
ROWS_MAX: Final = 1_000


class Outbox(BatchCalls):
    """The calls of a Client that create and change jobs and batches, written into the caller's transaction.

    Each call adds rows at once, and returns the ids that the jobs will have. It commits nothing, rolls nothing back,
    sends nothing to Kafka, and raises what the driver raises. A savepoint that is rolled back takes its jobs along.
    Cheap: make one for each transaction, and use it in one thread, as the connection.

    - connection: of psycopg or psycopg2; SQLAlchemy's connection or session on one of them; Django's `connection`. In
      autocommit, each call is a transaction of its own, or several if it has more than 1,000 jobs.
    - settings: those of the installation (lanes, queue_shards, client, outbox.schema_name); read once by default.
    - filters: as a Client has them; `on_created` is called when a command is in the transaction, not yet in the log.

    Raises InvalidData for a connection that it cannot use.
    """

    def __init__(
        self, connection: Any, settings: Settings | None = None, *, filters: Sequence[ClientFilter] = ()
    ) -> None:
        chosen = settings or _loaded()
        super().__init__(_rules(chosen), with_tracing(chosen, filters))
        self._insert = insert_statement(chosen.outbox.schema_name)
        self._execute = executing(connection)

    def send(self, records: Sequence[CommandRecord]) -> None:
        """Add commands to the transaction."""
        for parameters in _batches(records, self._rules.lanes):
            self._execute(self._insert, parameters)

    def send_together(self, records: Sequence[CommandRecord], job_ids: Sequence[str]) -> None:  # noqa: ARG002
        """Add the commands of a batch: they are committed together as all others of the transaction."""
        self.send(records)

    @staticmethod
    def create_table(connection: Any, *, schema: str = "joblog_outbox") -> None:
        """Make the table in the caller's transaction, unless it is there; what `joblog outbox create` does."""
        executing(connection)(create_statement(schema), None)


class _Gathered(BatchCalls):
    """Commands and what the filters are still to be told of them, gathered to be written a moment later."""

    def __init__(self, rules: Rules, filters: Sequence[ClientFilter]) -> None:
        super().__init__(rules, filters)
        self.records: list[CommandRecord] = []
        self._created: list[tuple[str, JobDraft, Sequence[ClientFilter]]] = []

    def send(self, records: Sequence[CommandRecord]) -> None:
        self.records.extend(records)

    def send_together(self, records: Sequence[CommandRecord], job_ids: Sequence[str]) -> None:  # noqa: ARG002
        self.send(records)

    def _tell(self, job_id: str, draft: JobDraft, filters: Sequence[ClientFilter]) -> None:
        self._created.append((job_id, draft, filters))

    def tell(self) -> None:
        for created in self._created:
            super()._tell(*created)


def _written(
    method: Callable[Concatenate[_Gathered, P], R],
) -> "Callable[Concatenate[AsyncOutbox, P], Awaitable[R]]":
    """The call of an AsyncOutbox that does what this one of an Outbox does."""

    @wraps(method)
    async def call(outbox: "AsyncOutbox", /, *args: P.args, **kwargs: P.kwargs) -> R:
        gathered = outbox.gathering()
        result = method(gathered, *args, **kwargs)
        await outbox.send(gathered.records)
        gathered.tell()
        return result

    return call


class AsyncOutbox(AwaitedBatches):
    """An Outbox whose calls are awaited: for an AsyncConnection of psycopg or SQLAlchemy, or an AsyncSession.

    Batches are `async with` blocks, within which nothing is awaited.
    """

    def __init__(
        self, connection: Any, settings: Settings | None = None, *, filters: Sequence[ClientFilter] = ()
    ) -> None:
        chosen = settings or _loaded()
        super().__init__(_rules(chosen), with_tracing(chosen, filters))
        self._connection = connection
        self._insert = insert_statement(chosen.outbox.schema_name)

    enqueue = _written(JobCommands.enqueue)
    schedule = _written(JobCommands.schedule)
    continue_with = _written(JobCommands.continue_with)
    create = _written(JobCommands.create)
    enqueue_many = _written(JobCommands.enqueue_many)
    delete = _written(JobCommands.delete)
    requeue = _written(JobCommands.requeue)
    reschedule = _written(JobCommands.reschedule)
    set_parameter = _written(JobCommands.set_parameter)
    set_priority = _written(JobCommands.set_priority)
    move = _written(JobCommands.move)
    continue_batch = _written(BatchCalls.continue_batch)
    cancel_batch = _written(BatchCalls.cancel_batch)

    async def send(self, records: Sequence[CommandRecord]) -> None:
        """Add commands to the transaction."""
        execute = await awaiting(self._connection)
        for parameters in _batches(records, self._rules.lanes):
            await execute(self._insert, parameters)

    def gathering(self) -> _Gathered:
        """What one call makes, before it is written."""
        return _Gathered(self._rules, self._filters)

    @staticmethod
    async def create_table(connection: Any, *, schema: str = "joblog_outbox") -> None:
        """Make the table in the caller's transaction, unless it is there; what `joblog outbox create` does."""
        await (await awaiting(connection))(create_statement(schema), None)


@cache
def _loaded() -> Settings:
    return Settings.load()


def _rules(settings: Settings) -> Rules:
    """What commands are checked by; they come from where those of this process' Client come from."""
    name = settings.client.name or socket.gethostname()
    rules = Rules(
        settings.lanes,
        settings.queue_shards,
        f"/joblog/clients/{name}",
        settings.client.args_bytes_max,
        settings.queue_shards_before,
    )
    for is_wrong, what in problems_of(name, rules, settings.client.timeout_s):
        if is_wrong:
            raise SettingsError(f"outbox: {what}")
    return rules


def _batches(records: Sequence[CommandRecord], lanes: int) -> Iterator[Mapping[str, Any]]:
    """The parameters of the statements that add these commands."""
    left = iter(records)
    while part := list(islice(left, ROWS_MAX)):
        yield {
            "lanes": lanes,
            "lane": [lane_of_job(one.job_id) for one in part],
            "key": [one.job_id for one in part],
            "value": [one.value for one in part],
        }
