"""The proof of a demonstration: its log, folded again, must say what Postgres and the electors' state say."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from joblog.projections.replay.verification.report import Report
from joblog.projections.replay.verification.verification import Verification
from joblog.services.detection.stage import Stage


def verified(stage: Stage) -> Report:
    """Verify the log of this stage, as `joblog replay verify` does."""
    with TemporaryDirectory(prefix="joblog-verify-") as name:
        verification = Verification(
            stage.kafka, stage.names, stage.lanes, Path(name), dsn=stage.dsn, schema=stage.schema
        )
        return verification.run()


def told(report: Report) -> str:
    """The outcome in one line."""
    read = f"{report.events:,} events of {report.jobs:,} jobs"
    if report.holds:
        return f"{read}: Postgres and the electors' state say the same"
    return f"{read}; found: {report.found}"


def proven(report: Report) -> dict[str, Any]:
    """The outcome for `--output json`."""
    return {
        "holds": report.holds,
        "events": report.events,
        "jobs": report.jobs,
        "counts": report.counts,
        "findings": report.findings,
    }
