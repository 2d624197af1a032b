"""The generated documents: up to date, complete, and accepted by promtool and by Grafana's library."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from joblog.services.cli.app import app
from joblog.services.monitoring.alert import Alert
from joblog.services.monitoring.alerts import ALERTS
from joblog.services.monitoring.board import Panel
from joblog.services.monitoring.boards import BOARDS
from joblog.services.monitoring.documents import DEPLOY, FILES, documents
from joblog.services.monitoring.grafana import TAG
from joblog.services.monitoring.promql import UnknownMetric, checked, names, row_of, with_variables
from joblog.services.monitoring.records import RECORDS
from joblog.services.monitoring.rules import rules
from joblog.streams.metrics import METRICS
from typer.main import get_command

EXPECTED = documents()
RULES = DEPLOY / "prometheus"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus; the rules are not checked"
)


def promtool(*arguments: str | Path) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_documents_are_those_of_the_code() -> None:
    assert FILES.drifted(DEPLOY, EXPECTED) == []


def test_drift_is_found_and_left_over_documents_are_removed(tmp_path: Path) -> None:
    FILES.write(tmp_path, EXPECTED)
    assert FILES.drifted(tmp_path, EXPECTED) == []
    (tmp_path / "runbooks.md").write_text("else")
    (tmp_path / "metrics.md").unlink()
    (tmp_path / "grafana/dashboards/old.json").write_text("{}")
    assert FILES.drifted(tmp_path, EXPECTED) == [
        "grafana/dashboards/old.json: left over",
        "metrics.md: missing",
        "runbooks.md: differs from the code",
    ]
    FILES.write(tmp_path, EXPECTED)
    assert FILES.drifted(tmp_path, EXPECTED) == []


# --- Prometheus ---


@needs_promtool
def test_promtool_accepts_rules_and_configuration() -> None:
    assert f"{len(ALERTS) + len(RECORDS)} rules found" in promtool("check", "rules", RULES / "rules.yaml")
    promtool("check", "config", RULES / "prometheus.yaml")


@needs_promtool
def test_each_alert_fires_when_it_should_and_not_when_it_should_not(tmp_path: Path) -> None:
    FILES.write(tmp_path, EXPECTED)
    files = sorted((tmp_path / "prometheus" / "tests").glob("*.yaml"))
    assert [path.stem for path in files] == sorted(alert.name for alert in ALERTS)
    assert promtool("test", "rules", *files).count("SUCCESS") == len(ALERTS)


@needs_promtool
@pytest.mark.parametrize("change", [("fires", "exp_alerts: []"), ("does not fire", "exp_alerts: [{exp_labels: {}}]")])
def test_promtool_notices_an_alert_that_does_otherwise(tmp_path: Path, change: tuple[str, str]) -> None:
    shutil.copy(RULES / "rules.yaml", tmp_path)
    (tmp_path / "tests").mkdir()
    text = (RULES / "tests/JoblogNoWorkers.yaml").read_text()
    end = text.index('  - name: "JoblogNoWorkers does not fire"')
    begin = text.rindex("exp_alerts:", 0, end)
    wrong = text[:begin] + "exp_alerts: []\n" + text[end:]
    if change[0] != "fires":
        wrong = text.replace("exp_alerts: []", change[1])
    (tmp_path / "tests/a.yaml").write_text(wrong)
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "test", "rules", str(tmp_path / "tests/a.yaml")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "FAILED" in done.stdout + done.stderr


def load_rule(alert: Alert) -> Any:
    loaded: Any = rules()
    (rule,) = [rule for group in loaded["groups"] for rule in group["rules"] if rule.get("alert") == alert.name]
    return rule


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_each_alert_has_a_test_both_ways_and_a_runbook(alert: Alert) -> None:
    assert alert.fires
    assert alert.quiet
    assert alert.fires != alert.quiet
    test = EXPECTED[f"prometheus/tests/{alert.name}.yaml"]
    assert f"{alert.name} fires" in test
    assert f"{alert.name} does not fire" in test
    assert f"\n## {alert.name}\n" in EXPECTED["runbooks.md"]
    assert f'runbook_url: "deploy/runbooks.md#{alert.name.lower()}"' in EXPECTED["prometheus/rules.yaml"]
    assert alert.fix in load_rule(alert)["annotations"]["description"]
    for text in (alert.means, alert.look, alert.fix):
        assert len(text) > 20 or text.endswith(".")


def test_the_address_of_the_runbooks_can_be_given() -> None:
    text = documents("https://wiki.example/joblog.md")["prometheus/rules.yaml"]
    assert "https://wiki.example/joblog.md#joblogfenced" in text


def test_the_runbooks_name_commands_that_exist() -> None:
    root: Any = get_command(app)
    found = re.findall(r"`joblog ([a-z]+)(?: ([a-z]+))?", EXPECTED["runbooks.md"])
    assert len(found) > 20
    for first, second in found:
        command = root.commands[first]
        if second and hasattr(command, "commands"):
            assert second in command.commands, f"joblog {first} {second}"


# --- queries ---


@pytest.mark.parametrize(
    "query",
    ["rate(joblog_no_such_total[5m])", "joblog_job_wait_seconds", "joblog_lanes_bucket", "joblog:no_rule:rate5m > 1"],
)
def test_a_query_with_an_unknown_metric_is_refused(query: str) -> None:
    with pytest.raises(UnknownMetric):
        checked(query)
    with pytest.raises(UnknownMetric):
        with_variables(query)


def test_variables_become_matchers_where_the_metric_has_the_label() -> None:
    assert with_variables('sum(rate(joblog_jobs{state="Failed"}[5m])) / joblog_lanes') == (
        'sum(rate(joblog_jobs{state="Failed", instance=~"$instance", queue=~"$queue"}[5m]))'
        ' / joblog_lanes{instance=~"$instance"}'
    )


# --- Grafana ---

PANELS = [(board.uid, panel) for board in BOARDS for row in board.rows for panel in row.panels]


def test_each_metric_is_on_a_dashboard() -> None:
    shown = {row_of(name).name for _, panel in PANELS for query, _ in panel.queries for name in names(query)}
    assert {row.name for row in METRICS} - shown == set()


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_dashboard_is_the_same_after_the_library_has_read_it(board: Any) -> None:
    register_default_plugins()
    found = json.loads(EXPECTED[f"grafana/dashboards/{board.uid}.json"])
    again = json.loads(json.dumps(Dashboard.from_json(found), cls=JSONEncoder))
    assert again == found


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_dashboard_keeps_the_rules_of_dashboards(board: Any) -> None:
    found = json.loads(EXPECTED[f"grafana/dashboards/{board.uid}.json"])
    assert found["uid"] == board.uid
    assert found["tags"] == [TAG]
    assert found["editable"] is False
    assert "__inputs" not in found
    assert [one["name"] for one in found["templating"]["list"]] == ["datasource", "queue", "task", "instance"]
    assert found["links"][0]["tags"] == [TAG]
    panels = [panel for panel in found["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in found["panels"]]
    assert len(set(places)) == len(places)
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert 'instance=~"$instance"' in target["expr"]
            assert "rate(" not in target["expr"] or "[$__rate_interval]" in target["expr"]


@pytest.mark.parametrize(("uid", "panel"), PANELS, ids=lambda one: getattr(one, "title", one))
def test_legends_name_labels_that_the_query_has(uid: str, panel: Panel) -> None:
    for query, legend in panel.queries:
        for label in re.findall(r"\{\{(\w+)\}\}", legend):
            assert re.search(rf"by \([^)]*\b{label}\b", query), f"{panel.title}: {label}"
