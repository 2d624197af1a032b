from joblog.streams.elector.quiet_period import CALM_S, Calm


def test_nothing_has_disturbed_a_new_one() -> None:
    assert Calm().is_undisturbed(0.0)


def test_after_a_disturbance_there_is_time_to_be_heard() -> None:
    calm = Calm()
    calm.disturbed(100.0)
    assert not calm.is_undisturbed(100.0)
    assert not calm.is_undisturbed(100.0 + CALM_S)
    assert calm.is_undisturbed(100.1 + CALM_S)
