"""Tracing without OpenTelemetry: the error names what to install."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from joblog.services.client.client import Client
from joblog.services.roles import wiring
from joblog.services.settings.model import Settings, TracingSettings
from joblog.streams.errors import SettingsError
from joblog.streams.metrics import Meters


def spans_of_elector(settings: Settings) -> Any:
    return wiring.spans_of_elections(settings, Meters(role="elector"))


@pytest.mark.parametrize("make", [Client.from_settings, spans_of_elector])
def test_who_shall_trace_without_the_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[Settings], Any]
) -> None:
    for name in ("tracing.tracer", "client.tracing", "tracing.elections"):
        import_module(f"joblog.services.{name}")
        monkeypatch.delitem(sys.modules, f"joblog.services.{name}")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(SettingsError, match=r'pip install "joblog\[otel\]"'):
        make(Settings(tracing=TracingSettings(enabled=True)))


def test_an_elector_that_shall_not_trace_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert spans_of_elector(Settings()) is None
