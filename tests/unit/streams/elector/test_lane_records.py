"""The records about a lane itself: what is written is read back, told by its key."""

import pytest
from joblog.streams.elector.lane_records import ASIDE_KEY, LANE_KEY, LaneAside, LaneRecord, read_state, write_state

ASIDE = LaneAside("log_lost", "commands/3@17 is gone: joblog lanes skip 3", "Traceback ...", 1_700_000_000_000, "e-1")


@pytest.mark.parametrize(("key", "value"), [(LANE_KEY, LaneRecord("e-1", 17, 4)), (ASIDE_KEY, ASIDE)])
def test_what_is_written_about_a_lane_is_read_back(key: str, value: LaneRecord | LaneAside) -> None:
    assert read_state(key, write_state(value) or b"") == value
