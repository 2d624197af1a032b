"""What waits for parents, be these jobs or batches, and for which end of each: in any number, the oldest first."""

from collections import OrderedDict
from collections.abc import Collection

from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.lane.verdicts import verdict


class WaitingChildren:
    """By parent, and by what is waited for: the ids of what waits. All calls cost the same however many these are."""

    def __init__(self) -> None:
        self._by_parent: dict[str, dict[ContinueOn, OrderedDict[str, None]]] = {}

    @property
    def parents(self) -> Collection[str]:
        """Those for which something waits."""
        return self._by_parent.keys()

    def count(self, parent: str) -> int:
        """How many wait for a parent."""
        return sum(map(len, self._by_parent.get(parent, {}).values()))

    def add(self, parent: str, child: str, on: ContinueOn) -> bool:
        """Let a child wait for one end of the parent, and no more for another one; False if it does already."""
        conditions = self._by_parent.setdefault(parent, {})
        if child in conditions.get(on, ()):
            return False
        for others in conditions.values():
            others.pop(child, None)
        conditions.setdefault(on, OrderedDict())[child] = None
        return True

    def has_decided(self, parent: str, state: State | None, *, is_last: bool = False) -> bool:
        """Whether some wait for an end that this one decides, or, if nothing else will come, at all."""
        return self._decided(parent, state, is_last=is_last) is not None

    def pop_decided(
        self, parent: str, state: State | None, *, is_last: bool = False
    ) -> tuple[str, ContinueOn] | None:
        """Remove one of these; None if there is none."""
        on = self._decided(parent, state, is_last=is_last)
        if on is None:
            return None
        conditions = self._by_parent[parent]
        child, _ = conditions[on].popitem(last=False)
        if not conditions[on]:
            del conditions[on]
            if not conditions:
                del self._by_parent[parent]
        return child, on

    def _decided(self, parent: str, state: State | None, *, is_last: bool) -> ContinueOn | None:
        for on, children in self._by_parent.get(parent, {}).items():
            if children and (is_last or (state is not None and verdict(on, state) != "wait")):
                return on
        return None
