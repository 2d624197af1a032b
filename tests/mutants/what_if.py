"""The defences of what-if: batches, several parents, and that nothing is otherwise where nothing is changed."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_BATCHES: Final = "tests/unit/streams/replay/test_what_if_batches.py"
_ONE: Final = "tests/unit/streams/replay/test_what_if.py"
_LIVES: Final = "tests/unit/streams/replay/test_what_if_lives.py"
_SAME_BATCHES: Final = f"{_LIVES}::test_nothing_is_otherwise_for_batches_by_their_own_rules_whatever_happens_to_them"
_SAME_JOBS: Final = f"{_LIVES}::test_nothing_is_otherwise_for_jobs_that_share_limits_and_keys_by_their_own_rules"
_IN_VAIN: Final = f"{_LIVES}::test_what_failed_and_what_waited_for_it_in_vain_ends_as_it_really_does_with_one_retry"
_REALLY: Final = f"{_LIVES}::test_jobs_and_batches_end_as_they_really_do_with_other_attempts"

MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "what-if-batch-end",
        "the wait of a batch for all that was to be added to it",
        "streams/replay/batches.py",
        "batch.parts = {0: (*part.counts[:4], min(created, expected), 0)}",
        "batch.parts = {0: (*part.counts[:4], expected, 0)}",
        f"{_BATCHES}::test_jobs_of_a_batch_that_come_one_after_the_other_are_one_batch",
    ),
    mutant(
        "what-if-batch-whole",
        "the look whether the log has all members of a batch",
        "streams/replay/batches.py",
        "    if not told.is_whole or state is not told.state or counts.created < told.counts.created:\n",
        "    if False:\n",
        f"{_BATCHES}::test_a_batch_of_which_the_log_has_not_all_jobs_stays_as_it_is",
    ),
    mutant(
        "what-if-batch-outer",
        "the outer batch, in which an inner one would count otherwise",
        "streams/replay/following.py",
        '                if (outer := self._batches.get(told.outer or "")) is not None:\n',
        "                if (outer := None) is not None:\n",
        f"{_BATCHES}::test_a_retry_that_is_missing_fails_the_batch_and_what_waits_for_it",
        _REALLY,
    ),
    mutant(
        "what-if-batch-unknown",
        "the word that nobody knows how a batch would have ended",
        "streams/replay/following.py",
        "after.ends.is_unknown = after.is_open and (batch.is_unknown or began.is_unknown)",
        "after.ends.is_unknown = False",
        f"{_BATCHES}::test_what_waits_for_an_unknown_run_is_unknown_through_batches",
    ),
    mutant(
        "what-if-batch-begin",
        "the jobs of a batch that would have begun otherwise",
        "streams/replay/batch_jobs.py",
        "    if waits_for_start(created) and began.recorded != began.simulated:\n",
        "    if False:\n",
        _REALLY,
    ),
    mutant(
        "what-if-batch-cancelled",
        "the cancellation of a batch whose parent would have ended otherwise",
        "streams/replay/batches.py",
        "        found.would_be_cancelled = min(after[0].at_ms, found.would_be_cancelled or after[0].at_ms)\n",
        "        pass\n",
        _REALLY,
    ),
    mutant(
        "what-if-cancel-running",
        "the rule that a run goes on when its batch is cancelled",
        "streams/replay/what_if.py",
        "        if state in FINAL_STATES or (state is State.PROCESSING and not what.running):\n",
        "        if state in FINAL_STATES:\n",
        f"{_BATCHES}::test_a_run_that_would_be_made_when_its_batch_is_cancelled_goes_on",
    ),
    mutant(
        "what-if-cancel-start",
        "the rule that a job of a cancelled batch does not start again",
        "streams/replay/what_if.py",
        "        if self._cancelled is not None:\n            return self._cancel(self._cancelled)\n",
        "",
        f"{_BATCHES}::test_a_run_that_would_be_made_when_its_batch_is_cancelled_goes_on",
    ),
    mutant(
        "what-if-cancel-late",
        "the time until the lane of a job knew that its batch was cancelled",
        "streams/replay/batch_jobs.py",
        "        at_ms = max(at_ms, end_ms + 1)\n",
        "",
        _SAME_BATCHES,
    ),
    mutant(
        "what-if-parents-all",
        "the ends of parents that did not matter in the log",
        "streams/replay/following.py",
        "            if is_other or job_id in self._several:\n",
        "            if is_other:\n",
        f"{_BATCHES}::test_a_job_that_needs_any_parent_goes_on_by_one_that_did_not_matter_before",
        f"{_BATCHES}::test_a_job_that_needs_all_parents_waits_for_one_that_did_not_matter_before",
    ),
    mutant(
        "what-if-parents-unknown",
        "the word that nobody knows how a parent ended that was not looked at",
        "streams/replay/continuations.py",
        "NOTHING_KNOWN: Final = Ends([], [], is_unknown=True)",
        "NOTHING_KNOWN: Final = Ends([], [])",
        f"{_BATCHES}::test_a_job_that_needs_any_parent_goes_on_by_one_that_did_not_matter_before",
    ),
    mutant(
        "what-if-parents-again",
        "the wait of a deleted continuation whose parent is requeued",
        "streams/replay/continuations.py",
        "        elif is_deleted and not is_end and parent in ended and not is_met(parents.on, ended[parent]):\n",
        "        elif False:\n",
        f"{_BATCHES}::test_a_job_that_was_deleted_waits_again_when_its_parent_is_requeued",
    ),
    mutant(
        "what-if-related-later",
        "the jobs that were created later, and depend on chosen ones",
        "streams/replay/history.py",
        "(is_early or is_related(_spec(spec)))",
        "is_early",
        f"{_BATCHES}::test_a_batch_of_which_the_log_has_not_all_jobs_stays_as_it_is",
    ),
    mutant(
        "what-if-in-vain",
        "the runs of what waited in vain, which are assumed to end as is asked",
        "streams/replay/what_if.py",
        "self._history.is_open and self._history.job.state is not State.AWAITING and outside is None",
        "self._history.is_open and outside is None",
        _IN_VAIN,
    ),
    mutant(
        "what-if-circles",
        "the jobs that wait for themselves",
        "streams/replay/following.py",
        "        self._circles()\n",
        "",
        f"{_BATCHES}::test_what_waits_for_itself_is_decided_as_if_nothing_else_was_otherwise",
    ),
    mutant(
        "what-if-same-queued",
        "the wait for a worker that lasted until a command came",
        "streams/replay/what_if.py",
        "(outside.what == EXPIRED or outside.before is State.ENQUEUED)",
        "outside.what == EXPIRED",
        _SAME_JOBS,
    ),
    mutant(
        "what-if-same-due",
        "the wait of a job that was due, until a command came",
        "streams/replay/what_if.py",
        "(outside.at_ms < job.due_ms or outside.due_ms == job.due_ms)",
        "outside.at_ms < job.due_ms",
        f"{_ONE}::test_a_command_on_a_job_that_is_due_comes_before_its_run",
    ),
    mutant(
        "what-if-same-millisecond",
        "the order of a run and a command of the same millisecond",
        "streams/replay/what_if.py",
        "(outside.at_ms == start_ms and self._runs_are_over())",
        "outside.at_ms == start_ms",
        f"{_ONE}::test_a_command_of_the_millisecond_of_a_run_comes_after_it",
    ),
)
