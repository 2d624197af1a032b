"""The questions that people ask of the projection: jobs, queues, workers, counts.

::

    from joblog.projections.monitor import Monitor
"""

from joblog.projections.monitor.monitor import Monitor

__all__ = ["Monitor"]
