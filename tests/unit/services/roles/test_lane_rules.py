"""The settings of an elector as the rules of its lanes."""

import pytest
from joblog.services.roles.wiring import lane_rules
from joblog.services.settings.model import Settings
from joblog.streams.errors import SettingsError
from joblog.streams.lane.rules import LaneRules


def test_without_settings_lanes_have_the_rules_that_are_documented() -> None:
    assert lane_rules(Settings()) == LaneRules()


def test_how_long_failed_jobs_and_ended_batches_are_kept_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"FAILED_KEPT": "5", "FAILED_FOR": "36h", "BATCHES_KEPT": "7", "BATCHES_FOR": "90s"}
    for name, value in said.items():
        monkeypatch.setenv(f"JOBLOG_ELECTOR__{name}", value)
    rules = lane_rules(Settings.load())
    assert (rules.failed_kept, rules.failed_ms) == (5, 36 * 3_600_000)
    assert (rules.batches_kept, rules.batches_ms) == (7, 90_000)


@pytest.mark.parametrize("value", ["soon", "0s", "4000d", "off"])
def test_what_is_no_such_time_is_refused_with_its_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("JOBLOG_ELECTOR__BATCHES_FOR", value)
    with pytest.raises(SettingsError, match=r"JOBLOG_ELECTOR__BATCHES_FOR.*write 12h or 30d"):
        Settings.load()
