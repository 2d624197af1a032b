"""The processes, and what services that use Joblog import: clients and tasks.

::

    from joblog.services import Client, JobOptions, Settings, task
"""

from joblog.services.client import Client
from joblog.services.client_options import Call, ClientFilter, CreationCancelled, JobDraft, JobOptions
from joblog.services.context import CancellationToken, JobContext, current_job
from joblog.services.settings import Settings
from joblog.services.tasks import Task, TaskRegistry, task
from joblog.streams.retry import Curve, OnExceeded, RetryPolicy
from joblog.streams.states import ContinueOn, State

__all__ = [
    "Call",
    "CancellationToken",
    "Client",
    "ClientFilter",
    "ContinueOn",
    "CreationCancelled",
    "Curve",
    "JobContext",
    "JobDraft",
    "JobOptions",
    "OnExceeded",
    "RetryPolicy",
    "Settings",
    "State",
    "Task",
    "TaskRegistry",
    "current_job",
    "task",
]
