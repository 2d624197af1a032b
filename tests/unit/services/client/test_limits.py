"""Limits that clients and tasks give to jobs, as the create command has them."""

from datetime import timedelta
from typing import Any

import pytest
from joblog.services.cli.limits import parse_limits
from joblog.services.client.limits import Limits
from joblog.services.client.options import Call, JobOptions, drafted
from joblog.services.client.templates import CommandRecord, CreateTemplate, Rules
from joblog.services.tasks.limits import Limit, has_places
from joblog.services.tasks.task import task
from joblog.streams.contract.codec import read_command
from joblog.streams.contract.ids import lane_of_queue
from joblog.streams.contract.relations import LimitKind, LimitScope
from joblog.streams.contract.wire import CreateJob
from joblog.streams.contract.wire import Limit as Written
from joblog.streams.errors import InvalidData, SettingsError
from joblog.streams.lane.limits.claims import owner_of

RULES = Rules(2, {}, "/test", 1000)


@task("orders.pay", limits=[Limit.mutex("orders:{order_id}", tenant="{shop}"), Limit.semaphore("bank", 5)])
def pay(order_id: int, shop: str = "main") -> None: ...


def written(of: Any, call: Call, options: JobOptions | None = None) -> tuple[Written, ...]:
    draft = drafted(of, call, options or JobOptions())
    record = CreateTemplate(draft.task, draft.options, RULES).fill(Call(draft.args, draft.kwargs))
    command = read_command(record.value, None).command
    assert isinstance(command, CreateJob)
    return command.limits


def test_each_kind_of_limit_is_written_as_it_was_given() -> None:
    second = timedelta(seconds=1)
    limits = [
        Limit.mutex("m"),
        Limit.semaphore("s", 3, tenant="t"),
        Limit.fixed_window("f", 10, per=0.5),
        Limit.sliding_window("w", 50, per=second),
        Limit.token_bucket("b", 7, per=60),
    ]
    assert written("t", Call(), JobOptions(limits=limits)) == (
        Written(LimitKind.MUTEX, "m"),
        Written(LimitKind.SEMAPHORE, "s", 3, tenant="t"),
        Written(LimitKind.FIXED_WINDOW, "f", 10, 0.5),
        Written(LimitKind.SLIDING_WINDOW, "w", 50, 1.0),
        Written(LimitKind.TOKEN_BUCKET, "b", 7, 60.0),
    )


def test_the_limits_of_a_task_are_formed_from_the_arguments_of_each_job() -> None:
    first = (Written(LimitKind.MUTEX, "orders:7", tenant="main"), Written(LimitKind.SEMAPHORE, "bank", 5))
    assert written(pay, Call((7,))) == first
    other = Written(LimitKind.MUTEX, "orders:8", tenant="north")
    assert written(pay, Call((), {"order_id": 8, "shop": "north"}))[0] == other
    own = JobOptions(limits=[Limit.mutex("mine")])
    assert [limit.key for limit in written(pay, Call((7,)), own)] == ["mine", "orders:7", "bank"]
    assert written("orders.pay", Call((7,))) == ()


def test_only_limits_with_places_differ_from_job_to_job() -> None:
    assert has_places(pay.limits)
    assert has_places([Limit.mutex("m", tenant="{shop}")])
    assert not has_places([Limit.mutex("m", tenant="t")])


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(InvalidData, match=r"\{order_id\} in the limit orders:\{order_id\} of task orders.pay needs"):
        written(pay, Call())


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ([Limit.mutex("{nothing}")], "{nothing} in limit '{nothing}' is no parameter: it has order_id"),
        ([Limit.mutex("{")], "limit '{'"),
        (["m"], 'write Limit.mutex("'),
        ([Limit.mutex(str(n)) for n in range(11)], "11 limits are more than 10"),
    ],
)
def test_a_task_refuses_limits_that_cannot_be(limits: Any, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        task("t", limits=limits)(lambda order_id: order_id)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Limit.mutex(""), "key"),
        (lambda: Limit.semaphore("s", 0), "capacity"),
        (lambda: Limit.fixed_window("f", 1, per=0), "interval_s"),
        (lambda: JobOptions(limits=["m"]), 'write limits=[Limit.mutex("invoice-7")]'),
    ],
)
def test_what_is_no_limit_is_refused_with_its_field(make: Any, said: str) -> None:
    with pytest.raises(InvalidData) as refused:
        make()
    assert said in str(refused.value)


def test_the_command_line_writes_limits_with_their_numbers() -> None:
    assert parse_limits(["invoice=7"], ["a=b=4"], ["mail=50/90s"], "shop") == [
        Limit.mutex("invoice=7", tenant="shop"),
        Limit.semaphore("a=b", 4, tenant="shop"),
        Limit.sliding_window("mail", 50, per=90, tenant="shop"),
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (([], ["gpu"], [], None), "gpu=4"),
        (([], ["gpu=x"], [], None), "not a number of jobs"),
        (([], [], ["mail=5"], None), "KEY=N/TIME"),
        (([], [], [], "shop"), "--tenant has no effect"),
    ],
)
def test_the_command_line_says_how_a_limit_is_written(given: Any, said: str) -> None:
    with pytest.raises(InvalidData, match=said):
        parse_limits(*given)


def test_limits_are_changed_in_the_lanes_that_decide_about_them() -> None:
    rules = Rules(4, {"hot": 3}, "/test", 1000)
    sent: list[CommandRecord] = []
    limits = Limits(sent.extend, rules)
    limits.set(LimitKind.SLIDING_WINDOW, "mail", 10, per=timedelta(seconds=2), by="ann")
    limits.clear(LimitKind.SLIDING_WINDOW, "mail")
    limits.set_queue("hot", LimitKind.SEMAPHORE, 4)
    limits.clear_queue("images")
    said: list[Any] = [read_command(one.value, None).command for one in sent]
    assert [(one.kind, one.key, one.capacity, one.interval_s, one.scope) for one in said] == [
        (LimitKind.SLIDING_WINDOW, "mail", 10, 2.0, LimitScope.KEY),
        (LimitKind.SLIDING_WINDOW, "mail", None, None, LimitScope.KEY),
        (LimitKind.SEMAPHORE, "hot", 4, None, LimitScope.QUEUE),
        (LimitKind.MUTEX, "images", None, None, LimitScope.QUEUE),
    ]
    owner = owner_of((LimitKind.SLIDING_WINDOW, "mail"), 4)
    assert [one.lane for one in sent] == [owner, owner, lane_of_queue("hot", 4), lane_of_queue("images", 4)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda limits: limits.set(LimitKind.SLIDING_WINDOW, "mail", 10), "needs interval_s"),
        (lambda limits: limits.set(LimitKind.MUTEX, "\ud800", 1), "not UTF-8"),
        (lambda limits: limits.clear(LimitKind.MUTEX, "\ud800"), "not UTF-8"),
        (lambda limits: limits.set(LimitKind.MUTEX, "m", 2), "a mutex has the capacity 1"),
        (lambda limits: limits.set_queue("no queue", LimitKind.MUTEX, 1), "no queue"),
    ],
)
def test_a_change_that_no_limit_can_have_is_refused(change: Any, said: str) -> None:
    with pytest.raises(InvalidData, match=said):
        change(Limits(lambda _: None, RULES))
