"""The defences of the elector: its transactions, its lanes, and what it makes of records that fail."""

from typing import Final

from tests.mutants.mutant import Mutant, Patch, mutant

_HERE: Final = "tests/integration/streams/elector"
_DECIDES: Final = f"{_HERE}/test_elector.py"
_ZOMBIES: Final = f"{_HERE}/test_zombies.py"
_REBALANCES: Final = f"{_HERE}/test_rebalances.py"
_LEASES: Final = f"{_HERE}/test_leases.py"
_RECOVERY: Final = "streams/elector/recovery.py"
_POSITIONS: Final = f"{_HERE}/test_positions.py"

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
QUIET_TAKEOVER: Final = mutant(
    "quiet-takeover",
    "the time after a take-over in which no worker is lost, for what came meanwhile is not fetched yet",
    "streams/elector/elector.py",
    "        self._quiet.begin(time.monotonic())\n        gc.collect()\n",
    "        gc.collect()\n",
    f"{_REBALANCES}::test_no_worker_is_lost_since_a_rebalance_took_long",
)
POSITIONS: Final = mutant(
    "positions",
    "the lane's own position, from which it is read on",
    "streams/elector/ownership.py",
    "[TopicPartition(topic, number, offset) for (topic, number), offset in places.items()]",
    "[TopicPartition(topic, number) for topic, number in places]",
    f"{_POSITIONS}::test_nothing_is_decided_twice_when_the_groups_offsets_were_deleted",
)
BROKER_CLOCK: Final = mutant(
    "broker-clock",
    "the limit of a step of the brokers' clock",
    "streams/lane/log_clock.py",
    "min(max(appended_ms - self._appended_ms, 0), STEP_MAX_MS)",
    "max(appended_ms - self._appended_ms, 0)",
    f"{_LEASES}::test_a_brokers_clock_that_is_set_makes_no_worker_lost_whose_renewal_is_unread",
)
ELECTOR_CLOCK: Final = mutant(
    "elector-clock",
    "the clock that nobody sets, by which an elector measures silence",
    "streams/elector/elector.py",
    "    return time.monotonic_ns() // 1_000_000\n",
    "    return time.time_ns() // 1_000_000\n",
    f"{_LEASES}::test_an_electors_clock_that_is_set_makes_no_worker_lost",
)

MUTANTS: Final[tuple[Mutant, ...]] = (
    KEPT_LANES,
    FENCE,
    NOT_OURS,
    GROUP_OFFSETS,
    QUIET_TAKEOVER,
    POSITIONS,
    BROKER_CLOCK,
    ELECTOR_CLOCK,
    mutant(
        "twin",
        "the end of an elector after which another was started with its id",
        _RECOVERY,
        "        if stop.is_set() or is_latest:\n",
        "        if stop is not None:\n",
        f"{_ZOMBIES}::test_of_two_electors_under_one_name_one_ends_although_there_is_much_to_do",
    ),
    Mutant(
        "doubtful-commit",
        "loading the lanes again after a transaction whose outcome is unknown",
        (
            Patch(_RECOVERY, "        self.reload(self._owned.lanes)\n", "        self.reload(())\n"),
            Patch(
                _RECOVERY,
                "        self._owned.drop()\n        self._end_if_replaced",
                "        self._end_if_replaced",
            ),
        ),
        (f"{_DECIDES}::test_a_doubtful_commit_neither_loses_nor_doubles",),
    ),
    mutant(
        "failed-turn",
        "loading the lanes again after a record that failed",
        _RECOVERY,
        "        self.reload(error.lanes)\n",
        "        self.reload(())\n",
        f"{_DECIDES}::test_a_record_that_fails_in_an_unforeseen_way_is_parked_and_leaves_no_trace_in_the_lane",
    ),
    mutant(
        "smaller-turns",
        "smaller turns after one that was too large",
        _RECOVERY,
        "            self.turn_size.shrink()\n",
        "            pass\n",
        f"{_DECIDES}::test_transactions_become_smaller_when_one_was_too_large",
    ),
    mutant(
        "markers",
        "a position behind the markers of transactions",
        "streams/elector/elector.py",
        "        turn.skip_markers(self._owned.markers(ends))\n",
        "",
        f"{_DECIDES}::test_a_lane_stands_behind_the_markers_of_transactions",
    ),
    mutant(
        "takeover-order",
        "loading a lane in the order of its records",
        "streams/elector/takeover.py",
        "for key in tuple(found):",
        "for key in reversed(tuple(found)):",
        "tests/unit/streams/elector/test_takeover_order.py",
    ),
)
