"""Prometheus' own files: configuration, rules, and the tests of the rules for promtool."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from joblog.services.monitoring.alert import LABEL, Alert, Series
from joblog.services.monitoring.alerts import ALERTS
from joblog.services.monitoring.pace import AS_IN_OPERATION, Pace
from joblog.services.monitoring.promql import checked
from joblog.services.monitoring.records import RECORDS
from joblog.services.monitoring.yaml_text import Node

#: The ports in the README; a process has the port that `--http-port` or JOBLOG_HTTP__PORT gives it.
PORTS: Final[Mapping[str, int]] = {
    "elector": 9101,
    "delays": 9102,
    "worker": 9103,
    "projector": 9104,
    "recurring": 9105,
    "triggers": 9106,
    "outbox": 9107,
    "hooks": 9108,
}
RULES_FILE: Final = "rules.yaml"
#: Where the runbooks are, seen from nowhere in particular: give the generator a real address for links in alerts.
RUNBOOKS: Final = "deploy/runbooks.md"
_RECORDED: Final = frozenset(record.name for record in RECORDS)


def config(targets: Mapping[str, Sequence[str]], interval: str = "15s") -> Node:
    """Prometheus' configuration for these targets by role, with the rules beside it."""
    return {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [RULES_FILE],
        "scrape_configs": [
            {"job_name": f"joblog-{role}", "static_configs": [{"targets": list(at)}]} for role, at in targets.items()
        ],
    }


def rules(runbooks: str = RUNBOOKS, pace: Pace = AS_IN_OPERATION) -> Node:
    """All rules; UnknownMetric if one names what is not there."""
    records: list[Node] = [{"record": one.name, "expr": pace.expr(checked(one.expr))} for one in RECORDS]
    alerts: list[Node] = [_rule(alert, runbooks, pace) for alert in ALERTS]
    return {"groups": [{"name": "joblog-records", "rules": records}, {"name": "joblog-alerts", "rules": alerts}]}


def _rule(alert: Alert, runbooks: str, pace: Pace) -> Node:
    return {
        "alert": alert.name,
        "expr": pace.expr(checked(alert.expr, _RECORDED)),
        "for": pace.lasts(alert.lasts),
        "labels": {"severity": alert.severity},
        "annotations": _annotations(alert, alert.summary, runbooks),
    }


def _annotations(alert: Alert, summary: str, runbooks: str) -> Node:
    """What is wrong, what that means and what helps, for people who see nothing but the alert."""
    return {
        "summary": summary,
        "description": f"{alert.means} What helps: {alert.fix}",
        "runbook_url": _runbook(alert, runbooks),
    }


def _runbook(alert: Alert, runbooks: str) -> str:
    return f"{runbooks}#{alert.name.lower()}"


def rule_tests() -> Mapping[str, Node]:
    """For each alert, by the name of its file, what promtool has to see: when it fires, and that else it does not."""
    return {f"tests/{alert.name}.yaml": _tests(alert) for alert in ALERTS}


def _tests(alert: Alert) -> Node:
    expected = {
        "exp_labels": {"severity": alert.severity, **alert.labels},
        "exp_annotations": _annotations(
            alert, LABEL.sub(lambda match: alert.labels[match[1]], alert.summary), RUNBOOKS
        ),
    }
    return {
        "rule_files": [str(Path("..") / RULES_FILE)],
        "evaluation_interval": "1m",
        "tests": [
            _test(f"{alert.name} fires", alert.fires, [*_too_early(alert), _at(alert, alert.minutes, [expected])]),
            _test(f"{alert.name} does not fire", alert.quiet, [_at(alert, alert.minutes, [])]),
        ],
    }


def _too_early(alert: Alert) -> list[Node]:
    """Nothing fires before its expression can have held for long enough."""
    minutes = int(alert.lasts.removesuffix("m"))
    return [_at(alert, minutes - 1, [])] if minutes else []


def _at(alert: Alert, minutes: int, expected: list[Node]) -> Node:
    return {"eval_time": f"{minutes}m", "alertname": alert.name, "exp_alerts": expected}


def _test(name: str, series: Series, at: list[Node]) -> Node:
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "alert_rule_test": at,
    }
