"""The defences of unique keys and of parents: one job lives, and what comes late or again changes nothing."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_FEATURES: Final = "tests/unit/streams/lane/features"
_KEYS: Final = f"{_FEATURES}/test_unique_keys.py"
_PARENTS: Final = f"{_FEATURES}/test_parents.py"
_REVIVALS: Final = f"{_FEATURES}/test_revivals.py"
_UNIQUE: Final = "streams/lane/features/unique_keys.py"
_UNMET: Final = "streams/lane/features/unmet_continuations.py"
_TRANSITIONS: Final = "streams/lane/transitions.py"
_CONTINUATIONS: Final = "streams/lane/features/continuations.py"
_SEEKING: Final = "streams/lane/features/sought_parents.py"
_SOUGHT: Final = f"{_FEATURES}/test_sought_parents.py"
_MANY: Final = f"{_FEATURES}/test_many_at_once.py"
_ANSWERS: Final = "tests/integration/projections/projector/test_answers.py"

MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "unique-lane",
        "the refusal of a key in a lane that does not decide about it",
        _UNIQUE,
        "        if wrong := self._wrong_lane(job):\n            return wrong\n",
        "",
        _KEYS,
    ),
    mutant(
        "unique-requeue",
        "the refusal to bring a job back whose key another one has",
        _UNIQUE,
        "return _taken(job, others[0]) if others else self._wrong_lane(job)",
        "return self._wrong_lane(job)",
        _KEYS,
    ),
    mutant(
        "unique-filter",
        "the look whether a filter kept the job that was to give way",
        _UNIQUE,
        "if unique.policy is not UniquePolicy.DEBOUNCE or not self._runs(other):",
        "if False:",
        _KEYS,
    ),
    mutant(
        "unique-periods",
        "the limit of keys that are held for a period",
        _UNIQUE,
        "len(self.periods) >= PERIODS_MAX and place not in self.periods",
        "False",
        _KEYS,
    ),
    mutant(
        "parent-told-twice",
        "the look whether a parent's end is noted already",
        _TRANSITIONS,
        "if waits_for(job, what.parent) is not is_end(what.outcome.state) or what.parent not in parents_of(job):",
        "if what.parent not in parents_of(job):",
        _PARENTS,
    ),
    mutant(
        "parent-parameters",
        "the refusal of a command that sets how a parent ended",
        _TRANSITIONS,
        "    if what.name.startswith(PARENT_PARAMETER):\n        return RESERVED\n",
        "",
        _PARENTS,
    ),
    mutant(
        "parents-room",
        "the bound of all results that a job is handed",
        "streams/lane/parents.py",
        "if len(job.parameters) + len(json.encode(outcome)) > NOTES_BYTES_MAX:",
        "if False:",
        _PARENTS,
    ),
    mutant(
        "revival-moved",
        "that a continuation is no longer kept once somebody has moved it",
        _UNMET,
        "if self.jobs.pop(job.id, None) is not None:",
        "if job.id in self.jobs:",
        _REVIVALS,
    ),
    mutant(
        "revival-key",
        "the look whether another job has the key of a continuation that comes back",
        _UNMET,
        "return self._may_come_back(job, election) and pipeline",
        "return pipeline",
        _REVIVALS,
    ),
    mutant(
        "revival-kept",
        "the limit of deleted continuations that are kept",
        _UNMET,
        "self.forget_oldest(self.jobs, self.pipeline.rules.failed_kept, out)",
        "pass",
        _REVIVALS,
    ),
    mutant(
        "many-continuations-live",
        "that those who were not told wait when their parent is requeued",
        "streams/lane/features/more_continuations.py",
        "is_live = job is not None and job.state not in FINAL_STATES",
        "is_live = False",
        "tests/unit/streams/lane/features/test_continuations.py",
    ),
    mutant(
        "many-continuations-end",
        "the record of an end of which not all were told when the lane is taken over",
        "streams/lane/features/more_continuations.py",
        'out.state[f"{PENDING_KEY}{parent}/"] = ManyTold(json.encode(outcome), is_last)',
        "pass",
        "tests/unit/streams/lane/features/test_continuations.py",
    ),
    mutant(
        "many-continuations-pending",
        "the time that the last of many has for its parent to be created",
        "streams/lane/features/continuations.py",
        "waiting, last = waiting[:-1], waiting[-1]._replace(since_ms=election.now_ms)",
        "return",
        "tests/unit/streams/lane/features/test_continuations.py",
    ),
    mutant(
        "sought-question",
        "the look whether an answer is to the question that is open",
        _CONTINUATIONS,
        " or question_of(links) != found.question",
        "",
        _SOUGHT,
    ),
    mutant(
        "sought-alive",
        "the refusal of an answer that says that the parent lives",
        _CONTINUATIONS,
        " or (state is not None and state not in FINAL_STATES)",
        "",
        _SOUGHT,
    ),
    mutant(
        "sought-absent",
        "the time in which a parent may be created that the read model does not have",
        _CONTINUATIONS,
        "self._sought.note_absent(parent)",
        "self._give_up(parent, out)",
        _SOUGHT,
    ),
    mutant(
        "sought-unasked",
        "that no parent is given up before it was asked for",
        _SEEKING,
        "return now_ms > self._until_ms(parent, links, pending_ms, now_ms)",
        "return now_ms > links[-1].since_ms + pending_ms",
        _SOUGHT,
    ),
    mutant(
        "sought-known",
        "that what was said of a parent holds only until it appears",
        _SEEKING,
        "        self._absent.discard(parent)\n",
        "",
        _SOUGHT,
    ),
    mutant(
        "sought-size",
        "the bound of a result in an answer",
        "streams/contract/report_checks.py",
        "if len(bytes(report.result)) > OUTCOME_BYTES_MAX:",
        "if False:",
        "tests/unit/streams/contract/test_codec_refusals.py",
    ),
    mutant(
        "sought-tables",
        "the look whether the tables have applied what was before the question",
        "projections/projector/answers.sql",
        " AND offsets.next_offset > sought.log_offset",
        "",
        _ANSWERS,
    ),
    mutant(
        "sought-late",
        "the look whether anybody waits for the answer",
        "projections/projector/answers.py",
        "if question[1].event.until < now:",
        "if False:",
        _ANSWERS,
    ),
    mutant(
        "sought-many",
        "the limit of questions that wait for an answer",
        "projections/projector/answers.py",
        "late = max(len(questions) - QUESTIONS_MAX, 0)",
        "late = 0",
        _ANSWERS,
    ),
    mutant(
        "sought-given-up-by-and-by",
        "giving many unknown parents up over several turns",
        _CONTINUATIONS,
        "while not out.budget.is_spent and (parent := sought.next(now_ms)) is not None:",
        "while (parent := sought.next(now_ms)) is not None:",
        _MANY,
    ),
    mutant(
        "ends-told-by-size",
        "counting the results that an end takes to continuations",
        _CONTINUATIONS,
        "        out.budget.spend(1, size_of(outcome))\n",
        "",
        _MANY,
    ),
    mutant(
        "failed-forgotten-by-and-by",
        "forgetting many failed jobs over several turns",
        "streams/lane/features/failed_jobs.py",
        "            not out.budget.is_spent\n            and (entry",
        "            (entry",
        _MANY,
    ),
    mutant(
        "unique-named-after-takeover",
        "the order of the jobs that have a key, which does not depend on how a lane was loaded",
        _UNIQUE,
        "tuple(sorted((*self.claims.get(place, ()), job.id)))",
        "(*self.claims.get(place, ()), job.id)",
        _KEYS,
    ),
    mutant(
        "lost-ends",
        "reporting waits again after reports were lost",
        _CONTINUATIONS,
        "                self._report_wait(job, out)\n                out.budget",
        "                out.budget",
        f"{_FEATURES}/test_lost_ends.py",
    ),
)
