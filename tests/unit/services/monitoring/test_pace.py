"""Rules at another pace: shorter durations, and otherwise the same."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from joblog.services.monitoring import rules
from joblog.services.monitoring.alerts import ALERTS
from joblog.services.monitoring.pace import AS_IN_OPERATION, Pace
from joblog.services.monitoring.yaml_text import dump

PACE = Pace(times=300, range_min_s=15, age_min_s=5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rate(a[6h])", "rate(a[72s])"),
        ("rate(a[5m]) / rate(b[1h]) > 20", "rate(a[15s]) / rate(b[15s]) > 20"),
        ("time() - min by (queue) (a) > 9000", "time() - min by (queue) (a) > 30"),
        ("time() - min(a) > 60", "time() - min(a) > 5"),
        ("joblog:job_wait_slow:ratio_rate1h > 0.144", "joblog:job_wait_slow:ratio_rate1h > 0.144"),
    ],
)
def test_ranges_and_ages_become_shorter(text: str, expected: str) -> None:
    assert PACE.expr(text) == expected
    assert AS_IN_OPERATION.expr(text) == text


@pytest.mark.parametrize(("text", "expected"), [("30m", "6s"), ("2m", "1s"), ("0m", "0s")])
def test_what_lasts_becomes_shorter_but_not_nothing(text: str, expected: str) -> None:
    assert PACE.lasts(text) == expected
    assert AS_IN_OPERATION.lasts(text) == text


def test_nothing_else_of_the_rules_changes() -> None:
    as_is, faster = dump(rules.rules()), dump(rules.rules(pace=PACE))
    assert as_is != faster

    def without(text: str) -> str:
        lasting = re.sub(r'for: "\w+"', "for:", text)
        return re.sub(r'\[\w+\]|(time\(\) - .*? > )\d+( unless .*)?"', r"\1\2", lasting)

    assert without(as_is) == without(faster)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_no_alert_waits_for_minutes(alert: rules.Alert) -> None:
    assert int(PACE.lasts(alert.lasts)[:-1]) <= 6
    assert all(int(found) <= 72 for found in re.findall(r"\[(\d+)s\]", PACE.expr(alert.expr)))
    assert not re.search(r"\[\d+[mh]\]", PACE.expr(alert.expr))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus")
def test_promtool_accepts_the_faster_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(dump(rules.rules(pace=PACE)))
    command = ["promtool", "check", "rules", str(tmp_path / "rules.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
