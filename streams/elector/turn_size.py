"""How many records a turn may take: fewer after one that could not be committed, then more again."""


class TurnSize:
    """Halved when a turn was too large, grown by an eighth with each turn that was committed, up to `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = most

    def shrink(self, taken: int | None = None) -> None:
        """A turn failed that took so many records, or as many as it might."""
        self.now = max(min(self.now, taken or self.now) // 2, 1)

    def grow(self) -> None:
        """A turn was committed."""
        if self.now < self.most:
            self.now = min(self.now + max(self.now // 8, 1), self.most)
