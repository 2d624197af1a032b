"""An installation's log, verified against its tables and its electors' state."""

from pathlib import Path
from typing import Any

from joblog.projections.replay.verification.report import Report
from joblog.projections.replay.verification.verification import Verification


def verified(at: Any, directory: Path) -> Report:
    """The report; `at` is an installation, and the directory is made for what verification needs."""
    directory.mkdir()
    return Verification(at.kafka, at.names, at.lanes, directory, dsn=at.dsn, schema=at.schema).run()
