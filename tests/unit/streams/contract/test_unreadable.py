from typing import Any

import pytest
from joblog.streams.contract.codec import encode
from joblog.streams.contract.unreadable import REASON_CHARACTERS_MAX, failed_by_assignment, failed_by_report

from tests.support.scene import id_of

RUN = {"job_id": id_of("a"), "lease": 2, "worker": "w", "lane": 1}


def test_a_report_on_a_run_is_heard_as_its_failure() -> None:
    found = failed_by_report(encode({**RUN, "type": "run.released", "reason": 5, "new": [1]}), "reason: no text")
    assert found is not None
    assert (found.job_id, found.lease, found.worker) == (RUN["job_id"], 2, "w")
    assert found.exception.message == "The report run.released cannot be read: reason: no text"


def test_a_reason_fits_into_an_event_whatever_the_record_said() -> None:
    found = failed_by_report(encode({**RUN, "type": "run.failed"}), "a\x00b" * 1_000)
    assert found is not None
    assert "\x00" not in found.exception.message
    assert len(found.exception.message) == REASON_CHARACTERS_MAX


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"garbage",
        b"[" * 100_000,
        b'{"type":"run.failed","job_id":"\xc3(","lease":2,"worker":"w"}',
        b'{"type":"job.run","job_id":"\xc3(","lease":2,"lane":1}',
        encode({**RUN, "type": "worker.announced"}),
        encode({**RUN, "type": "run.failed", "lease": "two"}),
        encode({"type": "run.failed", "lease": 2}),
    ],
)
def test_of_anything_else_nothing_is_made_out(value: Any) -> None:
    assert failed_by_report(value, "x") is None
    assert failed_by_assignment(value, "w", "x") is None


def test_text_that_is_no_utf8_hides_nothing_beside_it() -> None:
    found = failed_by_report(encode({**RUN, "type": "run.succeeded", "result": "?"}).replace(b"?", b"\xc3("), "x")
    assert found is not None
    assert (found.job_id, found.lease) == (RUN["job_id"], 2)


def test_an_assignment_names_the_lane_that_waits_for_its_end() -> None:
    found = failed_by_assignment(encode({**RUN, "type": "job.run"}), "w-2", "task: expected str")
    assert found is not None
    lane, report = found
    assert (lane, report.worker) == (1, "w-2")
    assert report.exception.message == "The assignment cannot be read: task: expected str"


def test_a_cancellation_ends_nothing() -> None:
    assert failed_by_assignment(encode({**RUN, "type": "job.cancel"}), "w", "x") is None
