"""Two worlds of lanes in which the same happens; in one of them other electors take the lanes over all the time."""

from collections import defaultdict
from dataclasses import replace
from random import Random
from typing import Any, ClassVar, Final

from joblog.streams.contract import wire
from joblog.streams.lane.output import LaneOutput

from tests.support.batch_world import BatchWorld
from tests.support.lane_world import RULES

#: What a new elector says again, since nobody remembers when it was said last, or says together with something else.
_REPEATED: Final = frozenset({"parent.sought", "worker.alive", "batch.progressed"})


class Recorded(BatchWorld):
    """`history` is what was said of each job and batch, but for what is at hand by chance, as results are."""

    #: Which of more than these is the oldest one is not the same for whoever remembers when it was first heard of.
    rules: ClassVar = replace(RULES, failed_kept=1_000)

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[tuple[Any, ...]]] = defaultdict(list)

    def _commit(self, number: int, out: LaneOutput) -> None:
        for key, kind, _, data, _, _ in out.events:
            if kind not in _REPEATED:
                facts = tuple(getattr(data, name, None) for name in ("state", "reason", "queue", "due"))
                self.history[key].append((kind, *facts))
        super()._commit(number, out)
        kept = self.partitions[number].state
        for key in out.state:  # a compacted topic has the last value of each key, where that was written
            if key in kept:
                kept[key] = kept.pop(key)


class Twins(Recorded):
    """The world in which the lanes stay, and with it the `other` one."""

    def __init__(self, random: Random) -> None:
        self.other = Recorded()
        self._random = random
        self._is_turning = False
        super().__init__()

    def send(self, command: wire.Command, lane: int) -> None:
        super().send(command, lane)
        self.other.send(command, lane)

    def report(self, lane: int, report: wire.AnyReport) -> None:
        super().report(lane, report)
        if not self._is_turning:  # else a lane says it, as its twin does
            self.other.now_ms = self.now_ms
            self.other.report(lane, report)

    def turn(self, number: int, commands: int, reports: int, *, commits: bool = True) -> None:
        """Callers let all reports be read: a lane says some again, so they do not lie where they do for its twin."""
        other, chance = self.other, self._random.random()
        other.now_ms = self.now_ms
        if not commits or chance < 0.1:
            other.turn(number, commands, reports, commits=False)
        elif chance < 0.5:
            other.take_over(number)
        if commits:
            self._is_turning = True
            super().turn(number, commands, reports)
            self._is_turning = False
            other.turn(number, commands, reports)

    def differences(self) -> dict[str, tuple[Any, Any]]:
        """The jobs and batches that fared otherwise in the other world."""
        here, there = self.history, self.other.history
        return {key: (here[key], there[key]) for key in {*here, *there} if here[key] != there[key]}
