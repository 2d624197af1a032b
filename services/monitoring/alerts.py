"""All alerts: on what users feel, on what Joblog does, and on what creates jobs from time and events."""

from typing import Final

from joblog.services.monitoring.alert import Alert
from joblog.services.monitoring.alerts_of_creation import CREATION_ALERTS
from joblog.services.monitoring.alerts_of_jobs import JOB_ALERTS
from joblog.services.monitoring.alerts_of_roles import ROLE_ALERTS

ALERTS: Final[tuple[Alert, ...]] = (*JOB_ALERTS, *ROLE_ALERTS, *CREATION_ALERTS)
