"""The generated documents of monitoring: written, or compared with what is there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import typer
from joblog.services.monitoring import rules, texts
from joblog.services.monitoring.boards import BOARDS
from joblog.services.monitoring.grafana import dashboard_json
from joblog.services.monitoring.provisioning import provisioning
from joblog.services.monitoring.yaml_text import dump
from joblog.services.schemas.generated import GeneratedFiles

DEPLOY: Final = Path(__file__).resolve().parents[2] / "deploy"
FILES: Final = GeneratedFiles(("metrics.md", "runbooks.md", "prometheus/**/*", "grafana/**/*"), "code")


def documents(runbooks: str = rules.RUNBOOKS) -> Mapping[str, str]:
    """Each document by its path below deploy/."""
    targets = {role: [f"localhost:{port}"] for role, port in rules.PORTS.items()}
    return {
        "metrics.md": texts.metrics(),
        "runbooks.md": texts.runbooks(),
        "prometheus/prometheus.yaml": dump(rules.config(targets)),
        f"prometheus/{rules.RULES_FILE}": dump(rules.rules(runbooks)),
        **{f"prometheus/{name}": dump(test) for name, test in rules.rule_tests().items()},
        **{f"grafana/dashboards/{board.uid}.json": dashboard_json(board) for board in BOARDS},
        **{f"grafana/provisioning/{name}": dump(node) for name, node in provisioning().items()},
    }


def main(
    check: Annotated[bool, typer.Option(help="Write nothing; exit with 1 if a document differs.")] = False,
    directory: Annotated[Path, typer.Option(help="Directory of the documents.")] = DEPLOY,
    runbooks: Annotated[str, typer.Option(help="Address of runbooks.md, for the links in alerts.")] = rules.RUNBOOKS,
) -> None:
    """Generate the rules, alerts, runbooks, dashboards and the list of metrics from the code."""
    expected = documents(runbooks)
    if not check:
        FILES.write(directory, expected)
    elif said := FILES.drifted(directory, expected):
        print("\n".join(said))
        print("Run python -m joblog.services.monitoring to generate them again.")
        raise typer.Exit(1)
