"""What another policy or filter changes, summed up over all jobs: ends, retries, waiting, and the load per minute."""

from collections import Counter
from typing import Any, Final

from joblog.streams.contract.timestamps import format_time
from joblog.streams.replay.history import History
from joblog.streams.replay.what_if import Otherwise

SAMPLES_MAX: Final = 5
#: Beyond so many intervals of the load, each becomes twice as long.
INTERVALS_MAX: Final = 10_000
MINUTE_MS: Final = 60_000


class Load:
    """Runs started per interval, recorded and simulated: minutes, or longer when they would be too many."""

    def __init__(self) -> None:
        self.minutes = 1
        self._counts: dict[int, list[int]] = {}

    def add(self, recorded: list[int], simulated: list[int]) -> None:
        """Count the starts of one job, unix milliseconds."""
        for which, starts in enumerate((recorded, simulated)):
            for start_ms in starts:
                self._counts.setdefault(start_ms // (MINUTE_MS * self.minutes), [0, 0])[which] += 1
        while len(self._counts) > INTERVALS_MAX:
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
            for interval, (recorded, simulated) in sorted(self._counts.items())
        ]

    def _widen(self) -> None:
        before, self._counts = self._counts, {}
        self.minutes *= 2
        for interval, counts in before.items():
            wider = self._counts.setdefault(interval // 2, [0, 0])
            for which in (0, 1):
                wider[which] += counts[which]


class Outcomes:
    """The sums; `add` takes one job after the other."""

    def __init__(self) -> None:
        self.jobs = 0
        self.load = Load()
        self._ends: Counter[tuple[str, str, str, bool]] = Counter()
        self._samples: dict[tuple[str, str, str, bool], list[str]] = {}
        self._sums: Counter[str] = Counter()

    def add(self, history: History, otherwise: Otherwise) -> None:
        """Count a job as it was and as it would be."""
        self.jobs += 1
        self.load.add(history.starts, otherwise.starts)
        key = (history.job.task, str(history.job.state), str(otherwise.job.state), bool(otherwise.assumed))
        self._ends[key] += 1
        samples = self._samples.setdefault(key, [])
        if len(samples) < SAMPLES_MAX:
            samples.append(history.job.id)
        self._difference("retries", history.retries, otherwise.retries)
        self._difference("waiting_ms", history.waited_ms, otherwise.waited_ms)
        self._difference("runs", len(history.starts), len(otherwise.starts))
        self._sums["assumed_jobs"] += bool(otherwise.assumed)
        self._sums["assumed_runs"] += otherwise.assumed
        self._sums["cut"] += otherwise.is_cut

    def report(self) -> dict[str, Any]:
        """All of it as one document."""
        waiting = {name: ms / 1000 for name, ms in self._of("waiting_ms").items()}
        return {
            "jobs": self.jobs,
            "changed": sum(count for key, count in self._ends.items() if key[1] != key[2]),
            "assumed_jobs": self._sums["assumed_jobs"],
            "assumed_runs": self._sums["assumed_runs"],
            "not_followed_to_the_end": self._sums["cut"],
            "retries": self._of("retries"),
            "runs": self._of("runs"),
            "waiting_s": waiting,
            "ends": self.ends(),
            "minutes_per_interval": self.load.minutes,
            "load": self.load.rows(),
        }

    def ends(self) -> list[dict[str, Any]]:
        """How many jobs of each task ended how, and would end how; those that change first."""
        ordered = sorted(self._ends.items(), key=lambda one: (one[0][1] == one[0][2], -one[1], one[0]))
        return [
            {
                "task": task,
                "recorded": recorded,
                "simulated": simulated,
                "assumed": assumed,
                "jobs": count,
                "samples": self._samples[task, recorded, simulated, assumed],
            }
            for (task, recorded, simulated, assumed), count in ordered
        ]

    def _difference(self, name: str, recorded: int, simulated: int) -> None:
        """Saved and added are counted job by job: one does not make up for another."""
        self._sums[f"{name}_recorded"] += recorded
        self._sums[f"{name}_simulated"] += simulated
        self._sums[f"{name}_saved"] += max(recorded - simulated, 0)
        self._sums[f"{name}_added"] += max(simulated - recorded, 0)

    def _of(self, name: str) -> dict[str, int]:
        return {what: self._sums[f"{name}_{what}"] for what in ("recorded", "simulated", "saved", "added")}
