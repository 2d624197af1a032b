"""The defences of what recurring definitions have to do with their jobs, from the creation to the end."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_UNIT: Final = "tests/unit/streams/recurring"
_ENDS: Final = f"{_UNIT}/test_ends.py"
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
)
