"""What is checked of a report beyond its struct: names that are written again, and what is passed on unread."""

from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

from joblog.streams.contract import wire
from joblog.streams.contract.cloudevents import DEPTH_MAX, check_text
from joblog.streams.contract.relations import OUTCOME_BYTES_MAX, limit_problem
from joblog.streams.contract.shapes import is_job_id, is_limit, is_queue, is_task, is_time, is_worker
from joblog.streams.contract.unreadable import NOT_READABLE
from joblog.streams.errors import InvalidData
from msgspec import Raw, json

_any: Final = json.Decoder().decode


def check_report(report: wire.AnyReport) -> None:
    """Refuse ids and names that are none, what Postgres cannot store, and a result that nobody can read."""
    check = _REPORT_CHECKS.get(type(report))
    if check is not None:
        check(report)


def _check_result(report: wire.RunSucceeded | wire.ParentEnded | wire.ParentFound) -> None:
    if report.result is not wire.NO_RAW:
        _check_carried(report.result, "result")


def _check_parent_ended(report: wire.ParentEnded) -> None:
    _check_result(report)
    _check_parent(report)


def _check_parent(report: wire.ParentEnded | wire.ParentRequeued) -> None:
    _check_names(is_job_id, "a job id", report.job_id, report.parent)


def _check_found(report: wire.ParentFound) -> None:
    _check_result(report)
    _check_names(is_job_id, "a job id", report.job_id)
    if len(bytes(report.result)) > OUTCOME_BYTES_MAX:
        raise InvalidData(f"the result has more than {OUTCOME_BYTES_MAX} bytes")


def _check_child(report: wire.ContinuationAdded | wire.ContinuationUnmet | wire.BatchAwaited) -> None:
    _check_names(is_job_id, "a job id", report.job_id, report.child)


def _check_limit_report(report: wire.LimitReport) -> None:
    _check_names(is_job_id, "a job id", report.job_id)


def _check_limit(report: wire.LimitAsked | wire.LimitStarted) -> None:
    _check_limit_report(report)
    if not is_limit(report.limit):
        raise InvalidData(f"{report.limit.kind} {report.limit.key:.100} is no limit")


def _check_queue(report: wire.QueueElsewhere | wire.QueueLimitReport) -> None:
    _check_names(is_queue, "the name of a queue", report.queue)


def _check_queue_limit_told(report: wire.QueueLimitTold) -> None:
    _check_queue(report)
    interval_s = report.interval_ms / 1000 if report.interval_ms else None
    if report.capacity is not None and (problem := limit_problem(report.kind, report.capacity, interval_s)):
        raise InvalidData(problem)


def _check_batch(report: wire.BatchCounted | wire.BatchTold) -> None:
    _check_names(is_job_id, "the id of a batch", report.job_id)


def _check_worker(report: wire.WorkerAnnounced) -> None:
    _check_names(is_worker, "the id of a worker", report.worker)
    _check_names(is_queue, "the name of a queue", *report.queues, *report.all_queues)
    _check_names(is_task, "the name of a task", *report.tasks, *report.policies)
    if not is_time(report.started_at):
        raise InvalidData("started_at lies beyond the calendar")


def _check_carried(value: Raw, where: str) -> None:
    """Refuse JSON that no reader could decode: text that is not UTF-8, numbers out of range, too much depth."""
    try:
        said, text = _any(value), bytes(value)
    except NOT_READABLE as error:
        raise InvalidData(f"{where}: {error}") from error
    if text.count(b"[") + text.count(b"{") >= DEPTH_MAX:
        check_text({where: said})


def _check_names(is_one: Callable[[str], bool], what: str, *names: str) -> None:
    for name in names:
        if not is_one(name):
            raise InvalidData(f"{name!r:.100} is not {what}")


#: Of each report that has something to check, how; the others have none.
_REPORT_CHECKS: Final[Mapping[type, Callable[[Any], None]]] = {
    wire.RunSucceeded: _check_result,
    wire.ParentEnded: _check_parent_ended,
    wire.ParentRequeued: _check_parent,
    wire.QueueElsewhere: _check_queue,
    wire.ParentFound: _check_found,
    wire.ContinuationAdded: _check_child,
    wire.ContinuationUnmet: _check_child,
    wire.BatchAwaited: _check_child,
    **{kind: _check_limit_report for kind in get_args(wire.AnyReport) if issubclass(kind, wire.LimitReport)},
    wire.LimitAsked: _check_limit,
    wire.LimitStarted: _check_limit,
    **{kind: _check_queue for kind in get_args(wire.AnyReport) if issubclass(kind, wire.QueueLimitReport)},
    wire.QueueLimitTold: _check_queue_limit_told,
    wire.BatchCounted: _check_batch,
    wire.BatchTold: _check_batch,
    wire.WorkerAnnounced: _check_worker,
}
