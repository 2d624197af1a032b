"""What a verification found."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from joblog.projections.replay.verification.findings import OF_TABLES, Finding, Kind
from joblog.projections.replay.verification.lane_hashes import LaneHashes

#: So many findings are kept in full; the others are counted.
FINDINGS_MAX: Final = 1_000


class Report(NamedTuple):
    """What a verification found: `counts` of all findings by kind, the first ones in full.

    - events, jobs: how many were compared. cut: the offset in each lane up to which the log was folded.
    - late_lanes: lanes whose log lacks its beginning; jobs and sums of theirs are not compared with tables.
    - lanes: of each lane the hashes of the log's side and of the tables' side; none without Postgres.
    """

    findings: list[Finding]
    counts: dict[str, int]
    events: int
    jobs: int
    cut: dict[int, int]
    late_lanes: list[int]
    lanes: list[LaneHashes]
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.counts

    @property
    def found(self) -> str:
        """How many findings there are of each kind, for people."""
        return ", ".join(f"{count:,} {kind}" for kind, count in self.counts.items())

    @property
    def against_tables(self) -> list[Finding]:
        """What the tables say otherwise than the log."""
        return [one for one in self.findings if one.kind in OF_TABLES]


class Found:
    """Findings: all are counted, the first ones of each kind kept."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.counts: Counter[str] = Counter()

    def add(self, findings: Iterable[Finding]) -> None:
        for one in findings:
            self.counts[one.kind] += 1
            if self.counts[one.kind] <= FINDINGS_MAX // len(Kind):
                self.kept.append(one)

    def count(self, kind: Kind, more: int) -> None:
        """Note findings that are not told one by one."""
        if more > 0:
            self.counts[kind] += more

    def sorted_counts(self) -> Mapping[str, int]:
        return dict(sorted(self.counts.items()))
