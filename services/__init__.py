"""Clients and tasks: what a service that uses Joblog imports. The packages below have the processes.

::

    from joblog.services import Client, JobOptions, Settings, task
"""

from joblog.services.client.client import Client
from joblog.services.client.filters import IdempotentCompletion, LatencyTimeout
from joblog.services.client.options import Call, ClientFilter, CreationCancelled, JobDraft, JobOptions
from joblog.services.hooks.hook import Hook, on_transition
from joblog.services.settings.model import Settings
from joblog.services.tasks.context import CancellationToken, JobContext, current_job
from joblog.services.tasks.limits import Limit
from joblog.services.tasks.parents import ParentEnd
from joblog.services.tasks.recurring import recurring
from joblog.services.tasks.task import Task, TaskRegistry, task
from joblog.services.triggers.jobs import Job
from joblog.services.triggers.trigger import Trigger, trigger
from joblog.streams.contract.commands import Parents, Unique
from joblog.streams.contract.recurring import Misfire, Overlap
from joblog.streams.contract.relations import LimitKind, Need, UniquePolicy, UniqueUntil
from joblog.streams.contract.retry import Curve, OnExceeded, RetryPolicy
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.hooks.transition import Transition
from joblog.streams.triggers.incoming import IncomingEvent

__all__ = [
    "Call",
    "CancellationToken",
    "Client",
    "ClientFilter",
    "ContinueOn",
    "CreationCancelled",
    "Curve",
    "Hook",
    "IdempotentCompletion",
    "IncomingEvent",
    "Job",
    "JobContext",
    "JobDraft",
    "JobOptions",
    "LatencyTimeout",
    "Limit",
    "LimitKind",
    "Misfire",
    "Need",
    "OnExceeded",
    "Overlap",
    "ParentEnd",
    "Parents",
    "RetryPolicy",
    "Settings",
    "State",
    "Task",
    "TaskRegistry",
    "Transition",
    "Trigger",
    "Unique",
    "UniquePolicy",
    "UniqueUntil",
    "current_job",
    "on_transition",
    "recurring",
    "task",
    "trigger",
]
