"""Settings that Kafka's client refuses, as errors in the settings."""

from traceback import walk_tb

from confluent_kafka import KafkaError, KafkaException
from joblog.streams.errors import SettingsError
from joblog.streams.kafka import clients


def refused(error: BaseException) -> SettingsError | None:
    """The SettingsError for an error that was raised when a client was made; None for any other error.

    librdkafka reports wrong arguments of later calls with the same code, but those are bugs and need their traceback.
    """
    if not isinstance(error, KafkaException) or error.args[0].code() != KafkaError._INVALID_ARG:
        return None
    if all(frame.f_globals["__name__"] != clients.__name__ for frame, _ in walk_tb(error.__traceback__)):
        return None
    return SettingsError(f"Kafka's client refuses its settings (JOBLOG_KAFKA__...): {error.args[0].str()}")
