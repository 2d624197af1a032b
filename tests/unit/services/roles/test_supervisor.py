import signal
import socket
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from joblog.services.embedded.ports import choose_ports
from joblog.services.roles import supervisor as cli_supervisor
from joblog.services.roles.http import HttpServer, application
from joblog.services.roles.supervisor import BACKOFF_S, RECOVERED_S, RoleCommand, Supervisor
from joblog.streams.errors import StackError
from joblog.streams.health import Health
from joblog.streams.metrics import Meters

WaitUntil = Callable[[Callable[[], object], float, str], object]

#: A role: `ready` serves /readyz, `starting` says that it is not ready, a number ends with that code at once,
#: `stubborn` does not stop.
SCRIPT = """
import json, signal, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        ready = sys.argv[1] == "ready"
        body = json.dumps({"ready": ready, "reason": "" if ready else "rebalancing"}).encode()
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass

print(f"{sys.argv[1]} runs", flush=True)
if sys.argv[1].isdigit():
    sys.exit(int(sys.argv[1]))
server = HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--http-port") + 1])), Answer)
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
server.server_close()
print(f"{sys.argv[1]} ended in order", flush=True)
"""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Stage:
    """Makes supervisors over the script, keeps what their roles say, and stops them at the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = Clock()
        self.lines: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self.made: list[Supervisor] = []
        self.script = directory / "role.py"
        self.script.write_text(textwrap.dedent(SCRIPT))

    def write(self, name: str, line: str) -> None:
        with self._lock:
            self.lines.append((name, line))

    def supervise(self, **behaviour: str) -> Supervisor:
        ports = choose_ports(self.directory / "ports.json", dict.fromkeys(behaviour, None), lambda _line: None)
        roles = [RoleCommand(name, [what], ports[name]) for name, what in behaviour.items()]
        command = (sys.executable, "-u", str(self.script))
        self.made.append(Supervisor(roles, {}, self.write, command, self.clock))
        return self.made[-1]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    for supervisor in made.made:
        supervisor.stop()
    assert [child for child in psutil.Process().children() if str(made.script) in child.cmdline()] == []


def test_roles_start_become_ready_and_stop_in_the_opposite_order(stage: Stage, wait_until: WaitUntil) -> None:
    supervisor = stage.supervise(projector="ready", worker="ready")
    supervisor.check()
    assert set(supervisor.pids()) == {"projector", "worker"}
    wait_until(lambda: not supervisor.unready(), 20, "both roles")
    supervisor.stop()
    ended = [name for name, line in stage.lines if line == "ready ended in order"]
    assert ended == ["worker", "projector"]
    assert supervisor.pids() == {}


def test_a_role_that_is_not_ready_says_why(stage: Stage, wait_until: WaitUntil) -> None:
    supervisor = stage.supervise(elector="starting")
    assert "does not answer" in supervisor.unready()["elector"]
    supervisor.check()
    wait_until(lambda: supervisor.unready() == {"elector": "rebalancing"}, 20, "its answer")


def test_the_proxy_of_the_environment_is_not_asked_for_our_own_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    health = Health("elector")
    health.set_ready()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr("urllib.request._opener", None)
    with HttpServer(application(Meters(), health), "127.0.0.1", 0) as server:
        role = RoleCommand("elector", [], int(server.url.rpartition(":")[2]))
        assert Supervisor([role], {}, lambda *_: None).unready() == {}


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 404 Not Found\r\n\r\n<html>not here</html>",
        b"HTTP/1.0 503 Busy\r\n\r\n[1]",
        b"HTTP/1.0 503 Busy\r\n\r\n{}",
        b"HTTP/1.0 503 Busy\r\nContent-Length: 100\r\n\r\n{",
        b"220 ready for mail\r\n",
        b"",
    ],
)
def test_another_program_on_the_port_of_a_role_is_no_role(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        role = RoleCommand("elector", [], listening.getsockname()[1])
        assert Supervisor([role], {}, lambda *_: None).unready()["elector"]
        thread.join(10)


def test_a_role_that_dies_starts_again_later_and_later(stage: Stage, wait_until: WaitUntil) -> None:
    supervisor = stage.supervise(elector="1")
    waits = []
    for expected in (*BACKOFF_S, BACKOFF_S[-1]):
        supervisor.check()
        pid = supervisor.pids()["elector"]
        wait_until(lambda pid=pid: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 20, "its end")
        supervisor.check()
        assert supervisor.pids() == {}
        stage.clock.now += expected - 0.01
        supervisor.check()
        assert supervisor.pids() == {}
        stage.clock.now += 0.01
        waits.append(stage.lines[-1])
    assert waits == [("elector", f"ended with code 1; starts again in {wait:g} s") for wait in (*BACKOFF_S, 10.0)]


def test_a_role_that_ran_long_starts_again_soon(stage: Stage, wait_until: WaitUntil) -> None:
    supervisor = stage.supervise(elector="ready")
    for _ in range(3):
        supervisor.check()
        pid = supervisor.pids()["elector"]
        psutil.Process(pid).send_signal(signal.SIGKILL)
        wait_until(lambda pid=pid: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 20, "its end")
        stage.clock.now += RECOVERED_S + 1
        supervisor.check()
        assert stage.lines[-1] == ("elector", "ended with code -9; starts again in 0.5 s")
        stage.clock.now += BACKOFF_S[0]


@pytest.mark.parametrize("code", [2, 75])
def test_an_end_that_would_repeat_itself_ends_all(stage: Stage, wait_until: WaitUntil, code: int) -> None:
    supervisor = stage.supervise(projector="ready", elector=str(code))
    supervisor.check()
    pid = supervisor.pids()["elector"]
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 20, "its end")
    with pytest.raises(StackError, match=f"elector ended with code {code}: {code} runs$"):
        supervisor.check()
    assert ("elector", f"{code} runs") in stage.lines


def test_a_role_that_does_not_stop_is_killed(
    stage: Stage, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_supervisor, "STOP_TIMEOUT_S", 0.5)
    supervisor = stage.supervise(worker="stubborn")
    supervisor.check()
    wait_until(lambda: "does not answer" not in supervisor.unready().get("worker", ""), 20, "its start")
    supervisor.stop()
    assert stage.lines[-1] == ("worker", "did not stop within 0.5 s: killed")


def test_roles_end_when_the_supervisor_is_killed(stage: Stage, wait_until: WaitUntil) -> None:
    """The guard of each role sees its owner go."""
    port = choose_ports(stage.directory / "ports.json", {"elector": None}, lambda _line: None)["elector"]
    owner = f"""
        import sys, time
        from joblog.services.roles.supervisor import RoleCommand, Supervisor
        command = (sys.executable, {str(stage.script)!r})
        supervisor = Supervisor([RoleCommand("elector", ["ready"], {port})], {{}}, lambda *_: None, command)
        supervisor.check()
        print(supervisor.pids()["elector"], flush=True)
        time.sleep(600)
    """
    process = psutil.Popen([sys.executable, "-c", textwrap.dedent(owner)], stdout=-1, text=True)
    with process.stdout as told:
        role = psutil.Process(int(told.readline()))
        process.kill()
        process.wait()
        wait_until(lambda: not role.is_running() or role.status() == psutil.STATUS_ZOMBIE, 20, "the role's end")
