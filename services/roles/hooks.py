"""The composition root of the process that tells hooks of transitions."""

from joblog.services.hooks.hook import HookRegistry
from joblog.services.roles.runner import Builder
from joblog.services.roles.topics import on_checked_topics
from joblog.services.settings.model import Settings
from joblog.streams.errors import SettingsError
from joblog.streams.health import Health
from joblog.streams.hooks.calling import ROLE
from joblog.streams.hooks.reader import TransitionReader
from joblog.streams.metrics import Meters
from joblog.streams.patience import Patience


def hooks(settings: Settings) -> Builder:
    """The process that calls the functions of the modules in `hooks.modules`."""
    chosen = settings.hooks
    if not chosen.modules:
        raise SettingsError("hooks need modules with functions: give --modules myapp.hooks, or JOBLOG_HOOKS__MODULES")
    registry = HookRegistry.load(*chosen.modules)

    def build(meters: Meters, health: Health) -> TransitionReader:
        return TransitionReader(
            settings.kafka.config(),
            settings.names,
            tuple(registry),
            group=chosen.group or f"{settings.topic_prefix}{ROLE}",
            start=chosen.start,
            patience=Patience(chosen.attempts, chosen.delay_s, chosen.delay_max_s),
            meters=meters,
            health=health,
        )

    return on_checked_topics(ROLE, settings, build)
