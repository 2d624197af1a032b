"""Every error Joblog raises, in one tree.

::

    JoblogError
    ├── SettingsError            a setting is missing or wrong; the message names it
    ├── ContractError            a message does not fit the contract
    │   ├── UndecodableRecord    not even an envelope could be read
    │   ├── UnknownType          the envelope names a type this version does not know
    │   ├── InvalidData          the type is known, its data is wrong
    │   └── InternalError        the message may be fine: deciding it failed in a way nobody foresaw
    ├── BrokersAway              no broker answers under the address that was given
    ├── TopicsError              topics are missing, or have other partitions than the settings say
    ├── EnqueueError             Kafka did not acknowledge a command; its outcome is unknown
    ├── ElectorError
    │   ├── StepBack             a transaction failed or its outcome is unknown; reload and go on
    │   │   └── TooLarge         it was too large for the producer; go on with smaller ones
    │   └── Fenced               another elector with the same id took over; this one must stop
    ├── TaskError
    │   ├── UnknownTask          no such task is registered in this process
    │   └── JobTimeout           a job ran longer than its time-out
    ├── NotCommitted             an outbox's transaction failed, or its outcome is unknown (outbox/log.py)
    ├── RowsRefused              Kafka refuses rows of an outbox for what they are (outbox/log.py)
    ├── Hung                     a call into Kafka's client did not return in time (kafka/bounded.py)
    ├── ProjectionError
    │   ├── LogLost              the log no longer holds the next event to apply
    │   ├── SchemaError          the database schema is missing, old or newer than this version
    │   └── OffsetConflict       another projector wrote the offsets of this lane
    ├── IntakeError              the consumer of other services' events ended, or does not stop
    └── StackError               the embedded broker or database could not be started or stopped
"""


class JoblogError(Exception):
    """The root of all errors that Joblog raises on purpose."""


class SettingsError(JoblogError):
    """A setting is missing or wrong; the message names it and the fix."""


class ContractError(JoblogError):
    """A message does not fit the contract; `reason` is one line for people, `code` one word for metrics."""

    code = "contract"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UndecodableRecord(ContractError):
    """Not even the envelope could be read: broken JSON or UTF-8, no value, no CloudEvent."""

    code = "undecodable"


class UnknownType(ContractError):
    """The envelope is fine, but names a type, or a version of one, that is not known here."""

    code = "unknown_type"


class InvalidData(ContractError):
    """The type is known, and its data breaks a rule of the contract; the reason names the field."""

    code = "invalid_data"


class InternalError(ContractError):
    """Deciding it raised an exception that nobody foresaw; `details` is the end of the traceback."""

    code = "internal_error"

    def __init__(self, reason: str, details: str = "") -> None:
        super().__init__(reason)
        self.details = details


class BrokersAway(JoblogError):
    """No broker answers; the message names the address."""


class TopicsError(JoblogError):
    """Topics are missing, or have other partition counts than the settings say."""


class EnqueueError(JoblogError):
    """Kafka did not acknowledge a command in time: whether it was written is unknown.

    Sending the same command again with the same job id is safe: a job is created once.
    """


class ElectorError(JoblogError):
    """The root of the elector's errors."""


class StepBack(ElectorError):
    """A transaction failed or its outcome is unknown: drop the producer, reload the lanes, go on."""


class TooLarge(StepBack):
    """A transaction was larger than the producer takes: the next ones must be smaller."""


class Fenced(ElectorError):
    """Another elector with the same id is running; this one must stop."""


class TaskError(JoblogError):
    """The root of errors around tasks."""


class UnknownTask(TaskError):
    """No task of this name is registered in this process."""


class JobTimeout(TaskError):
    """A job ran longer than its time-out."""


class ProjectionError(JoblogError):
    """The root of the projector's errors."""


class LogLost(ProjectionError):
    """The log no longer holds the next event to apply (retention, deletion): an operator must look."""


class SchemaError(ProjectionError):
    """The database schema is missing, older or newer than this version; the message names the command."""


class OffsetConflict(ProjectionError):
    """Another projector wrote the offsets of this lane: stop applying it."""


class IntakeError(JoblogError):
    """The consumer of other services' events ended by itself, or does not stop."""


class StackError(JoblogError):
    """The embedded broker or database could not be started or stopped."""
