"""For your tests: a whole Joblog in memory, without broker, database, threads or waiting.

::

    with InMemoryJoblog(myapp.tasks) as joblog:
        job = joblog.enqueue(shrink, "a.png")
        joblog.run_all()
        assert joblog.job(job).result == {"width": 640}

An `InMemoryJoblog` is a `Client` whose commands go to lanes in memory. These decide as those of an elector do, since
they are the same code; jobs run in the calling thread, by what a worker runs them with. With pytest, the fixture
`joblog` is such an object (streams/pytest_plugin.py).

What is not simulated: the time-outs of tasks (a run takes no time), processes of their own (`isolation="process"`
runs here, too), recurring definitions, triggers, and lost workers.

Inside: broker (the lanes, what they tell each other, the clock), inline_worker (runs), told (events as monitoring
shows them), assertions, in_memory (what users see). May import: all of client, worker, projections without Postgres,
streams.
"""

from joblog.services.testing.in_memory import InMemoryJoblog

__all__ = ["InMemoryJoblog"]
