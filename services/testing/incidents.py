"""What a test lets happen to runs: that they take time, and that their worker is lost before it reports their end."""

from joblog.services.tasks.context import JobContext
from joblog.services.testing.broker import Broker
from joblog.services.testing.inline_worker import InlineWorker
from joblog.services.worker.filters import Ended


class Incidents:
    """A worker filter, called when everything of a run is done but the report.

    - takes_ms: how long a run of each task takes by the test's clock. to_lose: of so many runs the worker is lost.
    """

    #: Before all others, and so the last one after a run.
    order = -1_000_000

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._worker: InlineWorker | None = None
        self.takes_ms: dict[str, int] = {}
        self.to_lose = 0

    def belong_to(self, worker: InlineWorker) -> None:
        """The worker whose runs these are; it is made with its filters."""
        self._worker = worker

    def before_run(self, context: JobContext) -> None:
        """Nothing happens before a run."""

    def after_run(self, context: JobContext, outcome: Ended) -> None:  # noqa: ARG002
        """Let time pass, and then lose the worker; a run whose end is told already is left alone."""
        worker = self._worker
        assert worker is not None
        if worker.holds(context.job_id, context.lease):
            self._broker.advance_to(self._broker.now_ms + self.takes_ms.get(context.task, 0))
        if self.to_lose and worker.holds(context.job_id, context.lease):
            self.to_lose -= 1
            worker.lose()
