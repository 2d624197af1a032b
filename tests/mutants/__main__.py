"""Is each defence of Joblog held by a test? `python -m tests.mutants` takes them out, one after the other.

1. every patch fits the code 2. in a copy of the working tree, the tests pass 3. without a defence, one of them fails.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import NamedTuple

from msgspec import json
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.conftest import running_stack
from tests.mutants.catalog import MUTANTS
from tests.mutants.mutant import Mutant, stale
from tests.mutants.workspace import Outcome, Workspace

ROOT = Path(__file__).parents[2]
#: Tests on a broker wait more than they compute.
JOBS = 3
NEEDS_SERVERS = ("tests/integration", "tests/acceptance")


class Result(NamedTuple):
    """What became of a mutant: killed by a test, survived, or broken, which says why its tests could not be run."""

    mutant: Mutant
    outcome: Outcome

    @property
    def verdict(self) -> str:
        return "killed" if self.outcome.failed else "broken" if self.outcome.broken else "SURVIVED"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants that are asked for; 0 if each was killed."""
    asked = _parser().parse_args(arguments)
    mutants = [one for one in MUTANTS if not asked.only or one.name in asked.only]
    if unknown := set(asked.only) - {one.name for one in MUTANTS}:
        return _fail(f"no such mutant: {', '.join(sorted(unknown))}; --list names them")
    if asked.list:
        _print_table("without", [(one.name, one.without) for one in mutants])
        return 0
    if reasons := stale(mutants, ROOT):
        return _fail("anchor these mutants anew in tests/mutants:", *reasons)
    with ExitStack() as cleanup:
        environment = {}
        if any(test.startswith(NEEDS_SERVERS) for one in mutants for test in one.tests):
            _tell("starting Kafka and Postgres")
            addresses = cleanup.enter_context(running_stack())
            environment = {
                "JOBLOG_TEST_BOOTSTRAP": addresses.bootstrap_servers, "JOBLOG_TEST_DSN": addresses.dsn
            }  # fmt: skip
        directory = Path(cleanup.enter_context(TemporaryDirectory(prefix="joblog-mutants-")))
        spaces = [Workspace(ROOT, directory / str(n), environment) for n in range(min(asked.jobs, len(mutants)))]
        tests = sorted({test for one in mutants for test in one.tests})
        _tell(f"{len(tests)} tests without a mutant")
        whole = spaces[0].run(tests, "-n", str(asked.jobs), "--dist", "worksteal")
        if whole.failed or whole.broken:
            why = f"{whole.failed}: {whole.message}" if whole.failed else whole.broken
            return _fail(f"the tests fail with all defences in place: {why}")
        _tell(f"they pass ({whole.seconds:.0f} s); now {len(mutants)} mutants")
        results = _run(mutants, spaces)
    _report(results, asked.output)
    return 0 if all(one.outcome.failed for one in results) else 1


def _run(mutants: Sequence[Mutant], spaces: Sequence[Workspace]) -> list[Result]:
    """Each mutant in a workspace that is free, the slow ones first; the results in the order of the mutants."""
    free: SimpleQueue[Workspace] = SimpleQueue()
    for space in spaces:
        free.put(space)

    def run(one: Mutant) -> Result:
        space = free.get()
        try:
            with space.without(one):
                return Result(one, space.run(one.tests))
        finally:
            free.put(space)

    slow_first = sorted(mutants, key=lambda one: not one.tests[0].startswith(NEEDS_SERVERS))
    results: dict[str, Result] = {}
    with ThreadPoolExecutor(len(spaces)) as executor:
        for future in as_completed([executor.submit(run, one) for one in slow_first]):
            result = future.result()
            results[result.mutant.name] = result
            _tell(f"{len(results)}/{len(mutants)} {result.mutant.name}: {result.verdict}")
    return [results[one.name] for one in mutants]


def _report(results: Sequence[Result], output: str) -> None:
    if output == "json":
        for one in results:
            line = {
                "mutant": one.mutant.name,
                "without": one.mutant.without,
                "verdict": one.verdict.lower(),
                "killed_by": one.outcome.failed,
                "message": one.outcome.message,
                "error": one.outcome.broken,
                "seconds": round(one.outcome.seconds, 1),
            }
            print(json.encode(line).decode())
        return
    table = Table("mutant", "without", "verdict", "killed by", "s", show_lines=True)
    for one in results:
        seconds = f"{one.outcome.seconds:.0f}"
        killer = f"{one.outcome.failed or ''}\n  {one.outcome.message}".rstrip()
        table.add_row(one.mutant.name, one.mutant.without, one.verdict, escape(killer), seconds)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    for one in results:
        if one.outcome.broken:
            console.print(f"{one.mutant.name} could not be tested:", one.outcome.broken[-3000:], markup=False)
    killed = sum(one.verdict == "killed" for one in results)
    console.print(f"{killed} of {len(results)} killed")


def _print_table(column: str, rows: Sequence[tuple[str, str]]) -> None:
    table = Table("mutant", column)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this mutant; may be repeated")
    parser.add_argument("--list", action="store_true", help="list the mutants and run none")
    parser.add_argument("--jobs", type=int, default=JOBS, help=f"mutants at a time ({JOBS})")
    parser.add_argument("--output", choices=("text", "json"), default="text", help="json: one object a line")
    return parser


def _tell(progress: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {progress}", file=sys.stderr, flush=True)


def _fail(*lines: str) -> int:
    print(*lines, sep="\n", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
