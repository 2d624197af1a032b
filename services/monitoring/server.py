"""A real Prometheus as a child process: it reads the metrics of the given targets, and has Joblog's rules."""

import http.client
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from joblog.services.embedded.ports import HOST, choose_ports
from joblog.services.embedded.server import ServerProcess, stop_orphan
from joblog.services.monitoring import rules, texts
from joblog.services.monitoring.pace import AS_IN_OPERATION, Pace
from joblog.services.monitoring.yaml_text import dump
from joblog.streams.errors import StackError

READY_TIMEOUT_S: Final = 60
RETENTION: Final = "15d"
_PROBE_TIMEOUT_S: Final = 2.0
_NAME: Final = "Prometheus"


def find_prometheus() -> str:
    """The path of the program; StackError if there is none."""
    found = shutil.which("prometheus")
    if found is None:
        raise StackError(
            "the program prometheus is not installed: apt-get install prometheus, or get it from "
            "https://prometheus.io/download and put it on the PATH; or leave out --monitor"
        )
    return found


class PrometheusServer(AbstractContextManager["PrometheusServer"]):
    """A context in which Prometheus runs; its data, configuration, runbooks and log are in `directory`."""

    def __init__(
        self,
        directory: Path,
        targets: Mapping[str, Sequence[str]],
        progress: Callable[[str], None],
        interval: str = "5s",
        pace: Pace = AS_IN_OPERATION,
    ) -> None:
        """`targets`: the addresses of processes by role; `interval`: how often they are read."""
        self._directory = directory
        self._targets = targets
        self._progress = progress
        self._interval = interval
        self._pace = pace
        self._pid_file = directory / "prometheus.pid"
        self._port = 0
        self._process: ServerProcess | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    def start(self) -> None:
        """Start it and wait until it answers; at once when it runs."""
        if self._process is not None and self._process.is_running:
            return
        if self._process is not None:
            self._progress(f"{_NAME} ended: it is started again")
            self._process.wait()
        program = find_prometheus()
        self._write()
        stop_orphan(self._pid_file, self._mark, signal.SIGTERM, self._progress)
        self._port = choose_ports(self._directory / "ports.json", {_NAME: None}, self._progress)[_NAME]
        self._process = ServerProcess(
            _NAME,
            [
                program,
                self._mark,
                f"--storage.tsdb.path={self._directory / 'data'}",
                f"--storage.tsdb.retention.time={RETENTION}",
                "--enable-feature=exemplar-storage",
                f"--web.listen-address={HOST}:{self._port}",
            ],
            directory=self._directory,
            log_file=self._directory / "prometheus.log",
            polite=signal.SIGTERM,
        )
        self._pid_file.write_text(f"{self._process.pid}\n")
        self._process.wait_until(self._is_ready, READY_TIMEOUT_S)

    def stop(self) -> None:
        if self._process is not None:
            self._process.ask_to_stop()
            self._process.wait()
            self._process = None
            self._pid_file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _mark(self) -> str:
        """The argument by which its process is known."""
        return f"--config.file={self._directory / 'prometheus.yaml'}"

    def _write(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "prometheus.yaml").write_text(dump(rules.config(self._targets, self._interval)))
        runbooks = (self._directory / "runbooks.md").resolve()
        runbooks.write_text(texts.runbooks())
        (self._directory / rules.RULES_FILE).write_text(dump(rules.rules(runbooks.as_uri(), self._pace)))

    def _is_ready(self) -> bool:
        with closing(http.client.HTTPConnection(HOST, self._port, timeout=_PROBE_TIMEOUT_S)) as connection:
            try:
                connection.request("GET", "/-/ready")
                return connection.getresponse().status == HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                return False
