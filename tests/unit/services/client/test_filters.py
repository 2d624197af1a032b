"""Client filters: their scopes and order, and those that come with Joblog."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joblog.services import IncomingEvent, Job
from joblog.services.client.client import Client
from joblog.services.client.filters import IdempotentCompletion, LatencyTimeout
from joblog.services.client.options import Call, JobDraft, JobOptions, drafted, filtered, filters_of, with_options
from joblog.services.client.sending import NotAcknowledged
from joblog.services.client.templates import CreateTemplate, Rules
from joblog.services.tasks.scopes import WORKER, of_kind, ordered
from joblog.services.tasks.task import task
from joblog.services.triggers.jobs import commands_of
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import InvalidData, SettingsError
from joblog.streams.kafka.clients import KafkaConfig

RULES = Rules(4, {}, "/test", 1_000)


class Naming:
    """Adds its name to the parameter `names`."""

    def __init__(self, name: str, order: int = 0) -> None:
        self.name, self.order = name, order

    def on_creating(self, draft: JobDraft) -> JobDraft | None:
        names = [*draft.options.parameters.get("names", []), self.name]
        options = with_options(draft.options, parameters={"names": names})
        return JobDraft(draft.task, draft.args, draft.kwargs, options)

    def on_created(self, job_id: str, draft: JobDraft) -> None: ...


class Refusing(Naming):
    def on_creating(self, _draft: JobDraft) -> JobDraft | None:
        return None


class Watching:
    def before_run(self, context: Any) -> None: ...
    def after_run(self, context: Any, outcome: Any) -> None: ...


WATCHING = Watching()


@task("both", filters=[Naming("last", 5), WATCHING, Naming("first")])
def both(path: str = "") -> None: ...


@task("refused", filters=[Refusing("no")])
def refused() -> None: ...


def draft_of(of: Any, *everywhere: Any) -> JobDraft | None:
    return filtered(drafted(of, Call(), JobOptions()), filters_of(ordered(everywhere), of))


def test_those_of_the_client_come_first_then_those_of_the_task_each_by_their_order() -> None:
    found = draft_of(both, Naming("late", 9), Naming("early", -1), Naming("mid"))
    assert found is not None
    assert found.options.parameters["names"] == ["early", "mid", "late", "first", "last"]
    by_name = draft_of("both", Naming("mid"))
    assert by_name is not None
    assert by_name.options.parameters["names"] == ["mid"]
    assert of_kind(both.filters, WORKER) == (WATCHING,)


def test_a_client_asks_the_filters_of_a_task() -> None:
    with Client(KafkaConfig("127.0.0.1:1", {"log_level": "0"}), TopicNames(), 4, timeout_s=0.3) as client:
        assert client.enqueue_many(refused, [(), ()]) == []
        with pytest.raises(NotAcknowledged):
            client.enqueue_many(both, [()])


def test_a_trigger_asks_the_filters_of_a_task_and_keeps_the_places_of_the_others() -> None:
    event = IncomingEvent(
        id="e", source="/s", type="t", subject=None, time=datetime.now(UTC), data={}, topic="x", partition=0,
        offset=0, key=None, headers=[],
    )  # fmt: skip
    left = commands_of(event, "f", [Job(refused), Job(both)], RULES)
    assert [one.job_id for one in left] == [commands_of(event, "f", [Job("x"), Job(both)], RULES)[1].job_id]
    assert b'"names":["first","last"]' in left[0].value


def test_what_is_no_filter_is_refused_with_the_line_to_write() -> None:
    with pytest.raises(SettingsError, match=r"task t: LatencyTimeout is a class: write filters=\[LatencyTimeout"):
        task("t", filters=[LatencyTimeout])(lambda: None)
    with pytest.raises(SettingsError, match="task t: object is no filter: a client filter has on_creating"):
        task("t", filters=[object()])(lambda: None)


def test_a_latency_timeout_gives_jobs_their_time_unless_they_have_one() -> None:
    timeout = LatencyTimeout(timedelta(minutes=1))
    assert timeout.on_creating(drafted("t", Call(), JobOptions())).options.expires_in == 60.0
    assert timeout.on_creating(drafted("t", Call(), JobOptions(expires_in=5))).options.expires_in == 5
    with pytest.raises(SettingsError, match="between 0"):
        LatencyTimeout(0)


def test_a_completion_is_kept_in_the_parameters() -> None:
    made = IdempotentCompletion().on_creating(drafted("t", Call(), JobOptions(parameters={"a": 1})))
    assert made.options.parameters == {"a": 1, "Completion": "once"}


@pytest.mark.parametrize(
    "fields", [{"deadline": timedelta(hours=1)}, {"expires_in": 3600}, {"expires_in": timedelta(hours=1)}]
)
def test_a_job_that_would_never_run_is_refused(fields: dict[str, Any]) -> None:
    now = datetime.now(UTC)
    if "deadline" in fields:
        fields = {"deadline": now + fields["deadline"]}
    CreateTemplate("t", JobOptions(run_at=now + timedelta(minutes=59), **fields), RULES)
    with pytest.raises(InvalidData, match="the job would never run: it is due"):
        CreateTemplate("t", JobOptions(run_at=now + timedelta(hours=1, minutes=1), **fields), RULES)
