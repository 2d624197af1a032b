"""The composition root of the recurring process."""

from joblog.services.client.registering import register
from joblog.services.roles.runner import Builder
from joblog.services.roles.topics import on_checked_topics
from joblog.services.settings.model import Settings
from joblog.services.tasks.task import TaskRegistry
from joblog.streams.health import Health
from joblog.streams.metrics import Meters
from joblog.streams.recurring.jobs import Installation
from joblog.streams.recurring.process import Recurring


def recurring(settings: Settings) -> Builder:
    """The process that creates the jobs of recurring definitions; it first registers those of `recurring.tasks`."""
    modules = settings.recurring.tasks
    registry = TaskRegistry.load(*modules) if modules else TaskRegistry({})

    def build(meters: Meters, health: Health) -> Recurring:
        return Recurring(
            settings.kafka.config(),
            settings.names,
            Installation(settings.lanes, settings.queue_shards, settings.queue_shards_before),
            meters=meters,
            health=health,
            prepare=lambda: register(settings, registry),
        )

    return on_checked_topics("recurring", settings, build)
