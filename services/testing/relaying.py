"""What an Outbox has written into a database, handed to the lanes as `joblog outbox` does it."""

from typing import Any

from joblog.projections.outbox.table import take_statement
from joblog.services.outbox.connections import fetching
from joblog.services.testing.broker import Broker
from joblog.streams.errors import JoblogError
from joblog.streams.outbox.marks import Row, problem_of


class RowNotRelayed(JoblogError):
    """A row of an outbox that `joblog outbox` would park; the text says why."""


class Relaying:
    """What `InMemoryJoblog` has of this."""

    _broker: Broker

    def relay(self, connection: Any, *, schema: str = "joblog_outbox") -> list[str]:
        """Take the commands out of an outbox, in the order in which they were written; returns their keys, job ids.

        The connection is one that an Outbox takes. The rows are deleted in its transaction, and seen as that sees
        them: your own that is not committed, too, so that a test may roll it back at its end.
        """
        rows = sorted(Row(*one) for one in fetching(connection)(take_statement(schema)))
        lanes = len(self._broker.lanes)
        for row in rows:
            if (problem := problem_of(row, lanes)) is not None:
                raise RowNotRelayed(f"row {row.id}, {row.key}: {problem}")
        for row in rows:
            self._broker.command(row.lane, bytes(row.value))
        return [row.key for row in rows]
