"""Checks of the lanes: whether one was set aside, and what helps; called when all topics are as they should be."""

from collections.abc import Iterator

from joblog.services.doctor.doctor import Finding, fail, ok
from joblog.services.settings.model import Settings
from joblog.streams.elector.lanes_status import lane_statuses


def examine_lanes(settings: Settings) -> Iterator[Finding]:
    """Each lane that does not work, with its reason."""
    aside = [one for one in lane_statuses(settings.kafka.config(), settings.names, settings.lanes) if one.aside]
    for status in aside:
        assert status.aside is not None
        reason = f"set aside ({status.aside.code}): {status.aside.reason}"
        yield fail(f"lane {status.number}", reason, status.remedy)
    if not aside:
        yield ok("lanes", f"none of the {settings.lanes} lanes is set aside")
