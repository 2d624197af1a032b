"""Everything that can be set, read once when a process starts."""
