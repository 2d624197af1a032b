import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.clients import KafkaConfig

from tests.support.trigger_scene import DEADLINE_S, Scene


@pytest.fixture
def scene(
    kafka: KafkaConfig,
    topics: TopicNames,
    lanes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    delete_topics: Callable[[list[str]], None],
) -> Iterator[Scene]:
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Scene(kafka, topics, lanes, tmp_path)
    yield made
    sys.modules.pop(made.module, None)
    if made.topic in made.admin.list_topics(timeout=DEADLINE_S).topics:
        delete_topics([made.topic])
