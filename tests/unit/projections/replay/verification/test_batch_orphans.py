"""Which jobs wait in vain for a batch."""

import pytest
from joblog.projections.projector.fold import job_key
from joblog.projections.replay.verification.orphans import ANSWER_MS, Wait, batch_orphans
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.states import ContinueOn
from joblog.streams.contract.timestamps import EPOCH

ENDED = EPOCH.isoformat()
CHILD, BATCH = new_job_id(0, 1, 1), new_job_id(0, 1, 2)


@pytest.mark.parametrize(
    ("state", "on", "age_ms", "is_in_vain"),
    [
        ("Succeeded", ContinueOn.SUCCEEDED, ANSWER_MS + 1, True),
        ("Succeeded", ContinueOn.SUCCEEDED, ANSWER_MS, False),
        ("Processing", ContinueOn.ENDED, 10 * ANSWER_MS, False),
        ("Failed", ContinueOn.SUCCEEDED, 10 * ANSWER_MS, False),
        ("Failed", ContinueOn.ENDED, 10 * ANSWER_MS, True),
    ],
)
def test_a_job_waits_in_vain_if_the_end_that_decides_was_long_ago(
    state: str, on: ContinueOn, age_ms: int, is_in_vain: bool
) -> None:
    wait = Wait(job_key(CHILD), on, 0, 3, 7)
    found = list(batch_orphans(BATCH, state, ENDED, [wait], age_ms))
    assert [one.job for one in found] == ([CHILD] if is_in_vain else [])
