from joblog.streams.calm import CALM_S, DRAINED_S, STEP_S, Calm

HOUR = 3600.0


def test_an_elector_that_never_saw_the_end_of_its_lanes_has_not_caught_up() -> None:
    assert not Calm().is_caught_up(0.0)


def test_it_has_caught_up_for_a_while_after_there_was_nothing_left_to_read() -> None:
    calm = Calm()
    calm.drained(100.0)
    assert calm.is_caught_up(100.0 + DRAINED_S / 2)
    assert not calm.is_caught_up(100.0 + DRAINED_S)


def test_after_a_disturbance_an_end_means_nothing_yet() -> None:
    calm = Calm()
    calm.disturbed(100.0)
    calm.drained(100.1)
    assert not calm.is_caught_up(100.1)
    calm.drained(100.1 + CALM_S)
    assert calm.is_caught_up(100.1 + CALM_S)
    assert calm.disturbed_within(101.0, 1.0)
    assert not calm.disturbed_within(101.5, 1.0)


def test_clocks_that_go_together_are_no_step_however_far_apart() -> None:
    calm = Calm()
    for second in range(5):
        assert not calm.is_stepped(second, HOUR + second * 1.01)


def test_a_clock_that_was_set_disturbs_once() -> None:
    for step in (20.0, -HOUR, STEP_S):
        calm = Calm()
        assert not calm.is_stepped(100.0, HOUR)
        assert calm.is_stepped(100.1, HOUR + 0.1 + step)
        calm.drained(100.1)
        assert not calm.is_caught_up(100.1)
        assert not calm.is_stepped(100.2, HOUR + 0.2 + step)
