"""The defences of the elector: its transactions, its lanes, and what it makes of records that fail."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_HERE: Final = "tests/integration/streams/elector"
_DECIDES: Final = f"{_HERE}/test_elector.py"
_ZOMBIES: Final = f"{_HERE}/test_zombies.py"
_REBALANCES: Final = f"{_HERE}/test_rebalances.py"

KEPT_LANES: Final = mutant(
    "kept-lanes",
    "the comparison of a kept lane with its state partition's end",
    "streams/elector/ownership.py",
    "for number, end in ends.items() if given_back[number][2] == end}",
    "for number in ends}",
    f"{_REBALANCES}::test_a_lane_that_another_elector_had_meanwhile_is_loaded_from_the_log",
)
FENCE: Final = mutant(
    "fence",
    "fencing of the owner that a lane's record names",
    "streams/elector/takeover.py",
    "        producer.init_transactions(30)\n        producer.close()\n",
    "        producer.close()\n",
    f"{_ZOMBIES}::test_a_transaction_that_a_dead_elector_left_open_holds_nobody_up",
)
NOT_OURS: Final = mutant(
    "not-ours",
    "the refusal to fence an owner after a failed transaction",
    "streams/elector/takeover.py",
    "if owners and not fence:",
    "if False:",
    f"{_REBALANCES}::test_an_elector_that_slept_after_a_failed_transaction_does_not_fence_the_one_that_took_over",
)
GROUP_OFFSETS: Final = mutant(
    "group-offsets",
    "the group's offsets in the transaction, with which the group refuses who is no member",
    "streams/elector/transaction.py",
    "            if offsets:\n",
    "            if False:\n",
    f"{_REBALANCES}::test_an_elector_that_slept_while_it_took_lanes_over_writes_nothing",
)
QUIET_PERIOD: Final = mutant(
    "quiet-period",
    "the time after a take-over in which no worker is lost",
    "streams/elector/elector.py",
    "is_calm = self._quiet.is_over(now)",
    "is_calm = True",
    f"{_REBALANCES}::test_no_worker_is_lost_since_a_rebalance_took_long",
)

MUTANTS: Final[tuple[Mutant, ...]] = (KEPT_LANES, FENCE, NOT_OURS, GROUP_OFFSETS, QUIET_PERIOD)
