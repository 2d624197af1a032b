"""Real records of every topic, from lives of jobs that end in every way: what a mutation starts from."""

from datetime import timedelta
from functools import cache
from random import Random
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.ids import lane_of_job, new_job_id
from joblog.streams.contract.retry import Curve, OnExceeded, Retry
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.timestamps import EPOCH
from msgspec import Raw, json

from tests.support.memory_broker import NAMES, MemoryBroker, MemoryElector
from tests.support.mutations import Written
from tests.support.real_features import Features
from tests.support.scene import BOOM, NOW, STARTED_AT, queue_in

LANES: Final = 2
QUEUES: Final = [queue_in(lane, LANES) for lane in range(LANES)]
RESULTS: Final = [b"1", b'"done"', b'{"faces":[1,2.5,null],"text":"a\\nb"}', '"größe"'.encode(), b"null", b"[[],{}]"]
CHANGES: Final[list[Any]] = [
    *(wire.DeleteJob, wire.RequeueJob, wire.RescheduleJob, wire.SetParameter),
    *(wire.SetPriority, wire.MoveJob),
]
DELAYS_MS: Final = [-5_000, 0, 500, 5_000, 90_000, 3_700_000, 30 * 86_400_000]


class Producers:
    """Whoever writes commands and reports; `random` decides all."""

    def __init__(self, broker: MemoryBroker, random: Random, worker: str = "fuzz@host:7:ab12") -> None:
        self.broker = broker
        self.random = random
        self.worker = worker
        #: Jobs that commands may name, and the runs of the worker that are not reported yet.
        self.jobs: list[str] = []
        self.runs: list[wire.RunJob] = []
        self.features = Features(random, QUEUES)
        self._count = 0
        self._read = 0

    # --- commands ---

    def command(self) -> Written:
        """A command in either mode."""
        kind = self.random.choices(["create", "change", "revive", "control"], [5, 4, 1, 2])[0]
        if kind == "control":
            said: Any = self.features.command(self.broker.now_ms, self.worker)
        elif kind == "create" or not self.jobs:
            said = self._create()
        else:
            said = self._change(with_snapshot=kind == "revive")
        return self.sent(said)

    def sent(self, said: wire.Command) -> Written:
        self._count += 1
        attributes = {"id": f"c-{self._count}", "source": "/shop", "type": said.type, "specversion": "1.0"}
        key = (said.job_id or "k").encode()
        if self.random.random() < 0.2:
            headers = [(f"ce_{name}", one.encode()) for name, one in attributes.items()]
            return Written("commands", key, encode(said), [*headers, ("content-type", b"application/json")])
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" if self._count % 3 == 0 else None
        event = wire.CloudEvent(**attributes, subject=said.job_id, traceparent=trace, data=said)
        return Written("commands", key, encode(event))

    def _create(self) -> wire.CreateJob:
        random = self.random
        lane = random.randrange(LANES)
        job_id = self.new_id(lane)
        fields: dict[str, Any] = {"queue": QUEUES[lane], "job_id": job_id}
        if random.random() < 0.2:
            fields |= {"job_id": None, "idempotency_key": f"k-{random.randrange(50)}"}
        if random.random() < 0.3:
            fields["run_at"] = self._instant()
        if random.random() < 0.2 and self.jobs:
            fields["parent"] = wire.Parent(random.choice(self.jobs[-50:]), random.choice(list(ContinueOn)))
        if random.random() < 0.3:
            fields["retry"] = self._retry()
        if random.random() < 0.5:
            fields |= {
                "args": Raw(b"[%s]" % random.choice(RESULTS)),
                "kwargs": Raw(b'{"k":%s}' % random.choice(RESULTS)),
            }
        if random.random() < 0.3:
            fields |= {"parameters": {"p": Raw(random.choice(RESULTS))}, "priority": 5, "timeout_s": 60.0}
        if random.random() < 0.5:
            fields |= self.features.of_a_job(self.jobs, self.broker.now_ms)
        return wire.CreateJob(random.choice(["t", "t", "rare"]), **fields)

    def new_id(self, lane: int) -> str:
        job_id = new_job_id(lane, self.broker.now_ms, self.random.getrandbits(62))
        self.jobs.append(job_id)
        return job_id

    def _change(self, *, with_snapshot: bool) -> wire.Command:
        random = self.random
        job_id = random.choice(self.jobs[-50:])
        fields: dict[str, Any] = {"job_id": job_id}
        if random.random() < 0.2:
            fields |= {"expected_version": random.randint(1, 3), "expected_state": random.choice(list(State))}
        if random.random() < 0.3:
            fields["reason"] = "because of größe"
        kind = random.choice(CHANGES)
        if kind in {wire.SetPriority, wire.MoveJob}:
            name, value = ("priority", 5) if kind is wire.SetPriority else ("queue", random.choice(QUEUES))
            return kind(**fields, **{name: value})
        if kind is wire.SetParameter:
            fields |= {"name": random.choice("pq"), "value": json.decode(random.choice(RESULTS))}
        elif with_snapshot:
            fields["snapshot"] = self._snapshot(lane_of_job(job_id))
        if kind is wire.RescheduleJob:
            fields["run_at"] = self._instant()
        if kind is wire.RequeueJob and random.random() < 0.3:
            fields["queue"] = random.choice(QUEUES)
        return kind(**fields)

    def _snapshot(self, lane: int) -> wire.Snapshot:
        batch = self.random.choice([None, *self.features.batches[-5:]])
        spec = wire.JobSpec(Raw(b"[1]"), retry=self._retry(), parameters=Raw(b'{"p":1}'), batch=batch)
        state = self.random.choice([State.SUCCEEDED, State.DELETED, State.FAILED, State.ENQUEUED])
        return wire.Snapshot(
            self.random.randint(1, 5), state, 1, "t", QUEUES[lane], STARTED_AT, spec, {"p": Raw(b"2")}
        )

    def _retry(self) -> Retry:
        return self.random.choice(
            [
                Retry(attempts=0),
                Retry(attempts=1, curve=Curve.FIXED, delays_s=(0.0,), on_exceeded=OnExceeded.DELETE),
                Retry(attempts=2, curve=Curve.EXPONENTIAL, base_s=2.0, max_s=60.0, jitter=0.5, only_on=("Boom",)),
                Retry(attempts=3, count_lost=True, lost_max=0, except_on=("KeyError",)),
            ]
        )

    def _instant(self) -> Any:
        return EPOCH + timedelta(milliseconds=self.broker.now_ms + self.random.choice(DELAYS_MS))

    # --- reports ---

    def report(self) -> Written:
        """A report of any kind; on runs that the worker has, where it has any."""
        self.listen()
        kind = self.random.choices(["run", "timer", "worker", "lanes"], [7, 1, 1, 1])[0]
        report = {"run": self._run, "timer": self._due, "worker": self._of_worker, "lanes": self._of_lanes}[kind]()
        key = getattr(report, "job_id", None) or getattr(report, "worker", "k")
        return Written("reports", key.encode(), encode(report))

    def listen(self) -> None:
        """Take what the worker was assigned."""
        log = self.broker.logs[NAMES.assignments, 3]
        for record in log[self._read :]:
            if record.key_ == self.worker.encode():
                said = json.decode(record.value_ or b"", type=wire.AnyAssignment)
                if isinstance(said, wire.RunJob):
                    self.runs.append(said)
        self._read = len(log)

    def announced(self, lane: int, **fields: Any) -> wire.WorkerAnnounced:
        said = {
            "worker": self.worker,
            "partition": 3,
            "queues": (QUEUES[lane],),
            "all_queues": tuple(QUEUES),
            "slots": 20,
            "all_slots": 40,
            "tasks": ("t", "rare"),
            "host": "größe",
            "pid": 7,
            "home": lane == 0,
            "started_at": STARTED_AT,
            "policies": {"rare": Retry(attempts=1)},
        }
        return wire.WorkerAnnounced(**{**said, **fields})

    def _run(self) -> wire.AnyReport:
        random = self.random
        if not self.runs or random.random() < 0.1:
            run = wire.RunJob(
                job_id=self._any_job(), lease=2, attempt=1, lane=0, task="t",
                queue="q", spec=Raw(b"{}"), ready_ms=0,
            )  # fmt: skip
        else:
            run = self.runs.pop(random.randrange(len(self.runs)))
            if random.random() < 0.4:  # what is mutated first is said properly later
                self.runs.append(run)
        said = {"job_id": run.job_id, "lease": run.lease, "worker": self.worker}
        ended = {"duration_ms": random.choice([0.0, 1.5, 1e6]), "started_ms": self.broker.now_ms}
        match random.choice(["well", "well", "well", "badly", "back", "progress"]):
            case "progress":
                return self.features.progressed(said)
            case "well":
                omitted = random.choice([None, None, "too long"])
                return wire.RunSucceeded(**said, **ended, result=Raw(random.choice(RESULTS)), result_omitted=omitted)
            case "badly":
                return wire.RunFailed(**said, **ended, exception=BOOM, retry=random.choice([None, self._retry()]))
            case _:
                return wire.RunReleased(**said, reason="drained", started=random.random() < 0.5)

    def _due(self) -> wire.AnyReport:
        timers = [one for tier in ("now", "1m", "1h") for lane in range(LANES) for one in self._log(tier, lane)[-5:]]
        if not timers:
            return wire.JobDue(job_id=self._any_job(), version=1)
        timer = json.decode(self.random.choice(timers).value_ or b"", type=wire.Timer)
        return wire.JobDue(job_id=timer.job_id, version=timer.version)

    def _any_job(self) -> str:
        return self.random.choice(self.jobs or [new_job_id(0, 0, 1)])

    def _log(self, tier: str, lane: int) -> list[Any]:
        return self.broker.logs[NAMES.delay(tier), lane]

    def _of_worker(self) -> wire.AnyReport:
        other = f"w-{self.random.randrange(5)}"
        if self.random.random() < 0.2:
            return wire.WorkerStopping(worker=self.random.choice([other, other, self.worker]))
        lane, name = self.random.randrange(LANES), self.random.choice([self.worker, other])
        return self.announced(lane, worker=name, slots=self.random.choice([0, 1, 20]))

    def _answer(self, lane: int) -> wire.AnyReport | None:
        """What a projector says to the last question of a lane, if it has asked lately."""
        for record in reversed(self.broker.logs[NAMES.events, lane][-50:]):
            if b'"type":"parent.sought"' in (record.value_ or b""):
                asked = json.decode(record.value_ or b"")["data"]
                said = {"job_id": asked["parent"], "question": asked["question"]}
                state = self.random.choice([None, State.SUCCEEDED, State.FAILED])
                result = Raw(self.random.choice(RESULTS)) if state is State.SUCCEEDED else wire.NO_RAW
                return wire.ParentFound(**said, state=state, result=result)
        return None

    def _of_lanes(self) -> wire.AnyReport:
        parent, child = (self._any_job() for _ in range(2))
        on = self.random.choice(list(ContinueOn))
        if self.random.random() < 0.1 and (answer := self._answer(self.random.randrange(LANES))) is not None:
            return answer
        if self.random.random() < 0.6:
            return self.features.report(parent, child, self.random.randrange(LANES))
        if self.random.random() < 0.5:
            return wire.ContinuationAdded(job_id=parent, child=child, on=on)
        return wire.ParentEnded(job_id=child, parent=parent, state=State.SUCCEEDED, run=True, reason="it ended")


