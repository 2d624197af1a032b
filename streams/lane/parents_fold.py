"""Which jobs wait for those of one lane, or waited until an end deleted them, folded from the events of all lanes."""

from collections.abc import Iterable, Iterator
from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.lane.job import is_transition
from joblog.streams.lane.parents import is_end, is_met
from msgspec import json

_spec: Final = json.Decoder(wire.JobSpec).decode


class ParentsFold:
    """Continuations in whatever lane, by their ids, as far as their parents are in lane `number`.

    - unmet: those that an end deleted: of this parent, if it is here; and for which others here they had waited.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.unmet: dict[str, tuple[str, dict[str, ContinueOn]]] = {}
        self._waiting: dict[str, dict[str, ContinueOn]] = {}
        #: Of those with several parents: what they wait for, and how their parents here ended, as they noted it.
        self._several: dict[str, ContinueOn] = {}
        self._noted: dict[str, dict[str, State | None]] = {}

    def apply(self, job_id: str, event: wire.JobEvent) -> None:
        """One event of a job."""
        if event.note is not None and event.outcome is not None and event.parent is not None:
            self._note(job_id, event.parent, event.outcome.state)
        if not is_transition(event):
            return
        if event.state is not State.AWAITING:
            self._leave(job_id, event)
        elif event.parent is not None and event.on is not None:
            _, others = self.unmet.pop(job_id, ("", {}))
            self._wait(job_id, event.on, (event.parent, *others))
            self._noted.get(job_id, {}).pop(event.parent, None)
        elif event.spec is not None and (parents := _spec(event.spec).parents) is not None:
            self._several[job_id] = parents.on
            self._wait(job_id, parents.on, parents.job_ids)

    def __iter__(self) -> Iterator[tuple[str, str, ContinueOn]]:
        """The waits: child, parent, and how that has to end."""
        return ((child, parent, on) for child, parents in self._waiting.items() for parent, on in parents.items())

    def former(self) -> dict[str, tuple[str, ...]]:
        """By parent, those whose condition its end had not met."""
        found: dict[str, dict[str, None]] = {}
        for child, (parent, _) in self.unmet.items():
            if self._is_here(parent):
                found.setdefault(parent, {})[child] = None
        for child, noted in self._noted.items():
            for parent, state in noted.items():
                if state is not None and not is_met(self._several[child], state):
                    found.setdefault(parent, {})[child] = None
        return {parent: tuple(children) for parent, children in found.items()}

    def _leave(self, job_id: str, event: wire.JobEvent) -> None:
        waits = self._waiting.pop(job_id, {})
        self.unmet.pop(job_id, None)
        if event.state is State.DELETED and event.parent is not None:
            self.unmet[job_id] = event.parent, waits
        else:
            self._several.pop(job_id, None)
            self._noted.pop(job_id, None)

    def _note(self, job_id: str, parent: str, state: State | None) -> None:
        if not self._is_here(parent) or job_id not in self._several:
            return
        if is_end(state):
            self._waiting.get(job_id, {}).pop(parent, None)
            self._noted.setdefault(job_id, {})[parent] = state
        else:
            self._noted.get(job_id, {}).pop(parent, None)
            self._waiting.setdefault(job_id, {})[parent] = self._several[job_id]

    def _wait(self, job_id: str, on: ContinueOn, parents: Iterable[str]) -> None:
        if here := {parent: on for parent in parents if self._is_here(parent)}:
            self._waiting[job_id] = here

    def _is_here(self, job_id: str) -> bool:
        return lane_of_job(job_id) == self.number
