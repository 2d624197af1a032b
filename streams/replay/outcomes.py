"""What another policy or filter changes, summed up over all jobs: ends, retries, waiting, and the load per minute."""

from collections import Counter
from typing import Any, Final, NamedTuple

from joblog.streams.contract.timestamps import format_time
from joblog.streams.replay.batches import After
from joblog.streams.replay.history import History
from joblog.streams.replay.what_if import Otherwise
from msgspec import Struct

SAMPLES_MAX: Final = 5
#: Beyond so many intervals of the load, each becomes twice as long.
INTERVALS_MAX: Final = 10_000
MINUTE_MS: Final = 60_000
#: Instead of a state: nobody knows how a run would have ended.
UNKNOWN: Final = "unknown"


class Load:
    """Runs started per interval, recorded and simulated: minutes, or longer when they would be too many."""

    def __init__(self, minutes: int = 1, counts: dict[int, list[int]] | None = None) -> None:
        self.minutes = minutes
        self.counts = counts if counts is not None else {}

    def add(self, recorded: list[int], simulated: list[int]) -> None:
        """Count the starts of one job, unix milliseconds."""
        for which, starts in enumerate((recorded, simulated)):
            for start_ms in starts:
                self.counts.setdefault(start_ms // (MINUTE_MS * self.minutes), [0, 0])[which] += 1
        while len(self.counts) > INTERVALS_MAX:
            self._widen()

    def rows(self) -> list[dict[str, Any]]:
        """The intervals with runs: from when, runs a minute, and how many runs more."""
        return [
            {
                "from": format_time(interval * MINUTE_MS * self.minutes),
                "recorded": round(recorded / self.minutes, 3),
                "simulated": round(simulated / self.minutes, 3),
                "added": round((simulated - recorded) / self.minutes, 3),
            }
            for interval, (recorded, simulated) in sorted(self.counts.items())
        ]

    def _widen(self) -> None:
        before, self.counts = self.counts, {}
        self.minutes *= 2
        for interval, counts in before.items():
            wider = self.counts.setdefault(interval // 2, [0, 0])
            for which in (0, 1):
                wider[which] += counts[which]


class Kind(NamedTuple):
    """Jobs of one task that ended one way, and would end another way."""

    task: str
    recorded: str
    simulated: str
    assumed: bool


class BatchKind(NamedTuple):
    """Batches that ended one way, and would end another way."""

    recorded: str
    simulated: str


class Sums(Struct):
    """What `Outcomes` holds, for a checkpoint."""

    jobs: int
    sums: dict[str, int]
    kinds: list[tuple[Kind, int, list[str]]]
    minutes: int
    load: dict[int, list[int]]


class Outcomes:
    """The sums; `add` takes one job after the other."""

    def __init__(self, sums: Sums | None = None) -> None:
        found = sums or Sums(0, {}, [], 1, {})
        self.jobs = found.jobs
        self.load = Load(found.minutes, found.load)
        self._ends: Counter[Kind] = Counter({kind: count for kind, count, _ in found.kinds})
        self._samples: dict[Kind, list[str]] = {kind: samples for kind, _, samples in found.kinds}
        self._sums: Counter[str] = Counter(found.sums)
        #: Of batches: how many, by how much their numbers would differ, and some of them. Not in a checkpoint: they
        #: are decided after the last one.
        self._batches: dict[BatchKind, dict[str, Any]] = {}

    @property
    def sums(self) -> Sums:
        """What another one can go on from."""
        kinds = [(kind, count, self._samples[kind]) for kind, count in self._ends.items()]
        return Sums(self.jobs, dict(self._sums), kinds, self.load.minutes, self.load.counts)

    def add(self, history: History, otherwise: Otherwise, *, by_parent: bool = False) -> None:
        """Count a job as it was and as it would be; `by_parent`: its parent would have ended otherwise."""
        self.jobs += 1
        self.load.add(history.starts, otherwise.starts)
        simulated = UNKNOWN if otherwise.is_unknown else str(otherwise.job.state)
        kind = Kind(history.job.task, str(history.job.state), simulated, bool(otherwise.assumed))
        self._ends[kind] += 1
        samples = self._samples.setdefault(kind, [])
        if len(samples) < SAMPLES_MAX:
            samples.append(history.job.id)
        self._sums["continuations"] += by_parent
        self._sums["continuations_changed"] += by_parent and kind.recorded != kind.simulated
        self._sums["unknown"] += otherwise.is_unknown
        self._difference("retries", history.retries, otherwise.retries)
        self._difference("waiting_ms", history.waited_ms, otherwise.waited_ms)
        self._difference("runs", len(history.starts), len(otherwise.starts))
        self._sums["assumed_jobs"] += bool(otherwise.assumed)
        self._sums["assumed_runs"] += otherwise.assumed
        self._sums["cut"] += otherwise.is_cut

    def add_batch(self, batch_id: str, after: After | None) -> None:
        """Count a batch in which something would be otherwise; None if the log does not explain how it ended."""
        self._sums["batches_not_followed"] += after is None
        if after is None:
            return
        kind = BatchKind(str(after.recorded), UNKNOWN if after.ends.is_unknown else str(after.simulated))
        new = {"batches": 0, "succeeded_added": 0, "failed_added": 0, "deleted_added": 0, "samples": []}
        row = self._batches.setdefault(kind, new)
        row["batches"] += 1
        for name, was, would_be in zip(after.was._fields, after.was, after.would_be, strict=True):
            if name != "created":
                row[f"{name}_added"] += would_be - was
        if len(row["samples"]) < SAMPLES_MAX:
            row["samples"].append(batch_id)
        self._sums["batches"] += 1
        self._sums["batches_changed"] += kind.recorded != kind.simulated

    def report(self) -> dict[str, Any]:
        """All of it as one document."""
        waiting = {name: ms / 1000 for name, ms in self._of("waiting_ms").items()}
        return {
            "jobs": self.jobs,
            "changed": sum(count for kind, count in self._ends.items() if kind.recorded != kind.simulated),
            "continuations_of_changed": self._sums["continuations"],
            "continuations_changed": self._sums["continuations_changed"],
            "batches_of_changed": self._sums["batches"],
            "batches_changed": self._sums["batches_changed"],
            "batches_not_followed": self._sums["batches_not_followed"],
            "would_have_run_outcome_unknown": self._sums["unknown"],
            "assumed_jobs": self._sums["assumed_jobs"],
            "assumed_runs": self._sums["assumed_runs"],
            "not_followed_to_the_end": self._sums["cut"],
            "retries": self._of("retries"),
            "runs": self._of("runs"),
            "waiting_s": waiting,
            "ends": self.ends(),
            "batch_ends": self.batch_ends(),
            "minutes_per_interval": self.load.minutes,
            "load": self.load.rows(),
        }

    def ends(self) -> list[dict[str, Any]]:
        """How many jobs of each task ended how, and would end how; those that change first."""
        ordered = sorted(self._ends.items(), key=lambda one: (one[0].recorded == one[0].simulated, -one[1], one[0]))
        return [{**kind._asdict(), "jobs": count, "samples": self._samples[kind]} for kind, count in ordered]

    def batch_ends(self) -> list[dict[str, Any]]:
        """How many batches ended how, and would end how, and how many more members so; those that change first."""
        ordered = sorted(self._batches.items(), key=lambda one: (one[0].recorded == one[0].simulated, one[0]))
        return [{**kind._asdict(), **row} for kind, row in ordered]

    def _difference(self, name: str, recorded: int, simulated: int) -> None:
        """Saved and added are counted job by job: one does not make up for another."""
        self._sums[f"{name}_recorded"] += recorded
        self._sums[f"{name}_simulated"] += simulated
        self._sums[f"{name}_saved"] += max(recorded - simulated, 0)
        self._sums[f"{name}_added"] += max(simulated - recorded, 0)

    def _of(self, name: str) -> dict[str, int]:
        return {what: self._sums[f"{name}_{what}"] for what in ("recorded", "simulated", "saved", "added")}
