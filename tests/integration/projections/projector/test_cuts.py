"""Every cut of a log into batches, with repeats and holes, gives what a fold of the log gives."""

import random
from datetime import timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joblog.projections.projector.tables import Tables
from joblog.projections.schema import migrate
from joblog.services.embedded.stack import StackAddresses

from tests.support import projection_settings
from tests.support.log_comparison import differences
from tests.support.projection_events import BEGINNING, Story, placed, records
from tests.support.projection_settings import (
    LANES,
    apply,
)

# The fixtures that this module uses.
tables = projection_settings.tables
pytestmark = pytest.mark.database


def told(story: Story, steps: list[str]) -> Story:
    due = BEGINNING + timedelta(hours=2)
    story.enqueued(**({} if story.random % 2 else {"retry": 0}))
    for number, step in enumerate(steps):
        match step:
            case "scheduled":
                story.failed(traversed=True).scheduled(due, retry=number)
            case "parameter_set":
                story.parameter_set(f"p{number % 2}", {"n": number})
            case "failed":
                story.failed(exception={"type": f"demo.E{number}", "message": "m"})
            case "moved":
                story.queue = f"q{number % 2}"
                story.enqueued(reason="moved")
            case "created_again":
                story.created_again(spec={"args": [number]}).enqueued()
            case _:
                getattr(story, step)()
    return story


STEPS = st.lists(
    st.sampled_from(
        ["processing", "succeeded", "failed", "deleted", "scheduled", "parameter_set", "moved", "created_again"]
    ),
    max_size=7,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stories=st.lists(STEPS, min_size=1, max_size=6),
    seed=st.integers(0, 2**32),
    damage=st.lists(st.sampled_from(["repeat", "drop"]), max_size=3),
)
def test_any_cut_of_any_log_gives_its_fold_and_reading_a_whole_one_twice_changes_nothing(
    stack: StackAddresses, schema: str, stories: list[list[str]], seed: int, damage: list[str]
) -> None:
    chance = random.Random(seed)
    made = [told(Story(lane=n % LANES, random=n + 1), steps) for n, steps in enumerate(stories)]
    waiting = [(story.lane, list(story.values)) for story in made]
    values: list[tuple[int, bytes | None]] = []
    while waiting:
        lane, events = chance.choice(waiting)
        values.append((lane, events.pop(0)))
        waiting = [one for one in waiting if one[1]]
    for what in damage:
        at = chance.randrange(len(values))
        if what == "repeat":
            values.insert(chance.randrange(at, len(values)) + 1, values[at])
        elif len(values) > 1:
            del values[at]
    log = placed(values)

    migrate.upgrade(stack.dsn, schema)
    with psycopg.connect(stack.dsn, options=f"-c search_path={schema}", autocommit=True) as connection:
        connection.execute("TRUNCATE jobs, history, counts, outcomes, parked, offsets")
    for _ in range(1 if damage else 2):
        with psycopg.connect(stack.dsn, options=f"-c search_path={schema}") as connection:
            connection.execute("DELETE FROM offsets")
        tables = Tables(stack.dsn, schema, range(LANES))
        rest = log
        while rest:
            size = chance.randint(1, 9)
            apply(tables, rest[:size])
            rest = rest[size:]
        tables.close()
        assert differences(stack.dsn, schema, log) == []


def test_a_difference_is_found(stack: StackAddresses, schema: str, tables: Tables) -> None:
    stories = [Story(random=n).enqueued().processing().succeeded() for n in range(1, 6)]
    batch = records(*stories)
    apply(tables, batch)
    ids = [story.id for story in stories]
    with psycopg.connect(stack.dsn, options=f"-c search_path={schema}") as connection:
        connection.execute("UPDATE jobs SET attempt = 2 WHERE id = %s", [ids[0]])
        connection.execute("INSERT INTO history SELECT job, 3, 3, events[3:3] FROM history WHERE job = %s", [ids[1]])
        connection.execute(
            "UPDATE history SET last_version = 1, events = events[1:1] WHERE job = %s AND version = 1", [ids[1]]
        )
        connection.execute("DELETE FROM jobs WHERE id = %s", [ids[2]])
        connection.execute("UPDATE outcomes SET n = 6 WHERE period = 'day'")
    found = "\n".join(differences(stack.dsn, schema, batch))
    assert f"job {ids[0]}: attempt is 2, the log says 1" in found
    assert f"job {ids[1]}: its history has the versions [1, 3], the log [1, 2, 3]" in found
    assert f"job {ids[2]}: in the log, not in the tables" in found
    assert "the counter of Succeeded says 5, there are 4" in found
    assert "lane 0, day since 2026-11-23 00:00: 6 are counted as Succeeded, the log says 5" in found
    assert f"job {ids[4]}: in the tables, not in the log" in differences(stack.dsn, schema, batch[:12])
