"""`joblog recurring ...`: each command, its errors, its JSON and its exit codes; no process runs."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from joblog.projections.schema import migrate
from joblog.services.cli.app import app
from joblog.services.cli.context import fail
from joblog.services.embedded.stack import StackAddresses
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import JoblogError
from joblog.streams.kafka.clients import KafkaConfig
from typer.testing import CliRunner

from tests.support.recurring_process import commands

pytestmark = [pytest.mark.broker, pytest.mark.database]

TASKS = """
from joblog.services.tasks.task import task

@task("reports.send", queue="reports")
def send(whom: str = "all") -> None: ...
"""
Said = tuple[int, str, str]


class Joblog:
    """The command line with the settings of one installation; errors are told as `joblog` tells them."""

    def __init__(self, environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        self.environment = environment
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Said:
        """Exit code, stdout and stderr of `joblog recurring`."""
        result = CliRunner().invoke(app, ["recurring", *arguments], env=self.environment)
        code, error = result.exit_code, result.exception
        said = result.stderr
        if isinstance(error, JoblogError):
            self._capsys.readouterr()
            code = fail(error)
            said += self._capsys.readouterr().err
        elif error is not None and not isinstance(error, SystemExit):
            raise error
        return code, result.stdout, said

    def document(self, *arguments: str) -> dict[str, Any]:
        """What a command prints with `--output json`: one line."""
        code, out, err = self(*arguments, "--output", "json")
        assert code == 0, err
        (line,) = out.splitlines()
        found: dict[str, Any] = json.loads(line)
        return found


@pytest.fixture
def joblog(
    stack: StackAddresses, topics: TopicNames, lanes: int, schema: str, capsys: pytest.CaptureFixture[str]
) -> Joblog:
    environment = {
        "JOBLOG_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "JOBLOG_POSTGRES__DSN": stack.dsn,
        "JOBLOG_POSTGRES__SCHEMA_NAME": schema,
        "JOBLOG_TOPIC_PREFIX": topics.prefix,
        "JOBLOG_LANES": str(lanes),
    }
    return Joblog(environment, capsys)


def test_a_definition_is_added_listed_shown_edited_and_removed(joblog: Joblog) -> None:
    assert joblog("list") == (0, "none\n", "")
    added = joblog.document(
        *("add", "nightly", "reports.send", "--cron", "30 2 * * *", "--zone", "Europe/Berlin", "--queue", "reports"),
        *("--args", '["all"]', "--kwargs", '{"copies": 2}', "--priority", "5", "--attempts", "3", "--timeout", "90s"),
        *("--misfire", "ignorable", "--misfire-cap", "7", "--misfire-tolerance", "5m", "--overlap", "skip"),
    )
    assert (added["id"], added["task"], added["queue"]) == ("nightly", "reports.send", "reports")
    assert (added["schedule"], added["zone"]) == ("30 2 * * *", "Europe/Berlin")
    assert (added["args"], added["kwargs"]) == (["all"], {"copies": 2})
    assert (added["misfire"], added["misfire_cap"], added["misfire_tolerance_s"]) == ("ignorable", 7, 300)
    assert (added["overlap"], added["retry"]["attempts"], added["timeout_s"]) == ("skip", 3, 90)
    assert added["priority"] == 5
    assert (added["paused"], added["version"], added["last"]) == (False, 1, None)
    assert datetime.fromisoformat(added["next"]) == datetime.fromisoformat(added["upcoming"][0])
    assert len(added["upcoming"]) == 5
    assert joblog.document("show", "nightly") == added | {"last_state": None, "runs": None}
    row = joblog.document("list")
    assert (row["id"], row["schedule"], row["task"], row["next"]) == (
        "nightly",
        "30 2 * * *",
        "reports.send",
        added["next"],
    )

    edited = joblog.document(
        *("edit", "nightly", "--every", "15m", "--task", "reports.mail", "--zone", "UTC", "--misfire", "strict"),
        *("--misfire-cap", "9", "--misfire-tolerance", "10s", "--overlap", "queue", "--queue", "mail"),
        *("--args", "[]", "--kwargs", "{}"),
    )
    assert (edited["task"], edited["schedule"], edited["version"]) == ("reports.mail", "every 900 s", 2)
    assert (edited["misfire"], edited["misfire_cap"], edited["misfire_tolerance_s"]) == ("strict", 9, 10)
    assert (edited["overlap"], edited["queue"], edited["args"], edited["kwargs"]) == ("queue", "mail", [], {})
    assert (edited["priority"], edited["retry"]["attempts"]) == (5, 3), "what was not named stays"

    assert joblog("remove", "nightly") == (0, "", "nightly: removed\n")
    assert joblog("remove", "nightly") == (1, "", "nightly: there was none\n")
    assert joblog("list", "--output", "json") == (0, "", "")


def test_people_are_told_what_was_done_and_what_comes_next(joblog: Joblog) -> None:
    code, out, err = joblog("add", "a", "t", "--cron", "0 0 1 1 *")
    year = datetime.now(UTC).year + 1
    assert (code, out) == (0, "")
    assert err.startswith(f"a: added; next: {year}-01-01 00:00:00")
    assert joblog("edit", "a", "--cron", "0 0 2 1 *")[2].startswith(f"a: changed; next: {year}-01-02 00:00:00")
    assert joblog("pause", "a") == (0, "", "a: paused; next: never\n")
    assert joblog("resume", "a")[2].startswith(f"a: resumed; next: {year}-01-02")
    skipped = f"a: leaves out {year}-01-02T00:00:00+00:00; next: {year + 1}-01-02"
    assert joblog("skip", "a")[2].startswith(skipped)
    assert joblog("skip", "a")[2].startswith(skipped), "said again, it is the same occurrence"
    assert "a: " in joblog("remove", "a")[2]


def test_a_pause_has_an_end_or_none(joblog: Joblog) -> None:
    joblog("add", "a", "t", "--every", "1h")
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    paused = joblog.document("pause", "a", "--until", until.isoformat())
    assert paused["paused"]
    assert datetime.fromisoformat(paused["paused_until"]) == until
    assert datetime.fromisoformat(paused["upcoming"][0]) > until
    for_a_day = datetime.fromisoformat(joblog.document("pause", "a", "--for", "1d")["paused_until"])
    assert abs(for_a_day - datetime.now(UTC) - timedelta(days=1)) < timedelta(minutes=1)
    assert joblog.document("pause", "a")["upcoming"] == []
    assert not joblog.document("resume", "a")["paused"]


def test_a_job_is_created_at_once_whatever_the_pause(joblog: Joblog, kafka: KafkaConfig, topics: TopicNames) -> None:
    joblog("add", "a", "reports.send", "--every", "1h", "--args", '["x"]', "--queue", "reports")
    joblog("pause", "a")
    code, out, _ = joblog("trigger", "a")
    (created,) = commands(kafka, topics)
    assert (code, out.strip()) == (0, created["data"]["job_id"])
    assert (created["data"]["task"], created["data"]["args"]) == ("reports.send", ["x"])
    assert created["data"]["parameters"]["RecurringJobId"] == "a"


def test_an_unknown_name_is_a_mistake_that_says_where_names_are(joblog: Joblog) -> None:
    said = "error: there is no recurring job 'nobody': `joblog recurring list` has all\n"
    for command in ("show", "edit", "pause", "resume", "trigger", "skip"):
        more = ["--queue", "x"] if command == "edit" else []
        assert joblog(command, "nobody", *more) == (2, "", said), command


ADD = ["add", "a", "t"]


#: Arguments, and a part of what is said of them.
MISTAKES: list[tuple[list[str], str]] = [
    ([*ADD, "--cron", "0 25 * * *"], "the hour at position 3, '25', can be 0 to 23"),
    ([*ADD, "--cron", "0 0 * * 1#9"], "the day of the week at position 9"),
    ([*ADD, "--cron", "* * *"], "has 3 fields, not 5"),
    ([*ADD, "--cron", "@sometimes"], "is no macro: write one of @yearly"),
    ([*ADD, "--cron", "0 2 * * *", "--zone", "Mars/Olympus"], "there is no time zone 'Mars/Olympus'"),
    ([*ADD, "--every", "0"], "schedule: an interval of 0 s is not between 1 s and"),
    ([*ADD, "--every", "1.5s"], "schedule: 0:00:01.500000 is not a whole number of seconds"),
    ([*ADD, "--every", "often"], "'often' is not a delay: write 90, 90s, 15m, 1.5h or 2d"),
    (ADD, "give --cron '0 2 * * *' or --every 15m"),
    ([*ADD, "--cron", "@daily", "--every", "1d"], "give --cron or --every, not both"),
    ([*ADD, "--cron", "@daily", "--anchor", "2027-01-01"], "anchor has no effect without an interval"),
    ([*ADD, "--cron", "@daily", "--args", "{}"], "--args: '{}' is not a JSON array"),
    ([*ADD, "--cron", "@daily", "--kwargs", "[]"], "--kwargs: '[]' is not a JSON object"),
    ([*ADD, "--cron", "@daily", "--args", "[1"], "--args: '[1' is not JSON"),
    ([*ADD, "--cron", "@daily", "--queue", "No Queue"], "--queue: 'No Queue' is not a queue name"),
    ([*ADD, "--cron", "@daily", "--misfire-tolerance", "0.5s"], "0.5s is not a whole number of seconds"),
    ([*ADD, "--cron", "@daily", "--misfire-tolerance", "2d"], "misfire_tolerance_s"),
    ([*ADD, "--cron", "@daily", "--tasks", "no.such.module"], "the tasks of no.such.module cannot be imported"),
    (["add", "a|pause", "t", "--cron", "@daily"], "id: "),
    (["add", "a", "no task", "--cron", "@daily"], "task: "),
    (["edit", "a"], "nothing to change: give --task, --cron"),
    (["edit", "a", "--tasks", "x"], "--tasks has no effect without --task"),
    (["pause", "a", "--until", "2027-01-01", "--for", "1d"], "give --until or --for, not both"),
    (["pause", "a", "--until", "someday"], "'someday' is not a time"),
    (["pause", "a", "--until", "2020-01-01"], "a pause until 2020-01-01T00:00:00+00:00 has no effect"),
    (["--tasks", "x", "list"], "--tasks and --http-port have no effect on `joblog recurring list`"),
]


def test_what_cannot_be_used_is_refused_with_what_to_write(joblog: Joblog) -> None:
    for arguments, said in MISTAKES:
        code, out, err = joblog(*arguments)
        assert (code, out) == (2, ""), (arguments, err)
        assert err.startswith("error: "), arguments
        assert said in err, arguments
    assert joblog("list") == (0, "none\n", ""), "nothing was written"


def test_a_mistake_of_usage_has_exit_code_2(joblog: Joblog) -> None:
    for arguments in ([*ADD, "--misfire", "never"], ["edit", "a", "--overlap", "x"], ["nonsense"], ["show"]):
        code, out, err = joblog(*arguments)
        assert (code, out) == (2, ""), arguments
        assert "Usage" in err, arguments


def test_an_edit_that_cannot_be_used_leaves_what_was(joblog: Joblog) -> None:
    before = joblog.document("add", "a", "t", "--every", "1h")
    code, _, err = joblog("edit", "a", "--cron", "* * * 13 *")
    assert code == 2
    assert "the month at position 7, '13', can be 1 to 12" in err
    assert joblog.document("show", "a").items() >= before.items()


def test_an_unknown_task_is_told_with_the_nearest_one_that_a_worker_knows(
    joblog: Joblog, stack: StackAddresses, schema: str
) -> None:
    joblog("add", "a", "reports.send", "--every", "1h")
    migrate.upgrade(stack.dsn, schema)
    assert "note: its jobs wait: no running worker serves the queue default\n" in joblog(*ADD, "--every", "1h")[2]
    with psycopg.connect(stack.dsn, options=f"-c search_path={schema}", autocommit=True) as connection:
        connection.execute(WORKER)
    assert joblog(*ADD[:2], "reports.send", "--every", "1h", "--queue", "reports")[2].count("\n") == 1
    nearest = "note: its jobs wait: no running worker of the queue reports knows the task reports.sned; "
    nearest += "did you mean reports.send?\n"
    code, _, err = joblog("add", "a", "reports.sned", "--every", "1h", "--queue", "reports")
    assert (code, err.splitlines(keepends=True)[1:]) == (0, [nearest])
    joblog("add", "b", "reports.send", "--every", "1h", "--queue", "reports")
    code, out, err = joblog("edit", "b", "--task", "reports.sned", "--output", "json")
    assert (code, json.loads(out)["task"], err) == (0, "reports.sned", nearest)


WORKER = """
INSERT INTO workers (id, state, queues, slots, tasks, host, pid, started_at, heartbeat, lane, log_offset)
VALUES ('w', 'running', '{reports}', 1, '{reports.send,reports.print}', 'h', 1, now(), now(), 0, 0)
"""


def test_a_task_is_looked_up_in_the_modules_that_are_named(
    joblog: Joblog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recurring_cli_tasks.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    code, _, err = joblog("add", "a", "reports.sned", "--every", "1h", "--tasks", "recurring_cli_tasks")
    assert code == 2
    assert err == "error: recurring_cli_tasks has no task 'reports.sned'; did you mean reports.send?\n"
    added = joblog.document("add", "a", "reports.send", "--every", "1h", "--tasks", "recurring_cli_tasks")
    assert (added["task"], added["queue"]) == ("reports.send", "reports")
    assert joblog("edit", "a", "--task", "reports.x", "--tasks", "recurring_cli_tasks")[0] == 2


#: Python where the packages of the extra are not installed, as far as `import` and `find_spec` can tell.
WITHOUT_FAUST = """
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {"faust", "mode", "aiokafka"}:
            return None
        return super().find_spec(name, path, target)

