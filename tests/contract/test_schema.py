"""The database schema as files, and that the package carries them."""

import subprocess
import sys
from importlib.resources import files

import pytest
from joblog.projections import statements
from joblog.projections.projector.decode import BATCH_STATES, CONTROLS, REQUIRED, STATES, WORKER_STATES
from joblog.projections.schema import migrate, schema
from joblog.streams.contract import events
from joblog.streams.errors import SchemaError
from pydantic import BaseModel, TypeAdapter

HEAVY = ("sqlalchemy", "alembic")
MODULES = (
    "projector.projector",
    "monitor",
    "replay.verification",
    "projector.tables",
    "schema.schema",
    "monitor.job_filter",
)


def test_the_schema_this_version_knows_is_the_newest_migration() -> None:
    assert migrate.head() == schema.HEAD


def test_every_migration_has_its_statements_beside_it() -> None:
    names = {file.name for file in files("joblog.projections").joinpath("schema", "migrations").iterdir()}
    migrations = {name.removesuffix(".py") for name in names if name.endswith(".py")}
    assert migrations
    assert {f"{name}.sql" for name in migrations} <= names


@pytest.mark.parametrize("module", MODULES)
def test_only_migrating_loads_the_tools_of_migration(module: str) -> None:
    code = f"import sys, joblog.projections.{module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("file", ["projector/apply.sql", "monitor/monitor.sql", "replay/verification/tables.sql"])
def test_every_statement_says_what_it_does(file: str) -> None:
    loaded = statements.load(file)
    assert loaded
    assert [name for name, text in loaded.items() if not text.startswith("-- ")] == []


@pytest.mark.parametrize("name", ["", "Jobs", "1st", "a-b", "a;b", "ä", "a" * 64, 'x"y', "a\n"])
def test_a_name_that_is_no_schema_is_refused(name: str) -> None:
    with pytest.raises(SchemaError, match="cannot name a schema"):
        schema.checked_name(name)


@pytest.mark.parametrize("name", ["joblog", "_x", "a" * 63, "t_0"])
def test_a_name_of_a_schema_is_accepted(name: str) -> None:
    assert schema.checked_name(name) == name


def test_every_event_of_the_contract_is_read() -> None:
    tags = set(TypeAdapter(events.Event).json_schema()["discriminator"]["mapping"])
    assert tags == STATES.keys() | WORKER_STATES.keys() | BATCH_STATES.keys() | CONTROLS.keys() | {
        "command.rejected",
        "limit.changed",
        "parent.sought",
    }


def test_what_a_type_of_event_requires_is_what_its_model_requires() -> None:
    common = {"version", "state", "attempt", "queue", "task"}
    models: list[type[BaseModel]] = [*events.JobEvent.__subclasses__(), *events.FirstEvent.__subclasses__()]
    for model in models:
        if "type" not in model.model_fields:
            continue
        required = {name for name, one in model.model_fields.items() if one.is_required()} - common
        assert set(REQUIRED.get(model.model_fields["type"].default, ())) == required
