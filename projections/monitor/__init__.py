"""The questions that people ask of the projection: jobs, queues, workers, counts.

::

    from joblog.projections.monitor import Monitor

Inside: monitor (the questions) with monitor.sql, reads (the connections), job_filter and paging (which part of a
list), bulk (operations on many jobs), rows and models (the answers). `Monitor`, bulk, models and job_filter are
public. Everything here only reads. May import: projections.schema, projections.database, .statements and
.questions, streams; never the projector.
"""

from joblog.projections.monitor.monitor import Monitor

__all__ = ["Monitor"]
