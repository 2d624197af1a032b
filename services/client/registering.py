"""Registers what tasks declare with `@recurring`, when a process that knows them starts."""

import logging
from collections.abc import Iterable
from typing import Any

from joblog.services.client.client import Client
from joblog.services.settings.model import Settings
from joblog.services.tasks.recurring import recurrences_of
from joblog.services.tasks.task import Task

log = logging.getLogger(__name__)


def register(settings: Settings, tasks: Iterable[Task[..., Any]]) -> None:
    """Write the definitions that are new or changed; pauses stay as they are."""
    declared = recurrences_of(tasks)
    if not declared:
        return
    with Client.from_settings(settings) as client:
        changed = client.recurring.register(declared)
    log.info("recurring.registered", extra={"declared": sorted(declared), "changed": changed})
