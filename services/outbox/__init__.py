"""The outbox: creates and changes jobs within the caller's own database transaction.

::

    from joblog.services.outbox import Outbox

- outbox.py: Outbox, and AsyncOutbox for connections whose calls are awaited.
- connections.py: the connections that are taken, of whichever library, without importing any of them.

The rows become commands in the log by `joblog outbox` (services/roles/outbox.py, projections/outbox). May import the
client, settings, streams, and of the projections the statements of those who write.
"""

from joblog.services.outbox.outbox import AsyncOutbox, Outbox

__all__ = ["AsyncOutbox", "Outbox"]