sys.meta_path = [Finder if one is PathFinder else one for one in sys.meta_path]
"""
#: Runs each line of its input as a command, and prints exit codes.
COMMANDS = f"""{WITHOUT_FAUST}
from joblog.services.cli.app import app
for line in sys.stdin:
    code = app(line.split(), standalone_mode=False)
    print("exit code", code or 0, line.strip(), file=sys.stderr, flush=True)
assert not {{"faust", "mode", "aiokafka"}} & set(sys.modules)
"""
LINES = """recurring add a t --every 1h
recurring list
recurring show a
recurring edit a --every 2h
recurring pause a
recurring resume a
recurring skip a
recurring trigger a
recurring remove a"""


@pytest.fixture
def run_without_faust(joblog: Joblog) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    def run(code: str, *arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=joblog.environment | {"PATH": "/usr/bin:/bin"},
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_recurring_jobs_are_managed_without_the_extra(run_without_faust: Any) -> None:
    done = run_without_faust(COMMANDS, text=LINES)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("exit code")] == [
        f"exit code 0 {line}" for line in LINES.splitlines()
    ]


def test_the_process_says_how_to_install_the_extra(run_without_faust: Any) -> None:
    main = f"{WITHOUT_FAUST}\nfrom joblog.services.cli.app import main\nmain()"
    done = run_without_faust(main, "recurring")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: `joblog recurring` needs the package faust: pip install 'joblog[faust]'\n"


def test_up_says_what_it_leaves_out_without_the_extra(run_without_faust: Any) -> None:
    asked = f"{WITHOUT_FAUST}\nfrom joblog.services.cli.commands.up_checks import can_recur\nprint(can_recur())"
    done = run_without_faust(asked)
    assert done.stdout == "False\n"
    assert "pip install 'joblog[faust]'" in done.stderr
