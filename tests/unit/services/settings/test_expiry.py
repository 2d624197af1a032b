import pytest
from joblog.projections.expiry.rules import Rules, is_idle
from joblog.services.settings.expiry import ExpirySettings
from joblog.services.settings.model import Settings
from joblog.streams.contract.states import State
from joblog.streams.errors import SettingsError

DAY = 86_400.0


def test_by_default_ends_are_kept_as_hangfire_keeps_them_and_failures_for_a_month() -> None:
    assert ExpirySettings().rules.states == {State.SUCCEEDED: DAY, State.DELETED: DAY, State.FAILED: 30 * DAY}


def test_each_state_queue_and_task_may_have_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBLOG_EXPIRY__SUCCEEDED", "12h")
    monkeypatch.setenv("JOBLOG_EXPIRY__FAILED", "off")
    monkeypatch.setenv("JOBLOG_EXPIRY__QUEUES", '{"audit": {"succeeded": "90d"}}')
    monkeypatch.setenv("JOBLOG_EXPIRY__TASKS", '{"images.shrink": {"deleted": "90s"}}')
    monkeypatch.setenv("JOBLOG_EXPIRY__CHECK", "30s")
    settings = Settings.load().expiry
    assert settings.check_s == 30
    assert settings.rules == Rules(
        {State.SUCCEEDED: DAY / 2, State.DELETED: DAY, State.FAILED: None},
        {"audit": {State.SUCCEEDED: 90 * DAY}},
        {"images.shrink": {State.DELETED: 90.0}},
        45 * DAY,
        1100 * DAY,
        {State.SUCCEEDED: 7 * DAY, State.DELETED: 7 * DAY, State.FAILED: None},
    )


@pytest.mark.parametrize(
    ("batches", "failed", "kept", "kept_failed"),
    [("7d", "30d", 7 * DAY, 30 * DAY), ("90d", "30d", 90 * DAY, 90 * DAY), ("off", "30d", None, None),
     ("7d", "off", 7 * DAY, None)],
)  # fmt: skip
def test_batches_have_a_time_of_their_own_and_failed_ones_that_of_failed_jobs_if_it_is_longer(
    batches: str, failed: str, kept: float | None, kept_failed: float | None
) -> None:
    rules = ExpirySettings(batches=batches, failed=failed).rules
    assert rules.batches == {State.SUCCEEDED: kept, State.DELETED: kept, State.FAILED: kept_failed}


def test_nothing_expires_where_all_is_off() -> None:
    off = ExpirySettings(succeeded="off", deleted="off", failed="off", batches="off", hours="off", days="off")
    assert is_idle(off.rules)
    assert not is_idle(off.model_copy(update={"batches": "1d"}).rules)
    assert not is_idle(ExpirySettings(succeeded="off", deleted="off").rules)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("SUCCEEDED", "soon", r"JOBLOG_EXPIRY__SUCCEEDED.*not a time to keep rows for: write 12h, 30d, or off"),
        ("FAILED", "40000d", r"JOBLOG_EXPIRY__FAILED.*not a time to keep rows for"),
        ("CHECK", "off", r"JOBLOG_EXPIRY__CHECK.*not an interval: write 30s, 5m or 1h"),
        ("CHECK", "0s", r"JOBLOG_EXPIRY__CHECK.*not an interval"),
        ("QUEUES", '{"audit": {"processing": "1d"}}', r"JOBLOG_EXPIRY__QUEUES.*'succeeded', 'deleted' or 'failed'"),
        ("TASKS", '{"images.shrink": "1d"}', r"JOBLOG_EXPIRY__TASKS"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(f"JOBLOG_EXPIRY__{name}", value)
    with pytest.raises(SettingsError, match=told):
        Settings.load()
