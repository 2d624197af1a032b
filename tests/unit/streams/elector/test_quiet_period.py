from joblog.streams.elector.quiet_period import CALM_S, STEP_S, Calm

HOUR = 3600.0


def test_nothing_has_disturbed_a_new_one() -> None:
    assert Calm().is_undisturbed(0.0)


def test_after_a_disturbance_there_is_time_to_be_heard() -> None:
    calm = Calm()
    calm.disturbed(100.0)
    assert not calm.is_undisturbed(100.0)
    assert not calm.is_undisturbed(100.0 + CALM_S)
    assert calm.is_undisturbed(100.1 + CALM_S)


def test_clocks_that_go_together_are_no_step_however_far_apart() -> None:
    calm = Calm()
    for second in range(5):
        assert not calm.is_stepped(second, HOUR + second * 1.01)
    assert calm.is_undisturbed(5)


def test_a_clock_that_was_set_disturbs_once() -> None:
    for step in (20.0, -HOUR, STEP_S):
        calm = Calm()
        assert not calm.is_stepped(100.0, HOUR)
        assert calm.is_stepped(100.1, HOUR + 0.1 + step)
        assert not calm.is_undisturbed(100.1)
        assert not calm.is_stepped(100.2, HOUR + 0.2 + step)
