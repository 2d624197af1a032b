"""The defences of the verification and of the rebuild."""

from typing import Final

from tests.mutants.mutant import Mutant, Patch, mutant

_TRACE: Final = "tests/unit/projections/replay/verification/test_trace.py"
_REPLAY: Final = "tests/integration/projections/replay"
_VERIFICATION: Final = f"{_REPLAY}/verification/test_verification.py"
_EXPIRY: Final = "tests/integration/projections/expiry/test_expiry.py"
_FAULTS: Final = f"{_VERIFICATION}::test_faults_of_the_log_itself_are_named"
_BESIDE: Final = f"{_REPLAY}/verification/test_verification_beside.py"
_STATE: Final = f"{_BESIDE}::test_what_a_record_of_state_says_otherwise_is_named"
_ROWS: Final = f"{_BESIDE}::test_a_row_of_no_job_that_differs_is_named"
_LETTERS: Final = f"{_BESIDE}::test_dead_letters_of_commands_and_their_rejections_must_have_each_other"
_HASHES: Final = f"{_REPLAY}/verification/test_lane_hashes.py"
_REBUILD: Final = f"{_REPLAY}/test_rebuild.py"

MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "verify-any-time",
        "the place for the sign of an event's hour, which may lie before 1970",
        "projections/replay/verification/trace.py",
        'Format(">HqIBBIIi8s")',
        'Format(">HqIBBIII8s")',
        f"{_TRACE}::test_an_event_of_any_time_has_a_step",
    ),
    mutant(
        "verify-gap",
        "the finding of a gap in the versions of a job's events",
        "projections/replay/verification/audit.py",
        "        if step.version != last + 1 and not (last == 0 and is_cut):\n",
        "        if False:\n",
        _FAULTS,
    ),
    mutant(
        "verify-cut-lease",
        "the doubt about the run that was open where retention has cut the log",
        "projections/replay/verification/audit.py",
        "step.lease != lease and is_told:",
        "step.lease != lease:",
        f"{_VERIFICATION}::test_a_run_that_ends_behind_the_beginning_of_the_log_is_none_that_nobody_had",
    ),
    mutant(
        "verify-cut-returned",
        "the doubt about a job that came back, of which retention has deleted events",
        "projections/replay/verification/jobs.py",
        "            if not self._is_cut(trace):\n",
        "            if True:\n",
        f"{_EXPIRY}::test_a_job_that_came_back_is_as_the_rest_of_the_log_says_where_retention_has_cut_it",
    ),
    mutant(
        "verify-refused-first",
        "the doubt about a job that came back of which nothing before can be read",
        "projections/replay/verification/sides.py",
        "elif life and life[0][1].event.version == first > 1:",
        "elif False:",
        f"{_EXPIRY}::test_a_job_whose_first_event_the_tables_refused_may_be_taken_for_one_that_came_back",
    ),
    mutant(
        "verify-unseen",
        "the name of a job whose digests differ though both sides look alike",
        "projections/replay/verification/sides.py",
        "    for job in sorted(unseen):\n",
        "    for job in ():\n",
        f"{_HASHES}::test_every_change_of_a_job_is_named",
    ),
    mutant(
        "verify-last-version",
        "the look whether a row of history ends with the version that it says",
        "projections/replay/verification/tables.sql",
        "    + count(*) FILTER (WHERE place > last_version - version + 1)\n",
        "    + 0\n",
        f"{_HASHES}::test_every_change_of_a_job_is_named",
    ),
    mutant(
        "verify-members",
        "the sum of the ids of a batch's jobs",
        "projections/replay/verification/totals.py",
        "if wanted != found and not may_lack:",
        "if wanted[:2] != found[:2] and not may_lack:",
        f"{_VERIFICATION}::test_faults_of_the_tables_are_named_with_both_sides",
    ),
    mutant(
        "import-bytes",
        "the bound of the bytes of one transaction of an import",
        "streams/archive/importing.py",
        " or size >= BATCH_BYTES:",
        ":",
        "tests/unit/streams/archive/test_importing.py::test_a_transaction_has_so_many_bytes_at_most",
    ),
    mutant(
        "monitor-text",
        "the refusal of a filter that is no text in UTF-8",
        "projections/monitor/job_filter.py",
        '        (text or "").encode()\n',
        "        pass\n",
        "tests/integration/projections/monitor/test_lists.py::test_questions_that_make_no_sense_are_refused",
    ),
    mutant(
        "verify-doubled",
        "the finding of an event that is there twice",
        "projections/replay/verification/audit.py",
        "            yield _finding(Kind.DOUBLED_EVENT,",
        "            str(",
        _FAULTS,
    ),
    mutant(
        "verify-orphan",
        "the look for parents of the jobs that wait",
        "projections/replay/verification/verification.py",
        "                self._found.add(orphans(key, parent, waits, now_ms))\n",
        "",
        _FAULTS,
    ),
    mutant(
        "verify-regular",
        "the full look at a job of which two runs are open at once",
        "projections/replay/verification/regular.py",
        "            if open_lease:\n                return None\n",
        "",
        _FAULTS,
        "tests/unit/projections/replay/verification/test_regular.py",
    ),
    Mutant(
        "verify-column",
        "a column in the hash of a lane's rows",
        (
            Patch(
                "projections/replay/verification/tables.sql",
                "attempt, retry, priority, queue, task, log",
                "attempt, retry, queue, task, log",
            ),
            Patch(
                "projections/replay/verification/row_hash.py",
                'f"{trace.priority or 0}\\x1f{trace.queue}',
                'f"{trace.queue}',
            ),
        ),
        (f"{_HASHES}::test_every_column_matters",),
    ),
    mutant(
        "verify-parents",
        "the comparison of those for whom jobs wait that wait for several",
        "projections/replay/verification/verification.py",
        "            self._found.add(parents(snapshot, self._log.passed.parents))\n",
        "",
        f"{_REPLAY}/verification/test_verification.py::test_faults_of_the_tables_are_named_with_both_sides",
    ),
    mutant(
        "verify-one-by-one",
        "the comparison of the jobs of a lane whose hashes differ",
        "projections/replay/verification/verification.py",
        "        if not (lanes := looked_at | late):\n",
        "        if not (lanes := late):\n",
        f"{_REPLAY}/verification/test_verification.py::test_faults_of_the_tables_are_named_with_both_sides",
    ),
    mutant(
        "verify-place",
        "the version of an event's place in the digest of the history",
        "projections/replay/verification/tables.sql",
        "    -- include: digest\n)\nFROM history CROSS JOIN unnest(events) WITH ORDINALITY AS listed (event, place)\n"
        "CROSS JOIN LATERAL sha256(convert_to((version + place - 1) || event, 'UTF8')) AS hash\nWHERE NOT",
        "    -- include: digest\n)\nFROM history CROSS JOIN unnest(events) WITH ORDINALITY AS listed (event, place)\n"
        "CROSS JOIN LATERAL sha256(convert_to(event, 'UTF8')) AS hash\nWHERE NOT",
        f"{_HASHES}::test_every_column_matters",
    ),
    mutant(
        "verify-state",
        "the comparison of parameters in `state`",
        "projections/replay/verification/state_check.py",
        ', "parameters": parameters_of(trace)}\n',
        "}\n",
        _STATE,
    ),
    mutant(
        "verify-continuation",
        "the finding of a continuation that its parent's record does not name",
        "projections/replay/verification/verification.py",
        "                self._found.add(unlisted(key, parent, listed_by_itself, now_ms, self._looked))\n",
        "",
        _STATE,
    ),
    mutant(
        "verify-parked",
        "the finding of a parked or rejected row that is missing",
        "projections/replay/verification/aside.py",
        '        return _finding(one, "is in the log, not in the tables", one.says, None)\n',
        "        return None\n",
        _ROWS,
    ),
    mutant(
        "verify-letter",
        "the finding of a dead letter that is missing",
        "projections/replay/verification/dead_letters.py",
        "            if is_known and event.offset < looked.get(event.partition, 0):\n",
        "            if False:\n",
        _LETTERS,
    ),
    mutant(
        "rebuild-unverified",
        "the comparison of new tables with the log before the swap",
        "projections/replay/rebuild/rebuild.py",
        "    if found := report.against_tables:\n",
        "    if found := report.against_tables[:0]:\n",
        f"{_REBUILD}::test_tables_that_differ_from_the_log_are_not_put_in_place",
    ),
    mutant(
        "rebuild-rollback",
        "the old tables, and not the ones just built, as those to go back to",
        "projections/replay/rebuild/swap.py",
        "(schemas.old, schemas.live), (schemas.between, schemas.old))",
        "(schemas.between, schemas.live))",
        f"{_REBUILD}::test_the_status_says_which_schema_is_what",
    ),
    mutant(
        "rebuild-beginning",
        "the refusal to build from a log that has lost its beginning",
        "projections/replay/rebuild/rebuild.py",
        "    if not partial and (cut :=",
        "    if False and (cut :=",
        f"{_REBUILD}::test_a_log_without_its_beginning_is_rebuilt_only_when_asked_to",
    ),
)
