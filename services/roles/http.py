"""The HTTP server of a role: /livez, /readyz, /metrics and /version."""

import json
import logging
import platform
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from confluent_kafka import libversion
from joblog.streams.errors import SettingsError
from joblog.streams.health import Health
from joblog.streams.metrics import Meters
from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

log = logging.getLogger(__name__)

_REQUEST_TIMEOUT_S: Final = 10


class Build(NamedTuple):
    """The versions that are running."""

    version: str
    python: str
    librdkafka: str

    @classmethod
    def current(cls) -> "Build":
        return cls(version("joblog"), platform.python_version(), libversion()[0])


class _Answer(NamedTuple):
    status: str
    body: Mapping[str, Any]


def application(meters: Meters, health: Health) -> WSGIApplication:
    """The WSGI application of one role; /readyz says in JSON why a role is not ready."""
    metrics: WSGIApplication = make_wsgi_app(meters.registry)
    pages: Mapping[str, Callable[[], _Answer]] = {
        "/livez": lambda: _alive(health),
        "/readyz": lambda: _ready(health),
        "/version": lambda: _Answer("200 OK", {"role": health.role, **Build.current()._asdict()}),
    }

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            return _send(_Answer("405 Method Not Allowed", {"error": "only GET and HEAD"}), start_response)
        if path == "/metrics":
            return metrics(environ, start_response)
        page = pages.get(path)
        known = ["/metrics", *pages]
        return _send(page() if page else _Answer("404 Not Found", {"pages": known}), start_response)

    return answer


class HttpServer(AbstractContextManager["HttpServer"]):
    """A context that serves an application from its own threads; port 0 picks a free one."""

    def __init__(self, app: WSGIApplication, host: str, port: int) -> None:
        """Raises SettingsError when the address cannot be used."""
        try:
            self._server = make_server(host, port, app, server_class=_Server, handler_class=_Handler)
        except OSError as exc:
            raise SettingsError(
                f"cannot listen on {host}:{port} (JOBLOG_HTTP__HOST, JOBLOG_HTTP__PORT): {exc.strerror}"
            ) from exc
        self.url = f"http://{host}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingWSGIServer):
    # A client that keeps its connection open must not keep the process from ending.
    daemon_threads = True
    block_on_close = False


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the library's
        """Probes and scrapes come every few seconds, so they are logged at DEBUG only."""
        log.debug("http.request", extra={"request": format % args})


def _alive(health: Health) -> _Answer:
    body = {"role": health.role, "alive": health.alive}
    return _Answer("200 OK" if health.alive else "503 Service Unavailable", body)


def _ready(health: Health) -> _Answer:
    body = {"role": health.role, "ready": health.ready, "reason": health.reason}
    return _Answer("200 OK" if health.ready else "503 Service Unavailable", body)


def _send(answer: _Answer, start_response: StartResponse) -> Iterable[bytes]:
    body = json.dumps(answer.body).encode() + b"\n"
    start_response(answer.status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
