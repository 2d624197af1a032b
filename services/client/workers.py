"""The client's part for workers: from outside, let them take no more jobs, take some again, or stop."""

from collections.abc import Callable, Sequence

from joblog.services.client.changes import control_record
from joblog.services.client.templates import CommandRecord, Rules
from joblog.streams.contract.controls import Control, QuietWorker, ResumeWorker, StopWorker, home_of_worker
from joblog.streams.errors import InvalidData

Send = Callable[[Sequence[CommandRecord]], None]


class Workers:
    """`client.workers`; thread-safe. A worker is named by its id, which `joblog workers` lists.

    The command goes to the worker's home lane, which its id names. If no such worker announces itself there, it is
    rejected (`unknown_worker`). Raises InvalidData for an id that names no lane.
    """

    def __init__(self, send: Send, rules: Rules) -> None:
        self._send, self._rules = send, rules

    def quiet(self, worker: str, *, by: str | None = None, reason: str | None = None) -> None:
        """Give a worker no more jobs; it finishes what it runs, and waits to be resumed or stopped."""
        self._tell(QuietWorker, worker, by, reason)

    def resume(self, worker: str, *, by: str | None = None, reason: str | None = None) -> None:
        """Give a worker jobs again that was told to take no more; one that was told to stop stops."""
        self._tell(ResumeWorker, worker, by, reason)

    def stop(self, worker: str, *, by: str | None = None, reason: str | None = None) -> None:
        """Stop a worker in order, as SIGTERM does: what does not end within its grace time is given back.

        Its process ends with code 0; whether it starts again is its supervisor's business.
        """
        self._tell(StopWorker, worker, by, reason)

    def _tell(self, kind: type[Control], worker: str, by: str | None, reason: str | None) -> None:
        lane = home_of_worker(worker)
        if lane is None or lane >= self._rules.lanes:
            raise InvalidData(
                f"{worker!r:.210} is not the id of a worker of this installation: `joblog workers` lists them"
            )
        said = {"worker": worker, "by": by, "reason": reason}
        self._send([control_record(kind, said, self._rules, worker, lane)])
