from joblog.streams.contract import deadletters


def test_a_dead_letter_says_why_it_is_there_and_where_it_was() -> None:
    assert deadletters.headers("undecodable", "no JSON", "delays", "joblog.delay.now", 3, 17) == [
        ("joblog-reason-code", b"undecodable"),
        ("joblog-reason", b"no JSON"),
        ("joblog-role", b"delays"),
        ("joblog-topic", b"joblog.delay.now"),
        ("joblog-partition", b"3"),
        ("joblog-offset", b"17"),
    ]


def test_the_headers_of_the_record_follow_as_they_were() -> None:
    own: deadletters.Headers = [("traceparent", b"00-ab"), ("null", None), ("traceparent", b"\xff")]
    made = deadletters.headers("undecodable", "no JSON", "delays", "t", 0, 0, own)
    assert made[6:] == own


def test_headers_without_end_are_cut() -> None:
    own: deadletters.Headers = [("h", b"x" * 9_999)] * 10_000
    assert len(deadletters.headers("undecodable", "no JSON", "delays", "t", 0, 0, own)) == 6 + 6


def test_a_reason_that_no_encoding_knows_is_no_obstacle() -> None:
    made = dict(deadletters.headers("undecodable", "bad \ud800" + "x" * 9_999, "delays", "t", 0, 0))
    assert made["joblog-reason"] == b"bad ?" + b"x" * (deadletters.REASON_CHARACTERS_MAX - 5)


def test_a_key_is_kept_as_it_came_and_a_huge_one_is_cut() -> None:
    assert deadletters.key(None) is None
    assert deadletters.key(b"\xff") == b"\xff"
    assert deadletters.key(b"x" * 2_000_000) == b"x" * deadletters.KEY_BYTES_MAX


def test_a_value_is_kept_as_it_came_and_a_huge_one_is_cut() -> None:
    assert deadletters.value(None) is None
    assert deadletters.value(b"\xff{") == b"\xff{"
    assert deadletters.value(b"x" * 2_000_000) == b"x" * deadletters.VALUE_BYTES_MAX
