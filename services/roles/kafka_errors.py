"""What Kafka's client refuses of the settings, told as the mistake in the settings that it is."""

from traceback import walk_tb

from confluent_kafka import KafkaError, KafkaException
from joblog.streams.errors import SettingsError
from joblog.streams.kafka import clients


def refused(error: BaseException) -> SettingsError | None:
    """The SettingsError that an error amounts to which was raised when a client was made; None for any other.

    librdkafka says the same of wrong arguments to calls, but those are mistakes of ours, which need their traceback.
    """
    if not isinstance(error, KafkaException) or error.args[0].code() != KafkaError._INVALID_ARG:
        return None
    if all(frame.f_globals["__name__"] != clients.__name__ for frame, _ in walk_tb(error.__traceback__)):
        return None
    return SettingsError(f"Kafka's client refuses what is set for it (JOBLOG_KAFKA__...): {error.args[0].str()}")
