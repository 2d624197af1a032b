"""Who is next among those that wait for one limit."""

from hypothesis import given
from hypothesis import strategies as st
from joblog.streams.lane.limits.line import Line, place_of


def test_tenants_take_turns_and_within_a_tenant_priority_and_age_decide() -> None:
    line = Line()
    for number in range(4):
        line.add("big", place_of(0, number, f"b{number}"))
    line.add("small", place_of(0, 9, "s1"))
    line.add("small", place_of(5, 10, "s2"))
    line.add(None, place_of(0, 11, "n"))
    assert [line.take() for _ in range(len(line))] == ["b0", "s2", "n", "b1", "s1", "b2", "b3"]
    assert line.take() is None


def test_a_job_that_left_or_moved_is_not_called_at_its_old_place() -> None:
    line = Line()
    for number in range(3):
        line.add(None, place_of(0, number, f"j{number}"))
    assert line.remove("j0")
    assert not line.remove("j0")
    line.add(None, place_of(7, 2, "j2"))
    assert line.first() == "j2"
    assert [line.take(), line.take(), line.take()] == ["j2", "j1", None]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.booleans())))
def test_no_tenant_gets_two_turns_while_another_waits(steps: list[tuple[str, int, bool]]) -> None:
    line, waiting = Line(), {}
    for tenant, number, leaves in steps:
        job_id = f"{tenant}{number}"
        if leaves:
            assert line.remove(job_id) is (waiting.pop(job_id, None) is not None)
        else:
            line.add(tenant, place_of(0, number, job_id))
            waiting[job_id] = tenant
    assert len(line) == len(waiting)
    turns = [job_id[0] for job_id in iter(line.take, None) if job_id is not None]
    assert len(turns) == len(waiting)
    left = {tenant: turns.count(tenant) for tenant in set(turns)}
    for place, tenant in enumerate(turns):
        left[tenant] -= 1
        if turns[place + 1 : place + 2] == [tenant]:
            assert all(count == 0 for other, count in left.items() if other != tenant)


def test_a_line_that_many_have_left_keeps_few_of_them() -> None:
    line = Line()
    for number in range(5_000):
        line.add(None, place_of(0, number, f"j{number}"))
        if number:
            line.remove(f"j{number}")
    assert len(line._heaps[None]) < 200


def test_a_line_whose_first_job_stays_keeps_few_of_the_tenants_that_came_and_left() -> None:
    line = Line()
    for number in range(20_000):
        line.add(f"t{number}", place_of(0, number, f"j{number}"))
        if number:
            line.remove(f"j{number}")
    assert len(line._heaps) == len(line._turns) < 2_000
    assert line.first() == "j0"


def test_jobs_of_many_tenants_that_leave_and_come_back_are_kept_a_few_times_at_most() -> None:
    line = Line()
    for _ in range(150):
        for number in range(100):
            line.add(f"t{number % 10}", place_of(0, number, f"j{number}"))
        for number in range(100):
            line.remove(f"j{number}")
    assert sum(map(len, line._heaps.values())) < 1_000


def test_a_tenant_keeps_its_turn_while_its_jobs_are_away() -> None:
    line = Line()
    for number, tenant in enumerate("abc"):
        line.add(tenant, place_of(0, number, tenant))
    assert line.take() == "a"
    for tenant in "bc":
        line.remove(tenant)
    for number, tenant in enumerate("abc"):
        line.add(tenant, place_of(0, number, tenant))
    assert [line.take() for _ in range(3)] == ["b", "c", "a"]
