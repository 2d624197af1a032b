"""What existing topics must be like: which must be there, with how many partitions, and with which settings.

Pure: `admin.py` asks the brokers and changes what is wrong; `joblog doctor` asks them itself and reports it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from joblog.streams.contract.topics import Topic, TopicNames

#: Settings of a topic with which Joblog does not work, or loses data; other differences are only worth a warning.
VITAL_SETTINGS: Final = frozenset({"cleanup.policy", "message.timestamp.type"})
_RETENTION: Final = "retention.ms"
_FOREVER_MS: Final = -1


class Difference(NamedTuple):
    """A setting of an existing topic that is not as the table of topics (contract/topics.py) has it."""

    topic: str
    setting: str
    found: str
    wanted: str


def wanted_partitions(topic: Topic, lanes: int) -> int:
    """How many partitions the topic must have: one for each lane, unless the topic has a number of its own."""
    return lanes if topic.partitions is None else topic.partitions


def missing_topics(found: Iterable[str], names: TopicNames, topics: Iterable[Topic]) -> list[str]:
    """The names of the topics that are not there."""
    there = set(found)
    return [name for name in map(names.of, topics) if name not in there]


class Mistake(NamedTuple):
    """What is wrong, and the line that fixes it."""

    finding: str
    fix: str

    def __str__(self) -> str:
        return f"{self.finding}: {self.fix}"


def partition_mistake(
    found: Mapping[str, int], names: TopicNames, lanes: int, topics: Sequence[Topic]
) -> Mistake | None:
    """Partition counts (`found`, by topic) that do not fit `lanes`; None if all fit."""
    there = [(name, topic) for topic in topics if (name := names.of(topic)) in found]
    by_lane = {name: found[name] for name, topic in there if topic.partitions is None}
    if len(set(by_lane.values())) > 1:
        return _unequal(by_lane, lanes)
    for count in by_lane.values():
        if count != lanes:
            return Mistake(
                f"topics {names.prefix}* have {count} partitions, not {lanes}",
                f"set JOBLOG_LANES={count}, or use another JOBLOG_TOPIC_PREFIX",
            )
    for name, topic in there:
        if topic.partitions is not None and found[name] != topic.partitions:
            return Mistake(
                f"topic {name} has {found[name]} partitions, not {topic.partitions}",
                "stop all roles, delete it, and run `joblog topics create`",
            )
    return None


def _unequal(counts: Mapping[str, int], lanes: int) -> Mistake:
    """Some topics have other partition counts than the rest: somebody added partitions, or created them by hand."""
    usual = lanes if lanes in counts.values() else Counter(counts.values()).most_common(1)[0][0]
    strange = [f"{name} has {count} partitions" for name, count in counts.items() if count != usual]
    setting = "" if usual == lanes else f"set JOBLOG_LANES={usual}, and "
    return Mistake(
        f"{', '.join(strange)}, the others have {usual}, and Kafka cannot remove partitions",
        f"{setting}recreate what differs with {usual}, or use another JOBLOG_TOPIC_PREFIX",
    )


def differences(
    configs: Mapping[str, Mapping[str, str]], topics: Mapping[str, Topic], names: TopicNames
) -> list[Difference]:
    """The settings that have to be altered, of the topics that are there (both by name).

    `reports` must be kept as long as `commands` are kept, however long that is: an elector that was away reads on
    where it stood, and must find the reports on the jobs whose commands it finds. Without them runs would be
    repeated, and a position before the first record that is left is an error.
    """
    found = [one for name, topic in topics.items() for one in setting_differences(name, topic, configs[name])]
    reports, commands = (configs.get(name, {}).get(_RETENTION) for name in (names.reports, names.commands))
    is_found = any(one[:2] == (names.reports, _RETENTION) for one in found)
    if reports and commands and not is_found and is_shorter(reports, commands):
        found.append(Difference(names.reports, _RETENTION, reports, commands))
    return found


def setting_differences(name: str, topic: Topic, config: Mapping[str, str]) -> list[Difference]:
    """The settings of the topic `name` that are not as its row in the table has them; a longer retention is fine."""
    return [
        Difference(name, setting, config[setting], wanted)
        for setting, wanted in topic.configuration().items()
        if setting in config and config[setting] != wanted and not _is_kept_longer(setting, config[setting], wanted)
    ]


def _is_kept_longer(setting: str, found: str, wanted: str) -> bool:
    return setting == _RETENTION and not is_shorter(found, wanted)


def is_shorter(found_ms: str, wanted_ms: str) -> bool:
    """Whether a retention is shorter than another one, both as Kafka has them: -1 is for ever."""
    if int(found_ms) == _FOREVER_MS:
        return False
    return int(wanted_ms) == _FOREVER_MS or int(found_ms) < int(wanted_ms)
