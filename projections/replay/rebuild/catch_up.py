"""The last events, applied by this process alone: to the end of the log, or to where other tables are."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

from joblog.projections.projector.event_batch import Entries
from joblog.projections.projector.log import EventLog
from joblog.projections.projector.tables import Tables
from joblog.projections.replay.rebuild.place import Place
from joblog.projections.replay.rebuild.swap import NotYet
from joblog.streams.metrics import Meters

READ_MAX: Final = 500
BATCH_MAX: Final = 20_000
POLL_S: Final = 0.1


class CatchUp:
    """Reads on from the offsets of the tables in `schema`, in this thread."""

    def __init__(self, place: Place, schema: str) -> None:
        self._tables = Tables(place.dsn, schema, range(place.lanes))
        try:
            self._log = EventLog(place.kafka, place.names.events, place.lanes, self._tables.positions, Meters())
        except BaseException:
            self._tables.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()
        self._tables.close()

    def to_end(self, look: Callable[[], object]) -> None:
        """Apply until there was nothing more for a moment; `look` is called now and then, and may raise to stop."""
        while self._step() or not self._log.ended:
            look()

    def to(self, wanted: Mapping[int, int], timeout_s: float) -> None:
        """Apply until no lane is behind `wanted`; raises NotYet if that takes longer."""
        deadline = time.monotonic() + timeout_s
        while any(self._tables.positions[lane] < offset for lane, offset in wanted.items()):
            if time.monotonic() > deadline:
                raise NotYet(f"the new tables are still behind the live ones after {timeout_s:g} s")
            self._step()

    def _step(self) -> int:
        entries = Entries()
        while len(entries) < BATCH_MAX and (records := self._log.read(READ_MAX, 0 if entries else POLL_S)):
            entries.extend(records)
        if entries:
            self._tables.apply(entries, lambda: None)
        return len(entries)
