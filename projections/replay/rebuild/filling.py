"""The processes that fill the new tables: ordinary projectors, each of some lanes, at a lower priority.

They end when the process that started them closes its end of the pipe, or is killed. One that outlives it for a
moment does no harm: it moves offsets from where they are, or not at all.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection as Pipe
from types import TracebackType
from typing import Any, Final, Self

from joblog.projections.projector.projector import Projector
from joblog.projections.replay.rebuild.place import Place
from joblog.projections.replay.rebuild.share import rest_s
from joblog.streams.errors import JoblogError, ProjectionError
from joblog.streams.health import Health
from joblog.streams.metrics import Meters

#: Smaller than a projector's: a batch and the one that is read ahead are in memory, in each process.
BATCH_MAX: Final = 8_000
BATCH_BYTES: Final = 16 * 1024 * 1024
#: What is fetched in advance is in memory, too: 5,000 events of 1.6 kB.
QUEUE_KB: Final = 8_192
#: With a limit a batch holds what may be applied in this time, so that the load is even.
PACE_S: Final = 0.25
#: The live processes go first where they share a core.
NICE: Final = 10
STOP_TIMEOUT_S: Final = 30.0


class Filling:
    """So many processes, each with every n-th lane, while it is entered.

    They work for all of their time until `work` says otherwise.
    """

    def __init__(self, place: Place, schema: str, processes: int, rate: float | None) -> None:
        self._place, self._schema = place, schema
        count = min(processes, place.lanes)
        self._parts = [range(number, place.lanes, count) for number in range(count)]
        self._rate = rate / count if rate else None
        self._running: list[tuple[Any, Pipe]] = []
        self._context = get_context("spawn")
        self._share = self._context.Value("d", 1.0)

    def work(self, share: float) -> None:
        """Work for this part of the time from now on."""
        self._share.value = share

    def __enter__(self) -> Self:
        context = self._context
        try:
            for lanes in self._parts:
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_fill,
                    args=(self._place, self._schema, lanes, self._rate, self._share, theirs),
                    daemon=True,
                )
                _start_without_interrupts(process)
                theirs.close()
                self._running.append((process, ours))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def check(self) -> None:
        """Raise what ended one of the processes."""
        for process, pipe in self._running:
            if pipe.poll():
                try:
                    raise pipe.recv()
                except EOFError:
                    process.join(STOP_TIMEOUT_S)
                    raise ProjectionError(
                        f"a process that fills the new tables ended ({process.exitcode}); repeat the command to go on"
                    ) from None

    def _stop(self) -> None:
        for _, pipe in self._running:
            pipe.close()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process, _ in self._running:
            process.join(max(deadline - time.monotonic(), 0))
            if process.is_alive():  # harmless: what it has not committed is applied by others
                process.kill()
                process.join()
        self._running.clear()


class _Paced(Projector):
    """Applies so many events a second, at most, and works for a part of the time."""

    def __init__(self, *args: Any, stop: threading.Event, rate: float | None, share: Any, **options: Any) -> None:
        limit = BATCH_MAX if rate is None else min(max(int(rate * PACE_S), 1), BATCH_MAX)
        super().__init__(*args, batch_max=limit, batch_bytes=BATCH_BYTES, queue_kb=QUEUE_KB, **options)
        self._stopped, self._rate, self._share = stop, rate, share

    def step(self) -> int:
        began = time.monotonic()
        count = super().step()
        if count:
            self._stopped.wait(rest_s(count, time.monotonic() - began, self._share.value, self._rate))
        return count


def _fill(place: Place, schema: str, lanes: Sequence[int], rate: float | None, share: Any, pipe: Pipe) -> None:
    """The process: apply these lanes until the pipe ends."""
    os.nice(NICE)
    logging.getLogger().addHandler(logging.NullHandler())  # the terminal is for the progress
    stop = threading.Event()
    threading.Thread(target=_await_end, args=(pipe, stop), daemon=True).start()
    try:
        _Paced(
            place.kafka,
            place.names,
            place.lanes,
            place.dsn,
            schema,
            meters=Meters(),
            health=Health("projector"),
            only=lanes,
            stop=stop,
            rate=rate,
            share=share,
        ).run(stop)
    except Exception as error:  # noqa: BLE001 - raised where the processes were started
        known = isinstance(error, JoblogError)
        pipe.send(error if known else ProjectionError(f"filling failed: {type(error).__name__}: {error}"))


def _start_without_interrupts(process: Any) -> None:
    """On Ctrl-C this process stops those that it started: in them SIGINT is blocked from before their first step."""
    resource_tracker.ensure_running()  # or `start` does it, and unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _await_end(pipe: Pipe, stop: threading.Event) -> None:
    pipe.poll(None)
    stop.set()
