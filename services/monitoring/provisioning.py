"""The files by which Grafana finds the dashboards and a Prometheus when it starts."""

from collections.abc import Mapping
from typing import Final

from joblog.services.monitoring.yaml_text import Node

FOLDER: Final = "Joblog"
#: Where the provisioning mounts deploy/grafana/dashboards.
DASHBOARDS: Final = "/var/lib/grafana/dashboards/joblog"


def provisioning() -> Mapping[str, Node]:
    """Each file by its path below Grafana's provisioning directory."""
    return {
        "datasources/joblog.yaml": {
            "apiVersion": 1,
            "datasources": [
                {
                    "name": "Prometheus",
                    "uid": "joblog-prometheus",
                    "type": "prometheus",
                    "access": "proxy",
                    "url": "${JOBLOG_PROMETHEUS_URL}",
                    "jsonData": {"timeInterval": "15s"},
                }
            ],
        },
        "dashboards/joblog.yaml": {
            "apiVersion": 1,
            "providers": [
                {
                    "name": "joblog",
                    "folder": FOLDER,
                    "type": "file",
                    "allowUiUpdates": False,
                    "options": {"path": DASHBOARDS},
                }
            ],
        },
    }
