"""The composition root of the process that turns other services' events into jobs."""

from joblog.services.client.templates import Rules
from joblog.services.roles.runner import Builder
from joblog.services.roles.topics import on_checked_topics
from joblog.services.settings.model import Settings
from joblog.services.triggers.bound import BoundTrigger, CallsApart
from joblog.services.triggers.trigger import TriggerRegistry
from joblog.streams.errors import SettingsError
from joblog.streams.health import Health
from joblog.streams.metrics import Meters
from joblog.streams.patience import Patience
from joblog.streams.triggers.handling import ROLE
from joblog.streams.triggers.process import Triggers


def triggers(settings: Settings) -> Builder:
    """The process that calls the functions of the modules in `triggers.modules`."""
    chosen = settings.triggers
    if not chosen.modules:
        raise SettingsError(
            "triggers need modules with functions: give --modules myapp.triggers, or JOBLOG_TRIGGERS__MODULES"
        )
    registry = TriggerRegistry.load(*chosen.modules)
    names = settings.names
    if ours := [topic for topic in registry.topics if topic in {names.commands, names.deadletters}]:
        raise SettingsError(f"a trigger on {ours[0]} would read what it writes itself: choose another topic")
    rules = Rules(
        settings.lanes,
        settings.queue_shards,
        "/joblog/triggers",
        settings.client.args_bytes_max,
        settings.queue_shards_before,
    )

    def build(meters: Meters, health: Health) -> Triggers:
        calls = CallsApart()
        return Triggers(
            settings.kafka.config(),
            names,
            [BoundTrigger(one, rules, calls) for one in registry],
            registry.topics,
            group=chosen.group or f"{settings.topic_prefix}{ROLE}",
            start_at_end=chosen.start == "latest",
            patience=Patience(chosen.attempts, chosen.delay_s, chosen.delay_max_s),
            meters=meters,
            health=health,
        )

    return on_checked_topics(ROLE, settings, build)
