"""All alerts: those on what users feel, and those on what Joblog does."""

from typing import Final

from joblog.services.monitoring.alert import Alert
from joblog.services.monitoring.alerts_of_jobs import JOB_ALERTS
from joblog.services.monitoring.alerts_of_roles import ROLE_ALERTS

ALERTS: Final[tuple[Alert, ...]] = (*JOB_ALERTS, *ROLE_ALERTS)
