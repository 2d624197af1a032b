"""The defences of recurring jobs."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_UNIT: Final = "tests/unit/streams/recurring"
_DUE: Final = f"{_UNIT}/test_due.py"
_SCHEDULE: Final = f"{_UNIT}/test_schedule.py::test_occurrences_are_as_written_here"
_ROWS: Final = f"{_UNIT}/test_rows.py"
_FOREIGN: Final = f"{_UNIT}/test_foreign_records.py"
_AWAKE: Final = f"{_UNIT}/test_awake.py"
_PLAN: Final = f"{_UNIT}/test_plan.py"
_PROCESS: Final = f"{_UNIT}/test_process.py"
_BROKER: Final = "tests/integration/streams/recurring"
_DUE_PY: Final = "streams/recurring/due.py"
_PROCESS_PY: Final = "streams/recurring/process.py"
_SCHEDULE_PY: Final = "streams/recurring/schedule.py"

MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "recurring-id",
        "the job's id that the occurrence decides",
        "streams/recurring/jobs.py",
        '    return hashed_job_id(lane, "recurring", key)\n',
        '    return hashed_job_id(lane, "recurring", key, str(datetime.now()))\n',
        f"{_ROWS}::test_an_occurrence_has_one_job_id_in_a_lane_of_its_queue",
    ),
    mutant(
        "recurring-cap",
        "the exact cap of missed occurrences",
        _DUE_PY,
        "    return list(wanted[-count:])\n",
        "    return list(wanted[-count - 1 :])\n",
        f"{_DUE}::test_strict_makes_a_job_of_each_up_to_its_cap",
    ),
    mutant(
        "recurring-tolerance",
        "leaving out what is older than the tolerance",
        _DUE_PY,
        "if now - one <= tolerance]",
        "if True]",
        f"{_DUE}::test_ignorable_makes_jobs_of_those_within_the_tolerance",
    ),
    mutant(
        "recurring-overlap-skip",
        "leaving out an occurrence while the job before runs",
        _DUE_PY,
        "            return ([], False, None, kept) if is_running else (kept[:1], False, None, kept[1:])\n",
        "            return kept[:1], False, None, kept[1:]\n",
        f"{_DUE}::test_skip_leaves_out_while_the_one_before_runs",
    ),
    mutant(
        "recurring-overlap-queue",
        "at most one occurrence that waits",
        _DUE_PY,
        "            return create, False, rest[-1] if rest else None, rest[:-1]\n",
        "            return [*create, *rest[:-1]], False, rest[-1] if rest else None, []\n",
        f"{_DUE}::test_queue_lets_the_latest_wait_until_the_one_before_has_ended",
    ),
    mutant(
        "recurring-overlap-unknown",
        "waiting until it is known whether the job before has ended",
        "streams/recurring/deciding.py",
        "    if still_runs is None:\n        return None  # not known yet\n",
        "    still_runs = bool(still_runs)\n",
        f"{_PROCESS}::test_nothing_is_decided_before_it_is_known_whether_the_job_before_has_ended",
    ),
    mutant(
        "recurring-ended",
        "the brokers' time of a job's creation, from which its end is looked for",
        "streams/recurring/plan.py",
        "        if not self.decision.create or created_at is None:\n",
        "        if True:\n",
        f"{_BROKER}/test_overlap.py::test_the_end_of_a_job_is_seen_though_the_clock_of_its_process_is_ahead",
    ),
    mutant(
        "recurring-pause-until",
        "the end of a pause as the beginning of what counts",
        _DUE_PY,
        "        bounds += [end for end in (pause.after, _end_of(pause, now)) if end is not None]\n",
        "        bounds += [end for end in (pause.after,) if end is not None]\n",
        f"{_DUE}::test_what_fell_into_a_pause_is_not_made_up_for",
    ),
    mutant(
        "recurring-pause-before",
        "what a pause keeps of the one before",
        _DUE_PY,
        "    return Pause(paused=True, at=now, until=until, after=end)\n",
        "    return Pause(paused=True, at=now, until=until)\n",
        f"{_DUE}::test_a_pause_makes_up_for_nothing_of_the_one_before",
    ),
    mutant(
        "recurring-gap-left-out",
        "the occurrence whose time does not exist when clocks go forward",
        _SCHEDULE_PY,
        "            if is_in_gap and not self._is_hourly and change > instant:\n                return change\n",
        "",
        _SCHEDULE,
    ),
    mutant(
        "recurring-gap-hourly",
        "leaving that occurrence out if the next hour has one anyway",
        _SCHEDULE_PY,
        "            if is_in_gap and not self._is_hourly and change > instant:\n",
        "            if is_in_gap and change > instant:\n",
        _SCHEDULE,
    ),
    mutant(
        "recurring-fold",
        "one occurrence of a fixed time that comes twice when clocks go back",
        _SCHEDULE_PY,
        "                if self._is_interval or not found.astimezone(self._zone).fold:\n",
        "                if True:\n",
        _SCHEDULE,
    ),
    mutant(
        "recurring-calendar",
        "no occurrence beyond the end of the calendar",
        _SCHEDULE_PY,
        "        except OverflowError:  # the end of the calendar, in UTC or in the zone\n",
        "        except ZeroDivisionError:\n",
        f"{_UNIT}/test_schedule.py::test_nothing_comes_after_the_end_of_the_calendar",
    ),
    mutant(
        "recurring-skip-over",
        "taking back a skip whose occurrence has passed",
        "streams/recurring/plan.py",
        "        if _is_skip_over(self.row, self.decision):\n",
        "        if False:\n",
        f"{_PLAN}::test_a_skip_is_taken_back_when_its_occurrence_has_passed_and_not_before",
    ),
    mutant(
        "recurring-skip-again",
        "the same occurrence for a skip that is said again",
        "services/client/recurring.py",
        "        row = replace(self._existing(recurring_id), skip=None)\n",
        "        row = replace(self._existing(recurring_id))\n",
        f"{_BROKER}/test_client.py::test_a_skip_that_is_said_again_leaves_out_the_same_occurrence",
    ),
    mutant(
        "recurring-removed",
        "the end of a definition that was removed",
        "streams/recurring/rows.py",
        "        if kind is Definition:\n",
        "        if kind is Definition and aspect is not None:\n",
        f"{_ROWS}::test_tombstones_remove_all_of_a_row",
    ),
    mutant(
        "recurring-late-progress",
        "passing over the progress of a process that comes late",
        "streams/recurring/rows.py",
        "    if before is None or after is None or after.through >= before.through:\n",
        "    if True:\n",
        f"{_ROWS}::test_a_later_progress_is_not_undone_by_a_process_that_comes_late",
    ),
    mutant(
        "recurring-other-key",
        "the refusal of a definition under the key of another",
        "streams/recurring/rows.py",
        "        if isinstance(aspect, Definition) and aspect.id != recurring_id:\n",
        "        if False:\n",
        f"{_FOREIGN}::test_a_definition_is_refused_under_the_key_of_another",
    ),
    mutant(
        "recurring-mark",
        "reading a partition to its end before anything is decided",
        "streams/recurring/held.py",
        "    is_ready: bool = False\n",
        "    is_ready: bool = True\n",
        f"{_PROCESS}::test_nothing_is_decided_before_the_own_mark_was_read",
    ),
    mutant(
        "recurring-rewind",
        "reading again what Faust has thrown away",
        "streams/kafka/faust_consumer.py",
        "            await consumer.seek_to_beginning(*new)\n",
        "            pass\n",
        "tests/integration/streams/test_faust_rewinds.py::test_a_recurring_process_reads_everything_again",
    ),
    mutant(
        "recurring-silent",
        "starting over when a partition is not read",
        "streams/recurring/process.py",
        "            held.listen(number)\n",
        "            pass\n",
        f"{_PROCESS}::test_a_partition_of_which_nothing_is_read_is_not_waited_for",
    ),
    mutant(
        "recurring-mark-early",
        "writing the mark only when all partitions are given out",
        "streams/recurring/process.py",
        "            if can_mark:\n",
        "            if True:\n",
        f"{_PROCESS}::test_a_mark_is_written_when_all_partitions_are_given_out",
    ),
    mutant(
        "recurring-slept",
        "noticing that the process was paused",
        "streams/recurring/awake.py",
        "        if self._slept_s > ASLEEP_S:\n",
        "        if False:\n",
        _AWAKE,
    ),
    mutant(
        "recurring-slept-deciding",
        "a look at the clock between decisions and their commands",
        _PROCESS_PY,
        "        self._awake.look()\n        created_at = await",
        "        created_at = await",
        f"{_PROCESS}::test_a_process_that_was_paused_since_it_decided_sends_nothing_of_that",
    ),
    mutant(
        "recurring-lost-partition",
        "noting nothing in a partition that was lost meanwhile",
        _PROCESS_PY,
        "            if self._held.get(number) is held:\n",
        "            if True:\n",
        f"{_PROCESS}::test_a_process_that_lost_a_partition_meanwhile_notes_nothing_there",
    ),
    mutant(
        "recurring-deciding",
        "the end of deciding in time for heartbeats",
        _PROCESS_PY,
        "                if left <= 0 or time.monotonic() > until:\n",
        "                if left <= 0:\n",
        f"{_PROCESS}::test_much_that_is_due_is_decided_in_several_ticks",
    ),
    mutant(
        "recurring-held-parking",
        "parking what stands in partitions that are still held only",
        _PROCESS_PY,
        "if self._held.get(number) is held and held.is_ready and (batch",
        "if held.is_ready and (batch",
        f"{_PROCESS}::test_a_process_that_lost_its_partitions_meanwhile_parks_nothing_more",
    ),
    mutant(
        "recurring-row",
        "going on with the other definitions when one cannot be decided",
        _PROCESS_PY,
        "        except Exception as error:  # its records may be anybody's\n",
        "        except ZeroDivisionError as error:\n",
        f"{_PROCESS}::test_a_row_that_cannot_be_decided_costs_the_others_nothing",
    ),
)
