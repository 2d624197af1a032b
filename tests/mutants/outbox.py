"""The defences of the outbox: what was committed comes into the log once, and what was not never does."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_RELAY: Final = "projections/outbox/relay.py"
_LOG: Final = "streams/outbox/log.py"
_CONNECTIONS: Final = "services/outbox/connections.py"
_RULE: Final = "tests/unit/projections/outbox/test_relay.py"
_BROKER: Final = "tests/integration/projections/outbox/test_relay.py"
_DATABASE: Final = "tests/integration/projections/outbox/test_rows.py"
_WRITING: Final = "tests/unit/services/outbox/test_outbox.py"

MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "outbox-mark",
        "deleting the rows that a dead relay has put into the log",
        _RELAY,
        "        relayed = mark.holds(rows.named([row_id for row_id, _ in mark.rows]))\n",
        "        relayed: list[int] = []\n",
        _RULE,
        f"{_BROKER}::test_a_relay_that_is_killed_between_any_two_steps_leaves_everything_once_in_the_log",
    ),
    mutant(
        "outbox-mark-written",
        "writing the mark into the transaction",
        _LOG,
        "        producer.produce(self._names.outbox, encode_mark(Mark.of(rows)), self._key, 0)\n",
        "",
        f"{_BROKER}::test_a_relay_that_is_killed_between_any_two_steps_leaves_everything_once_in_the_log",
    ),
    mutant(
        "outbox-fingerprint",
        "telling a row from one that had its id before a backup was restored",
        "streams/outbox/marks.py",
        "    return blake2b(value, digest_size=8).hexdigest()\n",
        "    return blake2b(b'', digest_size=8).hexdigest()\n",
        "tests/unit/streams/outbox/test_marks.py",
    ),
    mutant(
        "outbox-fence",
        "the fence against a relay that has lost its session",
        _LOG,
        '        self.transactional_id: Final = f"{names.prefix}outbox-{outbox_id}"\n',
        '        self.transactional_id: Final = f"{names.prefix}outbox-{outbox_id}-{id(self)}"\n',
        f"{_BROKER}::test_a_relay_that_stands_by_takes_over_from_one_that_hangs_and_a_zombie_commits_nothing",
    ),
    mutant(
        "outbox-idle",
        "ending the session of a relay that hangs",
        "projections/outbox/rows.py",
        """            self._connection.execute(f"SET idle_session_timeout TO '{IDLE_S}s'")\n""",
        "",
        f"{_BROKER}::test_a_relay_that_stands_by_takes_over_from_one_that_hangs_and_a_zombie_commits_nothing",
    ),
    mutant(
        "outbox-end",
        "reading marks behind the open transaction of another outbox",
        _LOG,
        '        everything = {"isolation.level": "read_uncommitted"}\n',
        '        everything = {"isolation.level": "read_committed"}\n',
        f"{_BROKER}::test_the_open_transaction_of_another_outbox_does_not_hide_the_mark",
    ),
    mutant(
        "outbox-lock",
        "standing by while another relay works",
        _RELAY,
        "        if not rows.lock():\n",
        "        if not rows.lock() and False:\n",
        f"{_RULE}::test_a_relay_that_stands_by_is_ready_and_relays_nothing",
    ),
    mutant(
        "outbox-problems",
        "parking rows that were written for other lanes",
        _RELAY,
        "            if (problem := problem_of(row, self._lanes)) is None:\n",
        "            if (problem := problem_of(row, row.lanes)) is None:\n",
        f"{_BROKER}::test_rows_that_can_never_be_relayed_are_parked_with_the_reason_and_the_others_go_on",
    ),
    mutant(
        "outbox-wake-up",
        "waking the relay at a commit",
        "projections/outbox/rows.py",
        '            self._connection.execute(f"LISTEN {CHANNEL}")\n',
        "",
        f"{_DATABASE}::test_a_commit_wakes_the_relay_and_a_rollback_does_not",
    ),
    mutant(
        "outbox-awaited",
        "refusing connections whose calls nobody would await",
        _CONNECTIONS,
        '        _refuse_awaited(connection, "commit")\n',
        "",
        f"{_WRITING}::test_a_connection_that_cannot_be_used_is_refused_at_once",
    ),
    mutant(
        "outbox-sqlalchemy",
        "letting SQLAlchemy know of the transaction that it is to commit",
        _CONNECTIONS,
        "        return _of_sqlalchemy(connection)\n",
        "        return _of_cursors(connection.connection)\n",
        f"{_DATABASE}::test_connections_and_sessions_of_sqlalchemy_commit_what_they_were_given",
    ),
)
