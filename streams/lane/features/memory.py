"""The records of ended ids, by which their memory (ended_jobs.py) survives take-overs."""

from typing import Any, ClassVar, Final

from joblog.streams.lane.ended_jobs import Block
from joblog.streams.lane.feature import Feature
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from msgspec import msgpack

ENDED_KEY: Final = "ended:"


class Memory(Feature):
    """Writes the ends of each turn as a record, and loads them again."""

    prefix: ClassVar = ENDED_KEY
    decoder: ClassVar = msgpack.Decoder(Block)

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self._loading: dict[int, Block] = {}

    def load(self, key: str, value: Any, clock_ms: int) -> None:
        self._loading[int(key)] = value

    def loaded(self, clock_ms: int) -> None:
        self.pipeline.ended.load(self._loading, self.pipeline.store.jobs)
        self._loading = {}

    def turn_ended(self, out: LaneOutput) -> None:
        for number, block in self.pipeline.ended.write().items():
            out.state[ENDED_KEY + number] = block
