"""The defences of what recurring definitions have to do with their jobs, from the creation to the end."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_UNIT: Final = "tests/unit/streams/recurring"
_ENDS: Final = f"{_UNIT}/test_ends.py"
_KILLED: Final = f"{_UNIT}/test_killed.py"
_MEMORY: Final = "tests/unit/services/testing/test_recurring.py"
_BROKER: Final = "tests/integration/streams/recurring"

MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "recurring-requeued",
        "telling that a job which was requeued has not ended",
        "streams/recurring/ends.py",
        "            if event.type in _ALIVE or event.data.traversed:\n",
        "            if event.data.traversed:\n",
        f"{_ENDS}::test_a_job_that_is_requeued_has_not_ended",
    ),
    mutant(
        "recurring-ends-go-on",
        "reading the ends of jobs again after an error that nobody foresaw",
        "streams/recurring/endings.py",
        "            except Exception:  # without",
        "            except ZeroDivisionError:  # without",
        f"{_BROKER}/test_endings.py::test_ends_are_seen_again_after_an_error_that_nobody_foresaw",
    ),
    mutant(
        "recurring-size",
        "leaving alone a definition whose jobs no elector would read",
        "streams/recurring/jobs.py",
        "    if len(made.value) > VALUE_BYTES_MAX:\n",
        "    if False:\n",
        f"{_UNIT}/test_process.py::test_a_definition_whose_jobs_are_too_large_costs_the_others_nothing",
    ),
    mutant(
        "recurring-unnoted",
        "noting again what was not acknowledged",
        "streams/recurring/process.py",
        "        notes = of_progress(self._names.recurring, noted)\n",
        "        notes = of_progress(self._names.recurring, noted)\n"
        "        [held.unnoted.clear() for _, held in noted]\n",
        f"{_UNIT}/test_process.py::test_what_could_not_be_noted_is_noted_at_the_next_tick",
    ),
    mutant(
        "recurring-removed-meanwhile",
        "noting nothing of a definition that was removed meanwhile",
        "streams/recurring/held.py",
        "            if self.rows.rows.get(recurring_id) is made.row and made.row.definition is not None:\n",
        "            if True:\n",
        f"{_UNIT}/test_process.py::test_nothing_is_noted_of_a_definition_that_was_removed_meanwhile",
    ),
    mutant(
        "recurring-resume",
        "ending a pause only where there is one",
        "services/client/recurring.py",
        "        if self._existing(recurring_id).is_paused(now):\n",
        "        if self._existing(recurring_id):\n",
        f"{_MEMORY}::test_to_resume_what_is_not_paused_takes_nothing_away",
    ),
    mutant(
        "recurring-pause-ahead",
        "what is due before a pause by a clock that is ahead",
        "streams/recurring/rows.py",
        "        return over if before is None else min(before, over)\n",
        "        return over\n",
        f"{_UNIT}/test_rows.py",
    ),
    mutant(
        "recurring-intended",
        "noting which job is about to be created before its command is sent",
        "streams/recurring/notes.py",
        "for number, made in plans if not made.is_intended]",
        "for number, made in plans if False]",
        f"{_KILLED}::test_a_job_is_not_forgotten_whose_process_was_killed_before_it_noted_the_creation",
    ),
    mutant(
        "recurring-come",
        "looking whether a job has come before it is created once more",
        "streams/recurring/deciding.py",
        "    if not came:\n",
        "    if True:\n",
        f"{_KILLED}::test_a_job_is_not_forgotten_whose_process_was_killed_before_it_noted_the_creation",
    ),
    mutant(
        "recurring-intended-late",
        "keeping what was done when what was intended is read back",
        "streams/recurring/rows.py",
        "    if after.sending is not None and after.sending == before.last_occurrence:\n",
        "    if False:\n",
        f"{_KILLED}::test_what_was_intended_is_read_back_when_it_was_done_and_changes_nothing",
    ),
    mutant(
        "recurring-intended-former",
        "leaving alone what a former definition of the same id was about to create",
        "streams/recurring/deciding.py",
        "    is_open = definition.starts_at < progress.sending != progress.last_occurrence\n",
        "    is_open = progress.sending != progress.last_occurrence\n",
        f"{_KILLED}::test_what_was_about_to_be_created_is_nothing_to_another_definition_of_the_same_id",
    ),
    mutant(
        "recurring-overshoot",
        "looking back no further than necessary for missed occurrences",
        "streams/recurring/due.py",
        "        window *= min(_GROWTH, count / len(found) + 1) if found else _GROWTH\n",
        "        window *= _GROWTH\n",
        f"{_UNIT}/test_due.py::test_few_more_occurrences_are_looked_at_than_are_asked_for",
    ),
    mutant(
        "recurring-lost",
        "asking again for a job that never came",
        "streams/recurring/deciding.py",
        "    row.asked_at = now\n    return occurrence\n",
        "    return None\n",
        f"{_KILLED}::test_a_job_that_never_comes_is_asked_for_again_and_not_waited_for_for_ever",
    ),
    mutant(
        "recurring-full",
        "sending more than the client holds at once",
        "streams/recurring/sender.py",
        "            except BufferError:  # more",
        "            except ZeroDivisionError:  # more",
        f"{_UNIT}/test_sender.py",
    ),
)
