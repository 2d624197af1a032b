import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.services import IncomingEvent, Job, JobOptions, task, trigger
from joblog.services.client.templates import Rules
from joblog.services.roles import triggers as wiring
from joblog.services.settings.model import Settings
from joblog.services.triggers.bound import BoundTrigger, CallsApart
from joblog.services.triggers.jobs import JOBS_MAX, commands_of
from joblog.services.triggers.trigger import TriggerRegistry
from joblog.streams.contract.ids import hashed_job_id, lane_of_job, lane_of_queue, lane_of_shard
from joblog.streams.errors import InvalidData, SettingsError

LANES = 8
RULES = Rules(LANES, {}, "/joblog/triggers", 1_000)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=30)


@task("images.shrink", queue="images")
def shrink(path: str) -> None: ...


def event(**changes: Any) -> IncomingEvent:
    usual: dict[str, Any] = {
        "id": "e-1", "source": "/shop", "type": "image.uploaded", "subject": None, "time": datetime.now(UTC),
        "data": {}, "topic": "uploads", "partition": 0, "offset": 0, "key": None, "headers": [],
    }  # fmt: skip
    return IncomingEvent(**usual | changes)


def ids(returned: Any, rules: Rules = RULES, name: str = "m.f", **changes: Any) -> list[str]:
    return [command.job_id for command in commands_of(event(**changes), name, returned, rules)]


def test_a_job_becomes_a_create_command_in_the_lane_of_its_queue() -> None:
    (command,) = commands_of(event(), "m.f", Job(shrink, "a.png", width=3, options=JobOptions(priority=7)), RULES)
    said = json.loads(command.value)
    assert (said["type"], said["source"], said["subject"]) == ("job.create", "/joblog/triggers", command.job_id)
    data = said["data"]
    assert (data["task"], data["args"], data["kwargs"]) == ("images.shrink", ["a.png"], {"width": 3})
    assert (data["queue"], data["priority"], data["job_id"]) == ("images", 7, command.job_id)
    assert lane_of_job(command.job_id) == lane_of_queue("images", LANES)


def test_none_and_an_empty_list_are_no_jobs() -> None:
    assert (ids(None), ids([]), ids(())) == ([], [], [])


def test_two_equal_jobs_of_one_event_are_two() -> None:
    assert len(set(ids([Job("x"), Job("x")]))) == 2


@pytest.mark.parametrize(
    "returned", [1, "x", {"a": 1}, [Job("x"), None], [1], Job, shrink, b"x", [Job("x")] * (JOBS_MAX + 1)]
)
def test_what_is_no_job_is_refused(returned: Any) -> None:
    with pytest.raises(InvalidData, match="it returned"):
        ids(returned)


@pytest.mark.parametrize(
    "job",
    [Job("has space"), Job("x", "y" * 2_000), Job("x", object()), Job("x", options={"priority": 1})],  # type: ignore[arg-type]
)
def test_a_job_that_nobody_could_create_is_refused(job: Job) -> None:
    with pytest.raises(InvalidData):
        ids(job)


@given(texts, texts, texts, st.integers(0, 5))
def test_the_same_event_is_always_the_same_jobs(source: str, id_: str, name: str, count: int) -> None:
    jobs = [Job("x", number) for number in range(count)]
    first = ids(jobs, name=name, source=source, id=id_, offset=1)
    assert ids(jobs, name=name, source=source, id=id_, offset=2, partition=3, data=5) == first
    assert len(set(first)) == count


@given(st.lists(st.tuples(texts, texts, texts), min_size=2, max_size=6, unique=True))
def test_other_events_and_other_functions_make_other_jobs(named: list[tuple[str, str, str]]) -> None:
    made = [ids(Job("x"), name=name, source=source, id=id_)[0] for name, source, id_ in named]
    assert len(set(made)) == len(named)


def test_one_id_from_two_sources_is_two_events() -> None:
    assert ids(Job("x"), source="/shop", id="1") != ids(Job("x"), source="/warehouse", id="1")


@given(st.integers(0, 10_000))
def test_a_queue_with_shards_spreads_its_jobs_and_keeps_each_in_its_lane(number: int) -> None:
    rules = RULES._replace(shards={"hot": 4})
    job = Job("x", options=JobOptions(queue="hot"))
    (one,) = ids(job, rules, id=str(number))
    assert ids(job, rules, id=str(number)) == [one]
    assert lane_of_job(one) in {lane_of_shard("hot", LANES, shard) for shard in range(4)}
    # Growing moves no job of an event that may be repeated, as long as the former number is named.
    (grown,) = ids(job, RULES._replace(shards={"hot": 6}, shards_before={"hot": 4}), id=str(number))
    assert grown == one


def test_a_key_of_the_users_own_makes_one_job_of_many_events() -> None:
    job = Job("x", options=JobOptions(idempotency_key="daily"))
    assert (
        ids(job, id="1") == ids(job, id="2") == [hashed_job_id(lane_of_queue("default", LANES), "default", "daily")]
    )


