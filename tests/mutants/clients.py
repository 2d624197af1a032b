"""The defences of Kafka's clients: the one profile that no option makes less safe."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_FILE: Final = "streams/kafka/clients.py"
_TESTS: Final = "tests/integration/streams/kafka/test_clients.py"

MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "client-left-in-fork",
        "the test whether a client is closed in a fork, where its threads are not",
        "services/client/forks.py",
        "return os.getpid() == self._pid",
        "return True",
        "tests/integration/services/client/test_client.py",
    ),
    mutant(
        "read-committed",
        "reading of committed records only",
        _FILE,
        '    "isolation.level": "read_committed",\n',
        "",
        f"{_TESTS}::test_nothing_is_read_that_was_not_committed",
    ),
    mutant(
        "offset-reset",
        "the error where the log no longer holds a position",
        _FILE,
        '    "auto.offset.reset": "error",\n',
        "",
        f"{_TESTS}::test_a_position_that_the_log_no_longer_holds_is_an_error",
    ),
    mutant(
        "auto-commit",
        "consumers that commit nothing by themselves",
        _FILE,
        '    "enable.auto.commit": False,\n    "enable.auto.offset.store": False,\n',
        "",
        f"{_TESTS}::test_a_consumer_commits_nothing_by_itself",
    ),
    mutant(
        "idempotence",
        "producers whose records Kafka numbers",
        _FILE,
        '    "enable.idempotence": True,\n    "acks": "all",\n',
        "",
        f"{_TESTS}::test_a_producer_numbers_its_records_so_that_a_repetition_is_no_second_one",
    ),
)
