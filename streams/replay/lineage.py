"""What one redrive led to, as the log tells it: its commands are the causes of the events that they led to.

The id of a redrive begins with its time, so the log has to be read from there only.
"""

import re
from typing import Final

from joblog.streams.contract.states import State
from joblog.streams.lane.job import NOTE_TYPES
from joblog.streams.replay.inputs import by_elector
from msgspec import DecodeError, Struct, json

#: How much earlier than its id says a redrive may have begun, by the clocks of the brokers.
CLOCKS_MS: Final = 600_000
#: What commands add to a job without moving it.
_ADDED: Final = frozenset({"job.parameter_set", *NOTE_TYPES.values()}) - {"job.moved"}
#: Where commands lead to; electors do so, too, but name another cause.
_BY_COMMANDS: Final = frozenset({State.ENQUEUED, State.SCHEDULED, State.DELETED})
#: A redrive's id: its time (unix milliseconds), and what tells it from others of that time.
_is_id: Final = re.compile("r[0-9a-f]{12}-[0-9a-f]{8}").fullmatch


class _Data(Struct, frozen=True):
    version: int = 0
    state: State | None = None
    attempt: int = 0
    code: str = ""
    command_id: str | None = None


class _Command(Struct):
    id: str = ""


class _Record(Struct):
    type: str
    subject: str = ""
    causationid: str | None = None
    data: _Data = _Data()


_record: Final = json.Decoder(_Record).decode
_command: Final = json.Decoder(_Command).decode


class Fate(Struct):
    """A job that was put back, as it is now.

    - before: its attempts until then. started: it has run since; a run that was released unstarted does not count.
    - undone: an undo deleted it. moved: a command of somebody else has moved it since, so it is theirs.
    """

    version: int
    state: State
    before: int
    started: bool = False
    undone: bool = False
    moved: bool = False


def redrive_id(now_ms: int, number: int) -> str:
    """The id of a redrive that begins now; `number` has 32 bits."""
    return f"r{now_ms:012x}-{number:08x}"


def began_ms(redrive: str) -> int | None:
    """When a redrive began; None for what is not the id of one."""
    return int(redrive[1:13], 16) if _is_id(redrive) else None


def command_id(redrive: str, job_id: str, *, undo: bool = False) -> str:
    """The id of the command by which a redrive puts a job back, or undoes that."""
    return f"{'undo' if undo else 'redrive'}/{redrive}/{job_id}"


def job_of_command(redrive: str, value: bytes) -> str | None:
    """The job that a record of `commands` puts back; None if it is not a command of this redrive."""
    try:
        command = _command(value).id
    except DecodeError:
        return None
    prefix = command_id(redrive, "")
    return command.removeprefix(prefix) if command.startswith(prefix) else None


class Lineage:
    """Takes the records of `events`, lane by lane.

    - put_back: the jobs that run (again) by this redrive. rejected: the code by which a job's command was rejected.
    - decided: the jobs whose commands were decided; a mapped one is not the job that it put back.
    """

    def __init__(self, redrive: str) -> None:
        self.redrive = redrive
        self._redrive = f"redrive/{redrive}/"
        self._undo = f"undo/{redrive}/"
        self._mark = redrive.encode()
        self.put_back: dict[str, Fate] = {}
        self.rejected: dict[str, str] = {}
        self.decided: set[str] = set()

    def take(self, value: bytes) -> None:
        """The next record of a lane; raises msgspec.DecodeError for what no elector wrote."""
        if not self.put_back and self._mark not in value:
            return
        record = _record(value)
        if record.type == "command.rejected":
            self._reject(record.data)
        elif record.type.startswith("job.") and record.data.state is not None:
            self._move(record, record.data.state)

    def _reject(self, data: _Data) -> None:
        command = data.command_id or ""
        if command.startswith(self._redrive):
            job_id = command.removeprefix(self._redrive)
            if job_id not in self.decided:  # the same command sent again changes nothing
                self.rejected[job_id] = data.code
                self.decided.add(job_id)

    def _move(self, record: _Record, state: State) -> None:
        cause, version = record.causationid or "", record.data.version
        fate = self.put_back.get(record.subject)
        if cause.startswith(self._redrive):
            self.decided.add(cause.removeprefix(self._redrive))
            self.rejected.pop(cause.removeprefix(self._redrive), None)
            self.put_back[record.subject] = Fate(version, state, record.data.attempt)
        elif fate is not None:
            fate.version, fate.state = version, state
            fate.started = record.data.attempt > fate.before
            by_undo = cause.startswith(self._undo)
            fate.undone |= by_undo
            is_move = state in _BY_COMMANDS and record.type not in _ADDED
            fate.moved |= is_move and not (by_undo or by_elector(cause))
