"""The defences of limits: against what lanes have forgotten, what comes too late, and what nobody gives back."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_ALL: Final = "tests/unit/streams/lane/limits/test_properties.py"
_RATES: Final = "tests/unit/streams/lane/limits/test_rates.py"
_LANE: Final = "tests/unit/streams/lane/features/test_limits.py"
_QUEUES: Final = "tests/unit/streams/lane/features/test_queue_limits.py"
_SHARES: Final = "tests/unit/streams/lane/limits/test_queue_limits_over_lanes.py"
_OWNER: Final = "tests/unit/streams/lane/limits/test_queue_owner.py"
_READS: Final = "tests/unit/projections/monitor/test_limits.py"
_REBUILD: Final = "tests/unit/streams/lane/limits/test_rebuild.py"
_LINE: Final = "tests/unit/streams/lane/limits/test_line.py"

MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "limits-open-question",
        "the check that an answer belongs to the last question",
        "streams/lane/limits/post.py",
        "return (answer.epoch, answer.ask) == (self._asker.epoch, ask)",
        "return True",
        _ALL,
    ),
    mutant(
        "limits-forgotten",
        "telling owners that what was asked before a take-over is void",
        "streams/lane/limits/post.py",
        "self._asker, self._forgotten = Asker(value.epoch + 1), value.lanes",
        "self._asker, self._forgotten = Asker(value.epoch + 1), ()",
        _ALL,
    ),
    mutant(
        "limits-silence",
        "the silence of an owner that was rebuilt until all lanes have told it who runs",
        "streams/lane/limits/owner.py",
        "if shared is None or self.silent:",
        "if shared is None:",
        _REBUILD,
    ),
    mutant(
        "limits-answer-to-rebuild",
        "the check that a lane answers the owner's last rebuild",
        "streams/lane/limits/owner.py",
        "if lane in self.silent and rebuild == self.rebuild:",
        "if lane in self.silent:",
        _REBUILD,
    ),
    mutant(
        "limits-rebuilt-holders",
        "telling an owner that was rebuilt which jobs run",
        "streams/lane/features/limits.py",
        "if limit.kind not in RATES and self.post.is_owned_by(report.lane, limit):",
        "if limit.kind in RATES and self.post.is_owned_by(report.lane, limit):",
        _REBUILD,
    ),
    mutant(
        "limits-not-before",
        "the wait for the time from which a rate's permit holds",
        "streams/lane/features/limit_claims.py",
        "if claim.from_ms > election.now_ms:",
        "if claim.from_ms > election.now_ms + 10_000:",
        _ALL,
    ),
    mutant(
        "limits-reserved",
        "the place that a permit has in its window until the job starts",
        "streams/lane/limits/rates.py",
        "beyond = self._occupied + self._reserved - self._capacity",
        "beyond = self._occupied - self._capacity",
        _RATES,
        _ALL,
    ),
    mutant(
        "limits-give-back",
        "giving back permits with which no worker starts the job",
        "streams/lane/features/limits.py",
        "        self._give_back(election, out)\n",
        "",
        _LANE,
    ),
    mutant(
        "limits-granted-and-gone",
        "the check that a permit was not given back before its job heard of it",
        "streams/lane/features/limit_claims.py",
        "if not self.owner.has_granted(entry):  # it was given back at once",
        "if entry is None:",
        _ALL,
    ),
    mutant(
        "limits-fixed-order",
        "the order in which all jobs take their limits",
        "streams/lane/limits/claims.py",
        "return tuple(sorted(first.values(), key=lambda limit: (limit.kind in RATES, limit.kind, limit.key)))",
        "return tuple(first.values())",
        _ALL,
    ),
    mutant(
        "limits-clock-ahead",
        "the correction of a window that a clock far ahead has occupied",
        "streams/lane/limits/rates.py",
        "if heap and heap[0] > latest_ms + SKEW_MS:",
        "if heap and heap[0] > latest_ms + SKEW_MS * 10_000:",
        _RATES,
    ),
    mutant(
        "limits-stale-places",
        "dropping the places of jobs that have left a line",
        "streams/lane/limits/line.py",
        "            self._drop_stale(tenant)\n",
        "            pass\n",
        _LINE,
    ),
    mutant(
        "limits-of-queues",
        "the look at the limit of a queue before one of its jobs starts",
        "streams/lane/features/workers.py",
        "if gate is not None and not gate.is_open(election.now_ms):",
        "if gate is None and names is None:",
        _QUEUES,
    ),
    mutant(
        "limits-told-once",
        "telling only once what a job waits for",
        "streams/lane/features/limit_claims.py",
        "if job.extras is not None and not job.extras.is_held:",
        "if job.extras is not None:",
        _LANE,
    ),
    mutant(
        "queue-limits-silence",
        "giving out nothing before all lanes of a queue have said how many of its jobs run",
        "streams/lane/limits/queue_owner.py",
        "if record.silent:",
        "if record is None:",
        _OWNER,
    ),
    mutant(
        "queue-limits-setting",
        "the check that a lane answers the last setting of a queue's limit",
        "streams/lane/limits/queue_owner.py",
        "if number != record.number or lane not in record.silent:",
        "if lane not in record.silent:",
        _OWNER,
    ),
    mutant(
        "queue-limits-open-permits",
        "the times that permits keep which lanes have when the limit of a queue is set anew",
        "streams/lane/limits/queue_owner.py",
        "                self._rate.given_back(from_ms)\n        remembered",
        "                pass\n        remembered",
        _OWNER,
    ),
    mutant(
        "queue-limits-late-starts",
        "counting the starts of a lane that has not heard of the last setting",
        "streams/lane/limits/queue_owner.py",
        "            self._started(said.used, said.at_ms, None)\n",
        "",
        _OWNER,
    ),
    mutant(
        "queue-limits-turns",
        "the line in which an owner's own lane stands, too",
        "streams/lane/limits/queue_owner.py",
        "if (line and line[0] != self.own) or self.own not in self.record.parts:",
        "if self.own not in self.record.parts:",
        _OWNER,
    ),
    mutant(
        "queue-limits-given-back",
        "giving a unit back with the end of its job where other lanes wait",
        "streams/lane/limits/gate.py",
        "if self.share.others_wait and not self.is_rate:",
        "if self.share is None:",
        _SHARES,
    ),
    mutant(
        "queue-limits-unused",
        "giving back what no worker of the lane could use",
        "streams/lane/limits/gate.py",
        "if free > self.wants:",
        "if free > self.wants + 1_000:",
        _SHARES,
    ),
    mutant(
        "queue-limits-join-anew",
        "joining the limit of a queue anew where the lane has lost what it had",
        "streams/lane/features/queue_limits.py",
        "elif lanes_of(lane, queue) != (lane.number,):",
        "elif lane is None:",
        _SHARES,
    ),
    mutant(
        "queue-limits-not-before",
        "the wait for the time from which the permit of a queue's rate holds",
        "streams/lane/limits/gate.py",
        "not now_ms < share.permits[0] <= now_ms + SKEW_MS + AHEAD_MS",
        "share.kind is not None",
        _SHARES,
    ),
    mutant(
        "queue-limits-told-alone",
        "telling lanes that keep their units that others wait",
        "streams/lane/limits/queue_owner.py",
        "if part.units and not part.others_wait and self.others_wait(lane):",
        "if part is None:",
        _OWNER,
    ),
    mutant(
        "queue-limits-present-holders",
        "naming who has a limit now instead of who had it when the job began to wait",
        "projections/monitor/limits.py",
        "return _held_by(name, now), bool(now)",
        "return text, bool(now)",
        _READS,
    ),
)
