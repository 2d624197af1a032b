"""The defences of expiry: what must not go, and what verification says of what went."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_TESTS: Final = "tests/integration/projections/expiry/test_expiry.py"
_SQL: Final = "projections/expiry/expiry.sql"
_VERIFICATION: Final = "projections/replay/verification"

MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "expiry-behind",
        "the wait for the events that follow an end",
        _SQL,
        "least(min(current_at), now())",
        "now()",
        f"{_TESTS}::test_a_projector_lets_rows_expire_beside_events_and_not_while_it_is_behind",
    ),
    mutant(
        "expiry-history",
        "the deletion of the history of what expires",
        _SQL,
        "    DELETE FROM history WHERE job = ANY (ARRAY(SELECT id FROM chosen))\n",
        "    SELECT 1\n",
        f"{_TESTS}::test_what_ended_long_ago_goes_and_all_else_stays",
    ),
    mutant(
        "expiry-count",
        "the look whether more rows are gone than have expired",
        f"{_VERIFICATION}/expiry.py",
        "            if n > expired:\n",
        "            if False:\n",
        f"{_TESTS}::test_more_rows_than_have_expired_are_not_missed",
    ),
    mutant(
        "expiry-overdue",
        "the look for rows that should have gone",
        f"{_VERIFICATION}/verification.py",
        "        self._found.add(overdue_findings(snapshot.overdue()))\n",
        "",
        f"{_TESTS}::test_a_row_that_should_have_gone_and_one_that_may_be_gone_and_differs_are_found",
    ),
    mutant(
        "expiry-left",
        "the comparison of rows that may be gone and are there",
        f"{_VERIFICATION}/jobs.py",
        "is_equal = row is not None and comparable(row) == expected_row(trace) and kept == expected_history(trace)",
        "is_equal = True",
        f"{_TESTS}::test_a_row_that_should_have_gone_and_one_that_may_be_gone_and_differs_are_found",
    ),
    mutant(
        "expiry-returned",
        "the parking of events behind a gap of jobs whose rows never expired",
        "projections/projector/apply.sql",
        "WHERE EXISTS (SELECT FROM expired AS e WHERE e.lane = now.lane AND e.task = now.task)\n",
        "",
        f"{_TESTS}::test_a_job_of_which_no_row_expired_is_not_taken_for_one_that_came_back",
    ),
)
