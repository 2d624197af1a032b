from joblog.streams.elector.turn_size import TurnSize


def test_turns_that_are_too_large_become_smaller_down_to_one_record() -> None:
    size = TurnSize(10)
    sizes = []
    for _ in range(5):
        size.shrink()
        sizes.append(size.now)
    assert sizes == [5, 2, 1, 1, 1]


def test_a_turn_that_took_less_than_it_might_is_parted_by_what_it_took() -> None:
    size = TurnSize(10_000)
    size.shrink(7)
    assert size.now == 3


def test_turns_grow_again_with_each_that_is_committed_up_to_the_setting() -> None:
    size = TurnSize(10_000)
    size.shrink(2)
    turns = 0
    while size.now < size.most:
        before = size.now
        size.grow()
        turns += 1
        assert size.now > before
    assert turns < 100
    size.grow()
    assert size.now == size.most
