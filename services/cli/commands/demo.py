"""`joblog demo`: an example service on a real Kafka and Postgres."""

import signal
import sys
from datetime import timedelta
from pathlib import Path
from shutil import which
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
import typer
from joblog.projections.replay.verification.report import Report
from joblog.services.cli.context import Output, OutputOption
from joblog.services.cli.values import check_filled, parse_delay
from joblog.services.detection.console import Printer
from joblog.services.detection.manager import RETRIES, RUN_DELAY
from joblog.services.detection.names import CLEANUP_QUEUE, RUN_QUEUE, SERVER, SURVEY
from joblog.services.detection.proof import told, verified
from joblog.services.detection.report import document, is_as_expected
from joblog.services.detection.show import Show, opened
from joblog.services.detection.stage import SLOTS, set_up
from joblog.services.detection.stories import STORIES, plan
from joblog.services.detection.surveys import interval_of
from joblog.services.detection.uploads import UPLOADS
from joblog.services.detection.workspace import Workspace
from joblog.services.roles.logs import configure_logs
from joblog.services.roles.runner import ERROR, INTERRUPTED, OK
from joblog.streams.contract.states import State
from joblog.streams.errors import InvalidData
from rich.console import Console

#: How wide the tables are that go into a file or a pipe.
_PIPE_WIDTH: Final = 120