def test_a_trigger_wants_events_of_its_topic_type_and_source() -> None:
    @trigger(topic="uploads", type=("a", "b"), source="/shop")
    def function(_: IncomingEvent) -> None: ...

    bound = BoundTrigger(function, RULES, CallsApart())
    wanted = [
        bound.matches(event(**{"type": "a", **changes}))
        for changes in ({}, {"type": "b"}, {"type": "c"}, {"type": None}, {"source": "/x"}, {"topic": "x"})
    ]
    assert wanted == [True, True, False, False, False, False]


@pytest.mark.parametrize("kind", ["sync", "async", "stop"])
def test_functions_are_called_with_the_event(kind: str) -> None:
    @trigger(topic="uploads")
    def sync_one(given: IncomingEvent) -> Any:
        if kind == "stop":
            raise StopIteration
        return given.id

    @trigger(topic="uploads")
    async def async_one(given: IncomingEvent) -> Any:
        return given.id

    bound = BoundTrigger(async_one if kind == "async" else sync_one, RULES, CallsApart())
    if kind == "stop":
        with pytest.raises(Exception, match="StopIteration"):
            asyncio.run(bound.call(event()))
    else:
        assert asyncio.run(bound.call(event())) == "e-1"


def test_an_async_function_that_blocks_its_loop_does_not_hold_up_the_process() -> None:
    goes_on = Event()

    @trigger(topic="uploads")
    async def blocks(_: IncomingEvent) -> bool:
        return goes_on.wait(5)

    async def process() -> Any:
        asyncio.get_running_loop().call_later(0.01, goes_on.set)
        return await BoundTrigger(blocks, RULES, CallsApart()).call(event())

    assert asyncio.run(process())


@pytest.mark.parametrize("topic", ["a b", "..", "x" * 250, None])
def test_a_topic_that_kafka_refuses_is_refused(topic: Any) -> None:
    with pytest.raises(SettingsError, match="cannot be the name of a topic"):
        trigger(topic=topic)


@pytest.mark.parametrize("given_", ["", (), [1], ("a", "")])
def test_a_filter_that_no_event_passes_is_refused(given_: Any) -> None:
    with pytest.raises(SettingsError, match="leave it out for all events"):
        trigger(topic="t", type=given_)


def test_a_trigger_without_a_topic_is_told_what_to_write() -> None:
    for wrong in (lambda: trigger(lambda _: None), trigger):
        with pytest.raises(SettingsError, match=r'write @trigger\(topic="uploads"\) above the function'):
            wrong()


@pytest.mark.parametrize("function", [lambda: None, lambda _a, _b: None, lambda *, event: event])
def test_a_function_that_does_not_take_one_event_is_refused(function: Any) -> None:
    with pytest.raises(SettingsError, match="cannot be called with one event"):
        trigger(topic="t")(function)


def test_a_generator_and_a_class_are_refused() -> None:
    def generator(_: IncomingEvent) -> Any:
        yield Job("x")

    with pytest.raises(SettingsError, match="return a list of jobs"):
        trigger(topic="t")(generator)
    with pytest.raises(SettingsError, match="must stand above a function"):
        trigger(topic="t")(Job)


def test_modules_give_their_triggers_and_one_without_is_a_mistake(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "sometriggers.py").write_text(
        "from joblog.services import trigger\n@trigger(topic='b')\ndef f(event): ...\n"
        "@trigger(topic='a')\ndef g(event): ...\n"
    )
    (tmp_path / "notriggers.py").write_text("")
    (tmp_path / "importsnox.py").write_text("import nox")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = TriggerRegistry.load("sometriggers")
    assert ([one.name for one in registry], registry.topics) == (["sometriggers.f", "sometriggers.g"], ("a", "b"))
    for name, said in (
        ("notriggers", "nothing in it was made with @trigger"),
        ("x..y", "is no name"),
        ("nox", "the triggers of nox cannot be imported: .* start joblog in the directory that has it"),
        ("importsnox", "No module named 'nox'$"),
    ):
        with pytest.raises(SettingsError, match=said):
            TriggerRegistry.load(name)


def test_two_functions_of_one_name_are_refused() -> None:
    def made() -> Any:
        @trigger(topic="t")
        def function(_: IncomingEvent) -> None: ...

        return function

    with pytest.raises(SettingsError, match="two triggers have the name"):
        TriggerRegistry.of(made(), made())


def test_a_trigger_does_not_read_what_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    @trigger(topic="joblog.commands")
    def function(_: IncomingEvent) -> None: ...

    module = ModuleType("loopingtriggers")
    vars(module)["function"] = function
    monkeypatch.setitem(sys.modules, "loopingtriggers", module)
    with pytest.raises(SettingsError, match="would read what it writes itself"):
        wiring.triggers(Settings(triggers={"modules": "loopingtriggers"}))
    with pytest.raises(SettingsError, match=r"--modules myapp\.triggers"):
        wiring.triggers(Settings())


def test_without_faust_the_command_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['faust'] = None; sys.argv = ['joblog', 'triggers', '--modules', 'x']; "
        "from joblog.services.cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "pip install 'joblog[faust]'" in done.stderr.replace("\n", " ")


def test_user_code_needs_no_faust() -> None:
    code = "import sys; sys.modules['faust'] = None; from joblog.services import trigger, Job, IncomingEvent"
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
