"""Where a rebuild takes place."""

from dataclasses import dataclass

from joblog.projections.replay.rebuild.schemas import Schemas
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.clients import KafkaConfig


@dataclass(frozen=True, slots=True)
class Place:
    """The log, the database, and the name of the live schema."""

    kafka: KafkaConfig
    names: TopicNames
    lanes: int
    dsn: str
    schema: str

    @property
    def schemas(self) -> Schemas:
        return Schemas(self.schema)