def demo(
    *,
    directory: Annotated[Path, typer.Option(help="Directory for data, logs and photographs.")] = Path(".joblog/demo"),
    runs: Annotated[int, typer.Option(min=1, max=100, help="Number of detection runs to request.")] = len(STORIES),
    minute: Annotated[
        str,
        typer.Option(help="How long a minute lasts in the retry delays of 1, 2 and 4 minutes; 60s is real time."),
    ] = "2s",
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="Use these Kafka brokers.", show_default="a broker of its own")
    ] = None,
    dsn: Annotated[
        str | None, typer.Option(help="Use the Postgres with this DSN.", show_default="a server of its own")
    ] = None,
    end: Annotated[
        bool, typer.Option("--exit", help="Exit when all runs have ended, with code 0 if all went as expected.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """A detection service at work: runs that succeed, fail, recover and are withdrawn, and their clean-ups.

    It starts Kafka and Postgres, an elector, a delays process, a projector, a worker, a trigger and a recurring
    process; uploads photographs, whose events the trigger turns into detection runs; requests other runs on a Kafka
    topic; counts the photographs every two minutes by a recurring job; puts them into an album by a batch of jobs
    that share a mutex; cancels a long job while it runs; and shows every step. Then it verifies the log. Everything
    stays up until Ctrl-C, so that you can try other commands.

    Example: joblog demo --exit --output json
    """
    check_filled(bootstrap_servers=bootstrap_servers, dsn=dsn)
    lasting = parse_delay(minute)
    if not timedelta(seconds=0.1) <= lasting <= timedelta(hours=1):
        raise InvalidData(f"--minute must be 100ms to 1h, not {minute}")
    configure_logs("auto", "WARNING", "demo")
    # With --output json, stdout has the document only.
    is_document = output is Output.JSON
    seen_by_people = (sys.stderr if is_document else sys.stdout).isatty()
    width = None if seen_by_people else _PIPE_WIDTH
    printer = Printer(Console(stderr=is_document, highlight=False, markup=False, width=width))
    printer.head(f"A detection service on Joblog, in {directory.resolve()}")
    code = INTERRUPTED
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with (
            set_up(directory.resolve(), bootstrap_servers, dsn, lasting, printer.progress) as stage,
            opened(stage, plan(runs), lasting, printer) as show,
        ):
            try:
                code = perform(show, printer, output)
                if not end:
                    stay(show, printer)
            finally:
                printer.progress("stopping everything ...")
    except KeyboardInterrupt:
        printer.progress("stopped")
    raise typer.Exit(code)


def perform(show: Show, printer: Printer, output: Output) -> int:
    """Everything from the first request to the last clean-up, and the report; returns the exit code."""
    stage = show.stage
    printer.shortened = f"{stage.directory}/"
    show.wait_until_ready()
    introduce(show, printer)
    ready_s = printer.elapsed_s
    show.request()
    show.watch()
    timings = {"set_up": ready_s, "runs": printer.elapsed_s - ready_s}
    results = show.results()
    printer.results(results)
    proof = verified(stage)
    conclude(show, proof, printer)
    if output is Output.JSON:
        made = document(stage, show.minute, timings, results, show.surveys, show.album, proof)
        print(msgspec.json.encode(made).decode(), flush=True)
    return OK if is_as_expected(results, show.surveys, show.album, proof) else ERROR


def conclude(show: Show, proof: Report, printer: Printer) -> None:
    """Print what became of the album and the recurring job, and of the log's verification."""
    surveys = show.surveys
    printer.head("The rest")
    for name, fact in show.album.facts().items():
        printer.fact(name, fact)
    for complaint in show.album.complaints():
        printer.fact("", f"not as expected: {complaint}")
    states = ", ".join(f"{count} {state}" for state, count in surveys.states.items()) or "none has ended"
    printer.fact("Surveys", "; ".join((states, *surveys.complaints())))
    printer.fact("Verified", told(proof))
    for finding in proof.findings:
        printer.fact(finding.kind, finding.what)


def introduce(show: Show, printer: Printer) -> None:
    """Print what runs where."""
    stage, minute_s = show.stage, show.minute / timedelta(seconds=1)
    printer.head("Ready")
    printer.fact("Kafka", f"{stage.kafka.bootstrap_servers}, topics {stage.names.prefix}*, {stage.lanes} lanes")
    printer.fact("Postgres", f"{host_of(stage.dsn)}, schema {stage.schema}")
    printer.fact("Worker", f"{SERVER}: queues {RUN_QUEUE} and {CLEANUP_QUEUE}, {SLOTS} slots")
    started = sum(run.starts_by_upload for run in show.planned)
    printer.fact("Trigger", f"turns image.uploaded on {stage.names.prefix}{UPLOADS} into runs: {started} of them")
    every = interval_of(show.minute) / timedelta(seconds=1)
    printer.fact("Recurring", f"{SURVEY}: photographs are counted every {every:g} s")
    for number, (role, url) in enumerate(stage.metrics.items()):
        printer.fact("" if number else "Metrics", f"{url} ({role})")
    printer.fact(
        "Runs", f"{len(show.planned)}, each {RUN_DELAY.seconds} s after its upload or request, then its clean-up"
    )
    waits = ", ".join(f"{minute_s * 2**retry:g}" for retry in range(RETRIES))
    printer.fact("Retries", f"after 1, 2 and 4 minutes; a minute lasts {minute_s:g} s here, so after {waits} s")
    printer.fact("Album", "a batch of one page for each photograph; a mutex on the album lets them work one by one")
    printer.fact("Panorama", "half a minute of work, which is cancelled when it has begun")
    printer.head("What happens")


def host_of(dsn: str) -> str:
    """The part of a DSN that is no secret."""
    parts = urlsplit(dsn)
    return f"{parts.hostname}:{parts.port or 5432}" if parts.hostname else "as its DSN says"


def stay(show: Show, printer: Printer) -> None:
    """Print commands to try, and go on watching until interrupted."""
    stage = show.stage
    failed = next((job.id for job in show.jobs if job.state is State.FAILED), "<id>")
    printer.head("Everything stays up until you press Ctrl-C. Try in another terminal:")
    command = "joblog" if which("joblog") else str(Path(sys.executable).with_name("joblog"))
    for line in (
        f"export JOBLOG_CONFIG={stage.config_file}",
        f"{command} job list",
        f"{command} job show {failed}",
        f"{command} job requeue {failed}",
        f"{command} stats",
        f"{command} recurring list",
        f"{command} replay history {failed}",
        f"{command} replay verify",
    ):
        printer.console.print(f"  {line}", soft_wrap=True)
    printer.console.print(f"\nMarked photographs are in {Workspace(stage.directory).results}", soft_wrap=True)
    show.stay()
