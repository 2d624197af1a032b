"""Bulk operations at work: the runner that sends their commands. Uses the client and the monitor."""
