"""The filters of those who create jobs, with the one that traces if the settings ask for it."""

from collections.abc import Sequence

from joblog.services.client.options import ClientFilter
from joblog.services.settings.model import Settings


def with_tracing(settings: Settings, filters: Sequence[ClientFilter]) -> Sequence[ClientFilter]:
    """`tracing.enabled` puts the filter that traces before the others."""
    if not settings.tracing.enabled:
        return filters
    from joblog.services.client.tracing import TracingClientFilter  # noqa: PLC0415 - of an extra

    return (TracingClientFilter(), *filters)
