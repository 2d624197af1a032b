"""The defences of the worker, the delays process, the projector and the client."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_WORKER: Final = "tests/unit/services/worker"
_SESSION: Final = f"{_WORKER}/test_session.py"
_FIRING: Final = "tests/unit/streams/delays/test_firing.py"
_FOLD: Final = "tests/unit/projections/projector/test_fold.py"
_TABLES: Final = "tests/integration/projections/projector/test_tables.py"
_PRODUCER: Final = "tests/unit/streams/kafka/test_durable_producer.py"

MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "label-cap",
        "the cap on the names of queues and tasks in metrics",
        "streams/label_cap.py",
        "        if len(self._known) < self._most:\n",
        "        if True:\n",
        "tests/unit/streams/test_metrics.py::test_names_beyond_the_cap_are_counted_together",
    ),
    mutant(
        "gauges-late",
        "going on when the gauges cannot be read in time",
        "projections/projector/projector.py",
        "            tables.gauge(self._meters)\n        except psycopg.errors.QueryCanceled as error:\n",
        "            tables.gauge(self._meters)\n        except ZeroDivisionError as error:\n",
        "tests/integration/projections/projector/test_gauges.py::"
        "test_events_are_applied_though_the_gauges_cannot_be_read",
    ),
    mutant(
        "worker-lease",
        "the end of a worker's session when no lane acknowledges its renewals",
        "services/worker/session.py",
        "        if len(stale) == len(self._announcer.lanes):\n",
        "        if False:\n",
        f"{_SESSION}::test_a_worker_that_no_lane_hears_gives_up_without_a_word",
    ),
    mutant(
        "worker-lane-lease",
        "stopping what a worker runs for a lane that does not acknowledge its renewals",
        "services/worker/session.py",
        '            self._intake.fence(lost, f"no renewal',
        '            str(f"no renewal',
        f"{_SESSION}::test_a_lane_that_is_away_costs_its_own_runs_only",
    ),
    mutant(
        "worker-may-start",
        "the look at the lease before a run starts",
        "services/worker/execution/run.py",
        "        if not self.leases.is_held(self.job.lane, now):\n",
        "        if False:\n",
        "tests/integration/services/worker/test_leases.py::"
        "test_a_worker_that_slept_through_its_lease_starts_nothing_that_it_was_given_before",
    ),
    mutant(
        "worker-cancels",
        "cancelling what runs when the lease is lost",
        "services/worker/session.py",
        "            self._intake.give_up(Cause.LEASE_LOST)\n",
        "",
        f"{_SESSION}::test_a_worker_that_no_lane_hears_gives_up_without_a_word",
    ),
    mutant(
        "assigned-twice",
        "the refusal of an assignment that is held already",
        "services/worker/intake.py",
        "        elif (job.job_id, job.lease) not in self.held:\n",
        "        else:\n",
        f"{_WORKER}/test_runs.py::test_an_assignment_that_comes_twice_runs_once",
    ),
    mutant(
        "timer-acknowledged",
        "waiting for the acknowledgement of what a timer became",
        "streams/delays/firing.py",
        "    def _fire(self, source: Partition, record: Record, timer: Timer) -> None:\n",
        "    def _fire(self, source: Partition, record: Record, timer: Timer) -> None:\n"
        "        source.shelf.done(record.offset)\n",
        f"{_FIRING}::test_a_timer_is_done_when_its_report_is_acknowledged_and_not_before",
    ),
    mutant(
        "timer-again",
        "sending a timer again whose report was not acknowledged",
        "streams/delays/firing.py",
        "        source.shelf.put_back(record, int(self._clock() * 1000) + RETRY_MS)\n",
        "",
        f"{_FIRING}::test_a_timer_whose_report_failed_is_sent_again_after_a_while",
    ),
    mutant(
        "projector-conflict",
        "noticing that another projector has moved the offsets",
        "projections/projector/apply.sql",
        "WHERE offsets.lane = moved.lane AND offsets.next_offset = moved.expected",
        "WHERE offsets.lane = moved.lane",
        f"{_TABLES}::test_a_second_writer_of_the_same_lanes_is_told",
    ),
    mutant(
        "projector-transaction",
        "one transaction for events and their offsets",
        "projections/projector/tables.py",
        "        with self._connection.transaction(), self._connection.cursor() as cursor:\n"
        "            self._move_offsets(cursor, moved)\n",
        "        with self._connection.cursor() as cursor:\n"
        "            self._move_offsets(cursor, moved)\n"
        "        with self._connection.transaction(), self._connection.cursor() as cursor:\n",
        f"{_TABLES}::test_a_failed_batch_leaves_nothing",
    ),
    mutant(
        "another-life",
        "the end of a batch before another life of one of its jobs",
        "projections/projector/event_batch.py",
        "        if row is not None and begins(fact):\n            return\n",
        "",
        _FOLD,
    ),
    mutant(
        "earlier-life",
        "passing over events of an earlier life of a job",
        "projections/projector/event_batch.py",
        "            if event.version > seen.version and record.offset <= seen.offset:\n                continue\n",
        "",
        _FOLD,
    ),
    mutant(
        "known-event",
        "passing over events that the tables hold",
        "projections/projector/event_batch.py",
        "            if event.version <= seen.version:\n",
        "            if False:\n",
        _FOLD,
    ),
    mutant(
        "gap",
        "the remark on events that are missing",
        "projections/projector/event_batch.py",
        "                if event.version > before:\n",
        "                if False:\n",
        _FOLD,
    ),
    mutant(
        "fatal-error",
        "a new producer after a fatal error",
        "streams/kafka/durable_producer.py",
        "            self._producer = self._make()\n",
        "",
        _PRODUCER,
    ),
    mutant(
        "fatal-error-once",
        "one new producer, however many threads notice the error",
        "streams/kafka/durable_producer.py",
        "            if self._producer is not broken:\n                return\n",
        "",
        _PRODUCER,
    ),
    mutant(
        "end-of-a-growing-log",
        "the end up to which a log is read that grows meanwhile",
        "streams/kafka/last_records.py",
        "                if error is not None or offset + 1 >= ends[number]:\n",
        "                if error is not None:\n",
        "tests/unit/streams/kafka/test_last_records.py",
    ),
    mutant(
        "recurring-parked-once",
        "the memory of which records of recurring jobs are dead letters",
        "streams/recurring/parking.py",
        "            self.done(int(text))\n",
        "            pass\n",
        "tests/unit/streams/recurring/test_parking.py",
    ),
    mutant(
        "recurring-header-names",
        "the reading of records of recurring jobs with odd names of headers",
        "streams/kafka/faust_consumer.py",
        '        replace(fetcher, "MemoryRecords", Batches)\n',
        "",
        "tests/integration/streams/recurring/test_parking.py::"
        "test_the_name_of_a_header_that_is_not_utf8_stops_no_partition",
    ),
    mutant(
        "recurring-skipped-max",
        "the limit of occurrences that are remembered as left out",
        "streams/recurring/plan.py",
        "[-SKIPPED_MAX:]",
        "",
        "tests/unit/streams/recurring/test_plan.py",
    ),
    mutant(
        "recurring-long-parameters",
        "the cut of parameters that are too long for the index of runs",
        "projections/schema/migrations/0001_read_model.sql",
        "    left(parameters ->> 'RecurringJobId', 200), left",
        "    (parameters ->> 'RecurringJobId'), left",
        "tests/integration/projections/monitor/test_recurring_runs.py::"
        "test_parameters_that_nobody_would_write_keep_no_job_out_of_the_tables",
    ),
)