def lane_of(record: Written, random: Random) -> int:
    """Where a producer writes it: where its key says, or astray."""
    key = record.key or b""
    if len(key) == 36 and random.random() < 0.9:
        return int(key[15:18], 16) % LANES if all(one in b"0123456789abcdef" for one in key[15:18]) else 0
    return random.randrange(LANES)


@cache
def history(seed: int = 1, began_ms: int = NOW, turns: int = 200) -> MemoryBroker:
    """The topics of an installation after a while in which all went as it should, faults of tasks included."""
    broker, random = MemoryBroker(LANES, began_ms), Random(seed)
    elector, producers = MemoryElector(broker), Producers(broker, random)
    for turn in range(turns):
        written = [producers.command() for _ in range(6)] + [producers.report() for _ in range(6)]
        for one in written:
            broker.append(f"{NAMES.prefix}{one.topic}", lane_of(one, random), one.key, one.value, one.headers)
        if turn % 50 < 40:
            for lane in range(LANES):
                alive = encode(producers.announced(lane))
                broker.append(NAMES.reports, lane, producers.worker.encode(), alive, None)
        elector.turn()
        broker.now_ms += random.choice([50, 500, 3_000, 20_000, 61_000])
    return broker


def recorded(topic: str, broker: MemoryBroker | None = None) -> list[Written]:
    """The records of a topic in a history, all lanes and, for delays, all tiers."""
    found = [
        Written(topic, record.key_, record.value_, record.headers_)
        for (name, _), log in sorted((history() if broker is None else broker).logs.items())
        if name.removeprefix(NAMES.prefix) == topic or (topic == "delay.now" and ".delay." in name)
        for record in log
    ]
    assert found, topic
    return found
