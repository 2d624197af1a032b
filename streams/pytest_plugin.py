"""The pytest plugin of Joblog's users: the fixture `joblog`, a whole Joblog in memory (services/testing).

pytest imports this in every run of everybody who has Joblog installed, so it must cost nothing: it is in the one part
whose import loads nothing else, and what the fixture needs is imported when a test asks for it.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The setting `joblog_tasks`: modules with the tasks that the fixture runs, and the triggers that it calls."""
    told = "Modules with tasks, and triggers, that the fixture `joblog` runs."
    parser.addini("joblog_tasks", told, type="args", default=[])


@pytest.fixture
def joblog(pytestconfig: pytest.Config) -> Iterator[Any]:
    """An `InMemoryJoblog`: create jobs, run them in this thread with `run_all`, and look what became of them."""
    testing = import_module("joblog.services.testing")
    tasks = [import_module(name) for name in pytestconfig.getini("joblog_tasks")]
    with testing.InMemoryJoblog(*tasks) as made:
        yield made
