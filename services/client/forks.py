"""A fork of a client's process has its connections, but none of the threads that serve them."""

import os

from joblog.streams.errors import JoblogError


class Process:
    """The process in which a connection was made, and the only one that can use it, or close it."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def is_this(self) -> bool:
        return os.getpid() == self._pid

    def check(self) -> None:
        """Raise JoblogError in a fork, where a call would wait for threads that are not there."""
        if not self.is_this:
            raise JoblogError("this client was made before the process forked: make one after the fork")
