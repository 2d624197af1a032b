"""The defences of Joblog in memory: that it does what the real processes do."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_TESTS: Final = "tests/unit/services/testing"
_LOSSES: Final = f"{_TESTS}/test_losses.py"
_RECURRING: Final = f"{_TESTS}/test_recurring.py"
_WORKER_PY: Final = "services/testing/inline_worker.py"

MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "kit-silent",
        "the silence of a worker that was lost",
        _WORKER_PY,
        "        if not self._is_silent:\n",
        "        if True:\n",
        f"{_LOSSES}::test_a_worker_that_is_lost_in_the_middle_has_its_job_run_again_by_another",
    ),
    mutant(
        "kit-report",
        "that nothing is reported of a run whose worker was lost",
        _WORKER_PY,
        "        self._held.clear()\n",
        "        pass\n",
        f"{_LOSSES}::test_a_lost_worker_does_not_report_the_time_out_of_its_run_either",
    ),
    mutant(
        "kit-time-out",
        "the stop of the clock where a run times out",
        _WORKER_PY,
        "        return None if deadline == inf else ceil(deadline * 1000)\n",
        "        return None\n",
        f"{_LOSSES}::test_a_run_that_takes_longer_than_its_time_out_fails_though_its_work_is_done",
    ),
    mutant(
        "kit-occurrence",
        "the stop of the clock where an occurrence is due",
        "services/testing/broker.py",
        "*(alarm.next_ms() for alarm in self.alarms)",
        "",
        f"{_RECURRING}::test_an_occurrence_is_left_out_while_the_job_before_has_not_ended",
    ),
    mutant(
        "kit-outage",
        "that nobody creates jobs in an outage of the recurring process",
        "services/testing/recurring.py",
        "        self.is_down = True\n",
        "        pass\n",
        f"{_RECURRING}::test_what_is_missed_in_an_outage_is_made_up_for_as_the_definition_says",
    ),
    mutant(
        "recurring-traversed",
        "that a failure which is retried is no end of a job",
        "streams/recurring/ends.py",
        "event.type in _ALIVE or event.data.traversed",
        "event.type in _ALIVE",
        "tests/unit/streams/recurring/test_ends.py::test_a_failure_that_is_retried_is_no_end",
    ),
)
