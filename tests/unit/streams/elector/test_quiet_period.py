from joblog.streams.elector.quiet_period import QUIET_S, QuietPeriod


def test_nothing_has_disturbed_a_new_one() -> None:
    assert QuietPeriod().is_over(0.0)


def test_after_a_disturbance_there_is_time_to_be_heard() -> None:
    quiet = QuietPeriod()
    quiet.begin(100.0)
    assert not quiet.is_over(100.0)
    assert not quiet.is_over(100.0 + QUIET_S)
    assert quiet.is_over(100.1 + QUIET_S)
