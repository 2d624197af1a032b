"""Prometheus beside the stack, where it is not installed."""

import pytest
from joblog.services.cli.app import app
from joblog.services.monitoring.server import find_prometheus
from joblog.streams.errors import StackError
from typer.testing import CliRunner


def test_a_missing_prometheus_is_an_error_that_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StackError, match="apt-get install prometheus"):
        find_prometheus()


def test_up_says_so_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("PATH", "")
    result = CliRunner().invoke(app, ["up", "--monitor", "--directory", f"{tmp_path}/new"])
    assert result.exception is not None
    assert "apt-get install prometheus" in str(result.exception) + result.output
