"""Tracing without OpenTelemetry: the error names what to install."""

import sys
from importlib import import_module

import pytest
from joblog.services.client.client import Client
from joblog.services.settings.model import Settings, TracingSettings
from joblog.streams.errors import SettingsError


def test_a_client_that_shall_trace_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("joblog.services.tracing.tracer", "joblog.services.client.tracing"):
        import_module(name)
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(SettingsError, match=r'pip install "joblog\[otel\]"'):
        Client.from_settings(Settings(tracing=TracingSettings(enabled=True)))
