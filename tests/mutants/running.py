"""The defences around jobs that run, that run out of time, and that hooks are told of."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_TIMES: Final = "tests/unit/streams/lane/features/test_times.py"
_WORKERS: Final = "tests/unit/streams/lane/features/test_workers.py"
_COMMANDS: Final = "tests/unit/streams/lane/test_commands.py"
_TOLD: Final = "tests/unit/services/worker/execution/test_told.py"
_RUNS: Final = "tests/unit/services/worker/test_runs.py"
_PROCESSES: Final = "tests/unit/services/worker/execution/test_processes.py"
_SENDER: Final = "tests/unit/services/worker/test_report_sender.py"
_WHAT_IF: Final = "tests/unit/streams/replay/test_what_if.py"
_CALLING: Final = "tests/unit/streams/hooks/test_calling.py"

MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "thread-fork",
        "the end of a fork of the worker that comes back from a task",
        "services/worker/execution/performing.py",
        "if forks != _Forks.count:",
        "if False:",
        _RUNS,
    ),
    mutant(
        "told-before-end",
        "the wait of a run's end until what it said is sent",
        "services/worker/reports.py",
        "with told.sending:",
        "if True:",
        _RUNS,
    ),
    mutant(
        "lines-lost",
        "the silence about log lines that cannot be written",
        "services/roles/logs.py",
        "with suppress(ValueError, AttributeError):",
        "with suppress():",
        "tests/unit/services/roles/test_logs.py",
    ),
    mutant(
        "process-begun",
        "the skipping of what is said before a run begins",
        "services/worker/execution/processes.py",
        "while child.receive() != BEGUN:",
        "if child.receive() is None:",
        _PROCESSES,
    ),
    mutant(
        "process-late-words",
        "the silence of threads whose run is over",
        "services/worker/execution/child.py",
        "if run is self._run:",
        "if True:",
        _PROCESSES,
    ),
    mutant(
        "process-fork",
        "the end of a fork that comes back from a task",
        "services/worker/execution/child.py",
        "if os.getpid() != pid:",
        "if False:",
        _PROCESSES,
    ),
    mutant(
        "loop-goes-on",
        "the event loop's going on after a task of a run has ended it",
        "services/worker/execution/loop.py",
        "while not self._is_closing:\n",
        "for _ in range(1):\n",
        _RUNS,
    ),
    mutant(
        "cancelled-by-others",
        "the start of runs that another run has cancelled before their first step",
        "services/worker/execution/loop.py",
        "if task.cancelled() and not (run.token.is_cancelled or self._is_closing):",
        "if False:",
        _RUNS,
    ),
    mutant(
        "deadline-at-start",
        "the question whether a job's time is over before it starts",
        "streams/lane/features/times.py",
        "if not at_ms or at_ms > election.now_ms:",
        "if True:",
        _TIMES,
    ),
    mutant(
        "deadline-bounded",
        "the bound on jobs that are ended in one tick",
        "streams/lane/features/times.py",
        "for _ in range(ENDED_MAX):",
        "while True:",
        _TIMES,
    ),
    mutant(
        "deadline-stale",
        "the removal of entries of jobs that have ended",
        "streams/lane/features/times.py",
        "if len(self._heap) > STALE_MIN + 2 * len(self._over_at):",
        "if False:",
        _TIMES,
    ),
    mutant(
        "deadline-cancel",
        "the cancellation of a run at its deadline",
        "streams/lane/features/workers.py",
        "_CANCELLING: Final = frozenset({*get_args(wire.AnyChange), Expired})",
        "_CANCELLING: Final = frozenset(get_args(wire.AnyChange))",
        _TIMES,
    ),
    mutant(
        "deadline-retry",
        "the end of retries with the deadline",
        "streams/lane/filters.py",
        "if is_too_late(job, due_ms):",
        "if False:",
        _TIMES,
    ),
    mutant(
        "deadline-filter",
        "the refusal of what a filter elects for a job whose time is over",
        "streams/lane/filters.py",
        "if type(what) is Expired and state not in FINAL_STATES:",
        "if False:",
        _TIMES,
    ),
    mutant(
        "deadline-what-if",
        "deadlines in the other course of a job",
        "streams/replay/what_if.py",
        "if not 0 < at_ms <= before_ms:",
        "if True:",
        _WHAT_IF,
    ),
    mutant(
        "progress-lease",
        "the lease of what a run says",
        "streams/lane/transitions.py",
        "wire.RunProgressed, _now_ms: int) -> wire.JobEvent | Rejection:\n    if not _holds(job, what):",
        "wire.RunProgressed, _now_ms: int) -> wire.JobEvent | Rejection:\n    if False:",
        _WORKERS,
    ),
    mutant(
        "progress-bounded",
        "the bounds of what is kept of a run's lines",
        "services/worker/execution/told.py",
        "while len(self._lines) >= LINES_MAX or self._bytes > BYTES_MAX:",
        "while False:",
        _TOLD,
    ),
    mutant(
        "progress-rare",
        "the bound on reports of one run",
        "services/worker/execution/told.py",
        "EVERY_S if self._reports < REPORTS_MAX else THEN_EVERY_S",
        "EVERY_S",
        _TOLD,
    ),
    mutant(
        "progress-last",
        "what a run said last",
        "services/worker/reports.py",
        "said = told.take(clock())",
        "said: Taken | None = None",
        _RUNS,
    ),
    mutant(
        "progress-order",
        "the order of what a run said and its end, where there is no room",
        "services/worker/report_sender.py",
        "is_waiting = not self._send(record, self._delivered)",
        "self._send(record, self._delivered)",
        _SENDER,
    ),
    mutant(
        "completed-once",
        "the rejection of what would run a job again that completes once",
        "streams/lane/transitions.py",
        "if job.state is SUCCEEDED and completes_once(job.spec, job.parameters):",
        "if False:",
        _COMMANDS,
    ),
    mutant(
        "hooks-rebalance",
        "the pause of lanes that come while a hook goes on",
        "streams/hooks/reader.py",
        "(consumer.pause if self._is_beside else consumer.resume)(starts)",
        "consumer.resume(starts)",
        "tests/unit/streams/hooks/test_reader.py"
        "::test_what_comes_with_a_rebalance_waits_for_the_function_that_goes_on",
    ),
    mutant(
        "hook-stopped",
        "the difference between a hook that raised and a process that stops",
        "streams/hooks/calling.py",
        "            except Stopped:\n                raise\n",
        "",
        _CALLING,
    ),
    mutant(
        "hook-parked",
        "the end of calls of a hook that always raises",
        "streams/hooks/calling.py",
        "self._park(record, HOOK_RAISED, _told(hook, failure))",
        "pass",
        _CALLING,
    ),
)
