"""For your tests: a whole Joblog in memory, without broker, database, threads or waiting.

::

    with InMemoryJoblog(myapp.tasks) as joblog:
        job = joblog.enqueue(shrink, "a.png")
        joblog.run_all()
        assert joblog.job(job).result == {"width": 640}

An `InMemoryJoblog` is a `Client` whose commands go to lanes in memory. These decide as those of an elector do, since
they are the same code; jobs run in the calling thread, by what a worker runs them with. Recurring jobs are decided by
the rules of `joblog recurring`, events handled by the code of `joblog triggers`. With pytest, the fixture `joblog` is
such an object (streams/pytest_plugin.py).

What is not simulated: processes of their own (`isolation="process"` runs here, too), several workers at once, orders
to workers, and bulk operations.

Inside: in_memory (what users see), with running (runs and time), publishing (events), relaying (outboxes) and
assertions; broker (the lanes, what they tell each other, the clock), inline_worker (runs) by the clock of timed_run,
with what incidents let happen to them, ready_jobs (which is next), recurring, told (events as monitoring shows them),
telling (jobs as texts), stand_ins.
May import: all of client, worker, triggers, projections without Postgres, streams without Faust.
"""

from joblog.services.testing.broker import NotSimulated
from joblog.services.testing.in_memory import InMemoryJoblog
from joblog.services.testing.publishing import EventParked
from joblog.services.testing.relaying import RowNotRelayed
from joblog.services.testing.running import RunRaised, TooManyRuns

__all__ = ["EventParked", "InMemoryJoblog", "NotSimulated", "RowNotRelayed", "RunRaised", "TooManyRuns"]
