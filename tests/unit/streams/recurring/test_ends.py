"""Which jobs have ended, by their events."""

import pytest
from joblog.streams.recurring.ends import Ends
from msgspec import json

JOB, OTHER = "01a31bcf-c400-8001-8000-00000000002a", "01a31bcf-c400-8001-8000-00000000002b"


def ended(*events: str, traversed: bool = False) -> bool:
    """Whether the job has ended after events of these types."""
    ends = Ends()
    ends.watch(JOB)
    for kind in events:
        ends.take(JOB, json.encode({"type": kind, "data": {"traversed": traversed, "state": "whatever"}}))
    return ends.jobs[JOB]


@pytest.mark.parametrize("kind", ["job.succeeded", "job.failed", "job.deleted"])
def test_a_final_event_is_the_end(kind: str) -> None:
    assert not ended("job.enqueued", "job.processing")
    assert ended("job.enqueued", kind)


def test_a_failure_that_is_retried_is_no_end() -> None:
    assert not ended("job.processing", "job.failed", traversed=True)


def test_a_job_whose_creation_was_rejected_will_not_come_but_one_that_is_there_goes_on() -> None:
    assert ended("command.rejected")
    assert not ended("job.enqueued", "command.rejected")


def test_a_job_that_is_requeued_has_not_ended() -> None:
    assert not ended("job.processing", "job.failed", "job.enqueued")
    assert ended("job.processing", "job.failed", "job.enqueued", "job.processing", "job.succeeded")
    assert ended("job.failed", "job.parameter_set"), "which leads to no other state"


def test_what_is_no_event_changes_nothing_nor_do_other_jobs() -> None:
    ends = Ends()
    ends.watch(JOB)
    for value in (b"{", b'{"type": "job.\xff"}', b'{"type": "job.deleted", "deep": ' + b"[" * 100_000):
        ends.take(JOB, value)
    ends.take(OTHER, json.encode({"type": "job.deleted"}))
    assert ends.jobs == {JOB: False}
    ends.take(JOB, json.encode({"type": "job.deleted"}))
    ends.watch(JOB)
    assert ends.jobs == {JOB: True}, "watched again, it has ended all the same"
    ends.keep({OTHER})
    assert (ends.jobs, ends.seen) == ({}, set())
