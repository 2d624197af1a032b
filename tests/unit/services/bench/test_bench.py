from typing import Any

import pytest
import typer
from joblog.services.cli.commands.bench import app

COMMANDS: Any = typer.main.get_command(app)


@pytest.mark.parametrize("name", COMMANDS.commands)
def test_every_benchmark_has_its_own_options_then_those_that_all_have(name: str) -> None:
    options = [one.name for one in COMMANDS.commands[name].params]
    shared = [one for one in ("lanes", "embedded", "timeout", "output") if one in options]
    assert options[0] == "jobs"
    assert options[-len(shared) :] == shared
    assert {"lanes", "embedded", "output"} <= set(shared)


@pytest.mark.parametrize("name", COMMANDS.commands)
def test_every_benchmark_says_what_it_measures_with_an_example(name: str) -> None:
    assert f"joblog bench {name}" in COMMANDS.commands[name].help
