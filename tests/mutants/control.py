"""The defences of paused queues, of orders to workers, and of bulk operations."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_QUEUES: Final = "tests/unit/streams/lane/features/test_queue_control.py"
_BULK: Final = "tests/unit/streams/lane/features/test_bulk.py"
_WORKERS: Final = "tests/unit/streams/lane/features/test_workers.py"
_COMMANDS: Final = "tests/unit/streams/lane/test_commands.py"
_RUNNER: Final = "tests/unit/services/bulk/test_runner.py"
_SESSION: Final = "tests/unit/services/worker/test_session.py"

MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "pause",
        "the look whether a queue is paused",
        "streams/lane/features/workers.py",
        "if queue in paused:",
        "if False:",
        f"{_QUEUES}::test_no_job_of_a_paused_queue_starts_until_it_is_resumed",
    ),
    mutant(
        "pause-takeover",
        "the pause of a queue in a lane that is loaded",
        "streams/lane/features/queue_control.py",
        "self.pipeline.store.paused.add(key)",
        "pass",
        f"{_QUEUES}::test_a_pause_survives_a_takeover",
    ),
    mutant(
        "drain-takeover",
        "the search for running jobs of a queue that drains, when its lane is loaded",
        "streams/lane/features/queue_control.py",
        "                self._running[queue] = self._all_running(queue)\n\n    # --- commands ---",
        "                self._running[queue] = set()\n\n    # --- commands ---",
        f"{_QUEUES}::test_a_queue_is_drained_when_the_last_of_its_jobs_has_left_the_workers",
    ),
    mutant(
        "worker-home",
        "the look whether a lane is a worker's home, so that it is told once",
        "streams/lane/features/workers.py",
        "if not worker.announced.home:",
        "if False:",
        f"{_WORKERS}::test_a_worker_that_is_not_there_or_has_another_home_is_not_told",
    ),
    mutant(
        "worker-quiet-again",
        "the silence of a quiet worker in its next session",
        "services/worker/session.py",
        "if parts.orders.is_quiet:",
        "if False:",
        f"{_SESSION}::test_a_quiet_worker_stays_quiet_when_a_session_begins_anew",
    ),
    mutant(
        "move-lane",
        "the refusal to move a job to a queue of another lane",
        "streams/lane/commands.py",
        "if isinstance(command, wire.MoveJob) and not lane.has_queue(command.queue):",
        "if False:",
        f"{_COMMANDS}::test_a_job_is_moved_within_its_lane_only_and_not_with_a_unique_key",
    ),
    mutant(
        "move-unique",
        "the refusal to move a job with a unique key",
        "streams/lane/transitions.py",
        "if job.extras is not None and job.extras.uses & USES_UNIQUE:",
        "if False:",
        f"{_COMMANDS}::test_a_job_is_moved_within_its_lane_only_and_not_with_a_unique_key",
    ),
    mutant(
        "bulk-two-runners",
        "the look how far a bulk operation was before its runner went on",
        "streams/lane/features/bulk.py",
        "if found.sent != command.before or command.sent < command.before:",
        "if False:",
        f"{_BULK}::test_of_two_runners_one_advances",
    ),
    mutant(
        "bulk-version",
        "the version at which a bulk operation found a job",
        "services/bulk/sending.py",
        '"expected_version": job.version,',
        '"expected_version": None,',
        f"{_RUNNER}::test_each_job_gets_one_command_at_the_given_rate_and_the_end_is_told",
    ),
    mutant(
        "bulk-read-back",
        "what a killed runner had sent and not counted",
        "services/bulk/runner.py",
        " if job.id not in course.uncounted",
        "",
        f"{_RUNNER}::test_whoever_goes_on_sends_what_was_not_sent_and_counts_all",
    ),
    mutant(
        "bulk-late",
        "the wait of bulk operations for tables that are behind",
        "services/bulk/runner.py",
        "one.late_s is not None and one.late_s <= LATE_S",
        "True",
        f"{_RUNNER}::test_an_operation_waits_while_the_tables_are_behind",
    ),
    mutant(
        "bulk-fence",
        "the jobs that had an event since a bulk operation was asked for",
        "projections/monitor/monitor.sql",
        "    AND log_offset < (%(fence)s::bigint[])[lane + 1]\n",
        "",
        "tests/integration/projections/monitor/test_bulk.py"
        "::test_the_jobs_of_an_operation_are_those_that_had_no_event_since_it_was_asked_for",
    ),
)
