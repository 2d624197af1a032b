"""The defences of paused queues, of orders to workers, and of bulk operations."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_QUEUES: Final = "tests/unit/streams/lane/features/test_queue_control.py"
_BULK: Final = "tests/unit/streams/lane/features/test_bulk.py"
_WORKERS: Final = "tests/unit/streams/lane/features/test_workers.py"
_COMMANDS: Final = "tests/unit/streams/lane/test_commands.py"
_RUNNER: Final = "tests/unit/services/bulk/test_runner.py"
_ELSEWHERE: Final = "tests/unit/streams/lane/features/test_queues_elsewhere.py"
_SERVED: Final = "tests/unit/services/worker/test_served_lanes.py"
_SPREAD: Final = "tests/unit/services/client/test_queue_settings.py"
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
        "streams/lane/features/worker_orders.py",
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
        "worker-resume-stop",
        "the stop of a worker that is told to take jobs again after it was told to stop",
        "services/worker/orders.py",
        'self.is_quiet = self.is_stop or order.what != "resume"',
        'self.is_quiet = order.what != "resume"',
        f"{_SESSION}::test_a_worker_that_was_told_to_stop_takes_no_jobs_again",
    ),
    mutant(
        "move-key-lane",
        "the refusal of a job with a key in a lane that does not know the keys of its queue",
        "streams/lane/commands.py",
        "elif command.idempotency_key is not None and not lane.has_queue(command.queue):",
        "elif False:",
        f"{_COMMANDS}::test_a_job_is_created_in_the_lane_of_its_id_where_its_queue_does_not_live_but_not_with_a_key",
    ),
    mutant(
        "elsewhere-every-job",
        "the note that a job of a queue elsewhere has come, where the queue's entry is there already",
        "streams/lane/store.py",
        "if not queue.is_home:",
        "if not queue.is_home and not queue:",
        f"{_ELSEWHERE}::test_it_is_said_again_while_the_job_waits_and_not_when_none_came_since",
    ),
    mutant(
        "elsewhere-again",
        "the repeated report that jobs of a queue wait elsewhere, for workers that came since",
        "streams/lane/features/queues_elsewhere.py",
        "if queue in self._used or len(ready.get(queue, ())) > 0:",
        "if queue in self._used:",
        f"{_ELSEWHERE}::test_it_is_said_again_while_the_job_waits_and_not_when_none_came_since",
    ),
    mutant(
        "elsewhere-told-again",
        "the repeated word to a worker that it shall serve a further lane, before it forgets it",
        "streams/lane/features/workers.py",
        "if worker is not None and now_ms - worker.told_ms.get(place, -TOLD_MS) >= TOLD_MS:",
        "if worker is not None and place not in worker.told_ms:",
        f"{_ELSEWHERE}::test_the_workers_of_the_queue_are_told_and_those_again_that_heard_it_long_ago",
    ),
    mutant(
        "further-lane-held",
        "the renewal of a worker's lease from a further lane for as long as it runs a job of it",
        "services/worker/served_lanes.py",
        "if at > over_at or lane in held",
        "if at > over_at",
        f"{_SERVED}::test_a_further_lane_is_served_while_it_is_told_then_without_the_queue_and_then_left",
    ),
    mutant(
        "spread-keys",
        "the lanes of keys, which do not follow how a queue is spread meanwhile",
        "services/client/templates.py",
        "self._shards = shards_of(model.queue, rules.shards, rules.shards_before)",
        "self._shards = shards_of(model.queue, {**rules.shards, **rules.spread}, rules.shards_before)",
        f"{_SPREAD}::test_a_key_keeps_its_lane_however_its_queue_is_spread",
    ),
    mutant(
        "move-unique",
        "the refusal to move a job with a unique key",
        "streams/lane/transitions.py",
        "if job.extras is not None and job.extras.uses & USES_UNIQUE:",
        "if False:",
        f"{_COMMANDS}::test_a_job_is_moved_to_any_queue_but_not_with_a_unique_key",
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
        "bulk-first-look",
        "the operations that the tables knew, late as they were, when a runner looked first",
        "services/bulk/runner.py",
        "            self._seen = known\n",
        "            self._seen = {one.id for one in _current(running)}\n",
        f"{_RUNNER}::test_an_operation_that_the_tables_knew_while_they_were_behind_is_not_begun_anew",
    ),
    mutant(
        "bulk-began-before",
        "the look whether a bulk operation began before its runner",
        "services/bulk/runner.py",
        "return is_unseen and time_ms(operation.started_at) >= self._began_ms",
        "return is_unseen",
        f"{_RUNNER}::test_an_operation_that_the_tables_learn_of_later_than_it_began_is_not_begun_anew",
    ),
    mutant(
        "bulk-begun-here",
        "the note of the bulk operations that a runner has begun",
        "services/bulk/runner.py",
        "                self._seen.add(operation.id)\n",
        "                pass\n",
        f"{_RUNNER}::test_an_operation_that_the_tables_do_not_know_for_a_while_is_not_begun_anew",
    ),
    mutant(
        "bulk-filter",
        "the look at the kinds of a filter's values, which any client may have written",
        "projections/monitor/bulk.py",
        "if not isinstance(value, _KINDS.get(name, str)):",
        "if False:",
        "tests/integration/projections/monitor/test_bulk.py::test_what_is_no_filter_is_refused",
    ),
    mutant(
        "bulk-no-state",
        "the difference between no state and any state",
        "projections/monitor/bulk.py",
        "    if wanted.state is not None:",
        '    if "state" in said:',
        "tests/integration/projections/monitor/test_bulk.py::test_a_filter_means_the_same_when_it_is_read_again",
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
