"""Lanes are loaded in the order of their records in the log."""

from joblog.streams.contract.topics import TopicNames
from joblog.streams.contract.wire import DeleteJob
from joblog.streams.elector.takeover import Loaded, Takeover
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.lane.features.unmet_continuations import UNMET_KEY
from joblog.streams.lane.rules import LaneRules

from tests.support.scene import Scene, Tick, create, id_of

RULES = LaneRules(failed_kept=3)


def delivered(scene: Scene) -> None:
    """What the lane told itself, read back, until there is nothing more."""
    while scene.out.reports:
        scene.when(*(report for _, _, report in scene.out.reports))


def with_unmet(scene: Scene, name: str) -> Scene:
    """The continuation of this name is deleted, as its parent was."""
    parent = name.upper()
    delivered(scene.given(create(parent), create(name, on=parent)))
    delivered(scene.given(DeleteJob(job_id=id_of(parent))))
    return scene


def kept(scene: Scene) -> list[str]:
    return sorted(key for key in scene.kept if key.startswith(UNMET_KEY))


def test_after_a_takeover_too_the_oldest_kept_continuation_is_forgotten_first() -> None:
    scene = Scene(rules=RULES)
    for name in "abc":
        with_unmet(scene, name)
    takeover = Takeover(KafkaConfig("127.0.0.1:9"), TopicNames("t."), 1, RULES, "t")
    scene.lane = takeover._lane(0, dict(scene.kept), scene.clock_ms, Loaded(), skips=False)
    takeover.close()
    scene.lane.loaded(scene.clock_ms)
    with_unmet(scene, "d").when(Tick(100))
    assert kept(scene) == [UNMET_KEY + id_of(name) for name in "bcd"]
