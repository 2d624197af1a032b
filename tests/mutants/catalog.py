"""All mutants."""

from typing import Final

from tests.mutants import (
    batches,
    clients,
    control,
    electors,
    expiry,
    lanes,
    limits,
    monitoring,
    outbox,
    recurring,
    recurring_jobs,
    redrives,
    relations,
    replay,
    roles,
    running,
    testing,
    triggers,
    what_if,
)
from tests.mutants.mutant import Mutant

MUTANTS: Final[tuple[Mutant, ...]] = (
    *electors.MUTANTS,
    *lanes.MUTANTS,
    *limits.MUTANTS,
    *clients.MUTANTS,
    *control.MUTANTS,
    *roles.MUTANTS,
    *recurring.MUTANTS,
    *recurring_jobs.MUTANTS,
    *monitoring.MUTANTS,
    *replay.MUTANTS,
    *expiry.MUTANTS,
    *redrives.MUTANTS,
    *triggers.MUTANTS,
    *outbox.MUTANTS,
    *running.MUTANTS,
    *batches.MUTANTS,
    *relations.MUTANTS,
    *testing.MUTANTS,
    *what_if.MUTANTS,
)
